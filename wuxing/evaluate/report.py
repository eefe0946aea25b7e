"""Reports: one HTML page that loads nothing from outside, and the same as Markdown with its plots beside it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from wuxing.core.artifact import Artifact
from wuxing.core.evidence import Evidence
from wuxing.core.file import write_text
from wuxing.evaluate.fact import collect
from wuxing.evaluate.present import Presenter
from wuxing.evaluate.string import Words
from wuxing.page.block import Report, figures_of, plots_of
from wuxing.page.render import loaded_things, render_html, render_markdown
from wuxing.page.svg import for_file


@dataclass(frozen=True)
class Wish:
    """What a person asked of a report, besides its language."""

    title: str | None = None
    background: str | None = None
    goal: str | None = None
    models: tuple[str, ...] = ()
    corpora: tuple[str, ...] = ()


def write_report(
    store_home: Path, evaluation: Artifact, directory: Path, language: str = "en", wish: Wish | None = None
) -> Report:
    """Write `report.html`, `report.md` and `plots/` into `directory`; equal records give equal bytes.

    Raises UsageError for an unknown language or an unknown model or corpus in `wish`.
    """
    wish, words = wish or Wish(), Words(language)
    facts = collect(store_home, evaluation, wish.models, wish.corpora)
    report = Presenter(facts, words).report(wish.title, wish.background, wish.goal)
    report.html = render_html(report, words)
    write_text(directory / "report.html", report.html)
    write_text(directory / "report.md", render_markdown(report, words))
    for plot in plots_of(report):
        write_text(directory / "plots" / f"{plot.name}.svg", for_file(plot.svg))
    return report


def judge_report(report: Report, evidence: Evidence) -> None:
    """Leave the evidence that a report owes."""
    note = "ancestors that are no longer in the store"
    evidence.judge("sources_found", not report.missing, report.missing, [], note)
    figures = figures_of(report)
    untraced = sorted({figure.source for figure in figures} - set(report.sources))
    printed = report.html.count('class="figure"')
    traced = not untraced and printed == len(figures) > 0
    value = {"figures": len(figures), "printed": printed, "unknown_sources": untraced}
    evidence.judge("figures_traced", traced, value, "every figure is printed with its artifact")
    loads = loaded_things(report.html)
    evidence.judge("self_contained", not loads, loads, [], "things that a browser would load from outside")
