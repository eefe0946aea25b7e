"""`make: report`: an evaluation and all that it stands on, told to people as one HTML page and as Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from wuxing.core.artifact import Artifact
from wuxing.core.context import Context
from wuxing.core.step import Draft, Parent, StepConfig, StepKind


class ReportStep(StepConfig):
    """What is told, and in which language."""

    of: str
    """The evaluation."""
    title: str | None = None
    """Heading; made from the recipe's name unless given."""
    language: Literal["en", "zh"] = "en"
    background: str | None = None
    """Why the work was done; drawn from the records unless given."""
    goal: str | None = None
    """What it should reach; drawn from the evaluation's comparisons unless given."""
    models: list[str] = []
    """Models to tell of; empty: all of the evaluation."""
    corpora: list[str] = []
    """Corpora to tell of; empty: all that the models were trained or measured on."""


class ReportKind(StepKind[ReportStep]):
    """Writes `report.html` (one file, nothing loaded from outside), `report.md` and `plots/`."""

    kind = "report"
    code = 4
    Config = ReportStep
    libraries = ("jinja2",)
    required = ("sources_found", "figures_traced", "self_contained")

    def parents(self, config: ReportStep) -> Mapping[str, Parent]:
        return {"of": Parent(config.of, ("evaluation",))}

    def make(self, config: ReportStep, parents: Mapping[str, Artifact], draft: Draft, context: Context) -> None:
        from wuxing.evaluate.report import Wish, judge_report, write_report

        wish = Wish(config.title, config.background, config.goal, tuple(config.models), tuple(config.corpora))
        report = write_report(context.home, parents["of"], draft.path, config.language, wish)
        judge_report(report, draft.evidence)
        draft.summary["report"] = "report.html"
        draft.summary["problems"] = len(report.problems)
