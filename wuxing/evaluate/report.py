"""Reports: one HTML page that loads nothing from outside, and the same as Markdown with its plots beside it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wuxing.core.artifact import Artifact
from wuxing.core.evidence import Evidence
from wuxing.core.file import write_text
from wuxing.evaluate.block import Code, Figure, Plot, Report, figures_of
from wuxing.evaluate.fact import collect
from wuxing.evaluate.present import Presenter
from wuxing.evaluate.string import Words

if TYPE_CHECKING:
    from jinja2 import Environment

TEMPLATES = Path(__file__).parent / "templates"
_LOADED = re.compile(
    r"""(?:src|href|xlink:href)\s*=\s*["'](?!#|data:)|@import|url\(\s*["']?(?!#|data:)""", re.IGNORECASE
)
"""What would make a browser load something."""


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
    page = _environment(report, html=True).get_template("report.html.jinja")
    report.html = page.render(report=report, t=words)
    markdown = _environment(report, html=False).get_template("report.md.jinja").render(report=report, t=words)
    write_text(directory / "report.html", report.html)
    write_text(directory / "report.md", re.sub(r"\n{3,}", "\n\n", markdown).strip() + "\n")
    for plot in _plots(report):
        write_text(directory / "plots" / f"{plot.name}.svg", plot.file)
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
    loads = sorted({match.group(0) for match in _LOADED.finditer(report.html)})
    evidence.judge("self_contained", not loads, loads, [], "things that a browser would load from outside")


def _plots(report: Report) -> list[Plot]:
    return [
        block
        for section in report.sections
        for part in section.parts
        for block in part.blocks
        if isinstance(block, Plot)
    ]


def _environment(report: Report, html: bool) -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=html,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    inline = _inline_html if html else _inline_markdown
    environment.filters["inline"] = partial(inline, report.sources)
    environment.filters["number"] = lambda source: report.sources.index(source) + 1
    environment.filters["plain"] = _escaped
    return environment


def _inline_html(sources: list[str], parts: Any) -> Any:
    from markupsafe import Markup, escape

    text = Markup("")
    for part in parts:
        if isinstance(part, Figure):
            number = sources.index(part.source) + 1
            text += Markup('<span class="figure" title="{}">{}<a href="#a{}">[{}]</a></span>').format(
                part.source, part.text.replace(" ", "\u00a0"), number, number
            )
        elif isinstance(part, Code):
            text += Markup("<code>{}</code>").format(part.text)
        else:
            text += escape(part)
    return text


def _inline_markdown(sources: list[str], parts: Any) -> str:
    found = []
    for part in parts:
        if isinstance(part, Figure):
            found.append(f"{_escaped(part.text)}[^{sources.index(part.source) + 1}]")
        elif isinstance(part, Code):
            found.append(f"`{_flat(part.text).replace('`', '′').replace('|', chr(92) + '|')}`")
        else:
            found.append(_escaped(part))
    return "".join(found)


def _escaped(text: str) -> str:
    """Text in which Markdown sees no markup, on one line."""
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", _flat(text))


def _flat(text: str) -> str:
    return " ".join(text.split("\n")).replace("\r", " ")
