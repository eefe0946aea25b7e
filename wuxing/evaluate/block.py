"""What a report is made of.  Figures never stand alone: each one knows the artifact that it comes from."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

_NAME = re.compile(r"\{([a-z_]+)\}")


@dataclass(frozen=True)
class Figure:
    """A number as it is printed, and the id of its artifact."""

    text: str
    source: str


@dataclass(frozen=True)
class Code:
    """Words that must not be translated or wrapped: names, quoted evidence."""

    text: str


Inline = str | Figure | Code


@dataclass(frozen=True)
class Paragraph:
    block: ClassVar[str] = "paragraph"
    parts: Sequence[Inline]


@dataclass(frozen=True)
class Bullets:
    block: ClassVar[str] = "bullets"
    items: Sequence[Sequence[Inline]]
    grave: Sequence[bool] = ()
    """Which items are printed as warnings."""
    ordered: bool = False


@dataclass(frozen=True)
class Table:
    """`cells` are inline lists; the first column is the row's heading."""

    block: ClassVar[str] = "table"
    columns: Sequence[str]
    rows: Sequence[Sequence[Sequence[Inline]]]
    numeric: Sequence[int] = ()
    """Columns that are set flush right."""


@dataclass(frozen=True)
class Plot:
    block: ClassVar[str] = "plot"
    name: str
    """File name in plots/, without its suffix."""
    caption: str
    sources: Sequence[str]
    page: str
    """SVG that takes its colours from the page."""
    file: str
    """SVG that stands alone."""


@dataclass(frozen=True)
class Sample:
    right: bool
    question: str
    reply: str
    expected: Sequence[Inline]
    """The right answer; empty where the reply is right."""
    sure: Sequence[Inline]


@dataclass(frozen=True)
class Samples:
    block: ClassVar[str] = "samples"
    heading: Sequence[Inline]
    samples: Sequence[Sample]


Block = Paragraph | Bullets | Table | Plot | Samples


@dataclass(frozen=True)
class Part:
    """Blocks under a heading of the second rank, or under none."""

    heading: str | None
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Section:
    key: str
    heading: str
    parts: Sequence[Part]


@dataclass(frozen=True)
class Card:
    """A headline figure."""

    label: str
    figure: Figure
    note: Sequence[Inline]


@dataclass
class Report:
    """A whole report, before it becomes HTML or Markdown."""

    title: str
    subtitle: str
    language: str
    cards: list[Card]
    sections: list[Section]
    sources: list[str]
    """Ids of artifacts; a figure is printed with the place of its source in this list, from 1."""
    problems: list[Any] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    html: str = ""


def compose(template: str, values: Mapping[str, Any]) -> list[Inline]:
    """A sentence with its figures: `{name}` becomes `values["name"]`, which is text, a figure, or a list of both."""
    parts: list[Inline] = []
    end = 0
    for match in _NAME.finditer(template):
        parts.append(template[end : match.start()])
        value = values[match[1]]
        parts += value if isinstance(value, list) else [value]
        end = match.end()
    parts.append(template[end:])
    return [part for part in parts if part != ""]


def figures_of(report: Report) -> list[Figure]:
    """Every figure of a report."""
    found: list[Figure] = [card.figure for card in report.cards]

    def walk(value: Any) -> None:
        if isinstance(value, Figure):
            found.append(value)
        elif isinstance(value, list | tuple):
            for one in value:
                walk(one)
        elif isinstance(value, Paragraph | Bullets | Table | Samples | Sample | Part | Section):
            for one in vars(value).values():
                walk(one)

    for card in report.cards:
        walk(list(card.note))
    walk(report.sections)
    return found
