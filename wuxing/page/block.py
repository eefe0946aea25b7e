"""What a page is made of.  No figure stands alone: each one knows the artifact, or the place in it, it comes from."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

_NAME = re.compile(r"\{([a-z_]+)\}")


@dataclass(frozen=True)
class Figure:
    """A number as it is printed, and where it comes from: an artifact's id, or a place in its files."""

    text: str
    source: str
    value: float | None = None
    """What a table sorts by."""


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
    sortable: bool = False
    """Whether a click on a heading sorts the rows."""
    anchors: bool = False
    """Whether its rows are what numbered figures refer to."""


@dataclass(frozen=True)
class Plot:
    block: ClassVar[str] = "plot"
    name: str
    """File name in plots/, without its suffix."""
    caption: str
    sources: Sequence[str]
    svg: str
    """Drawn with the page's colours; `svg.for_file` lets it stand alone."""


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


@dataclass(frozen=True)
class Item:
    """One record, shown: its id, what is said of it, and its content in one form."""

    id: str
    note: Sequence[Inline] = ()
    text: str = ""
    image: str = ""
    """A data URI."""
    audio: str = ""
    """A data URI."""
    wave: str = ""
    """SVG of the sound."""
    turns: Sequence[tuple[str, str]] = ()
    """Role and content of a dialogue's turns."""


@dataclass(frozen=True)
class Items:
    """Records, one under the other."""

    block: ClassVar[str] = "items"
    items: Sequence[Item]


@dataclass(frozen=True)
class Gallery:
    """Small pictures side by side."""

    block: ClassVar[str] = "gallery"
    items: Sequence[Item]


Piece = tuple[Literal["same", "removed", "added"], str]


@dataclass(frozen=True)
class Change:
    """A record before and after a step."""

    id: str
    before: Sequence[Piece]
    after: Sequence[Piece]


@dataclass(frozen=True)
class Changes:
    block: ClassVar[str] = "changes"
    changes: Sequence[Change]


@dataclass(frozen=True)
class Verbatim:
    """Text to copy, such as a piece of a recipe."""

    block: ClassVar[str] = "verbatim"
    text: str


@dataclass(frozen=True)
class Fold:
    """Blocks that are opened by a click."""

    block: ClassVar[str] = "fold"
    summary: Sequence[Inline]
    blocks: Sequence[Any]
    open: bool = False


Block = Paragraph | Bullets | Table | Plot | Samples | Items | Gallery | Changes | Verbatim | Fold


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
    """A whole page, before it becomes HTML or Markdown."""

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
    numbered: bool = True
    """Whether a figure is printed with the number of its source; otherwise its source is its tooltip."""
    links: Sequence[tuple[str, str]] = ()
    """Other pages (words, file name), such as the same one in another language."""


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


_HOLDERS = (Paragraph, Bullets, Table, Samples, Sample, Items, Gallery, Item, Fold, Part, Section)


def figures_of(report: Report) -> list[Figure]:
    """Every figure of a report."""
    found: list[Figure] = [card.figure for card in report.cards]

    def walk(value: Any) -> None:
        if isinstance(value, Figure):
            found.append(value)
        elif isinstance(value, list | tuple):
            for one in value:
                walk(one)
        elif isinstance(
            value, Paragraph | Bullets | Table | Samples | Sample | Items | Gallery | Item | Fold | Part | Section
        ):
            for one in vars(value).values():
                walk(one)

    for card in report.cards:
        walk(list(card.note))
    walk(report.sections)
    return found


def plots_of(report: Report) -> list[Plot]:
    """Every plot of a report, in order."""

    def walk(blocks: Sequence[Any]) -> Iterator[Plot]:
        for block in blocks:
            if isinstance(block, Plot):
                yield block
            elif isinstance(block, Fold):
                yield from walk(block.blocks)

    return [plot for section in report.sections for part in section.parts for plot in walk(part.blocks)]
