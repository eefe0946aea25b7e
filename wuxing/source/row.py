"""What every reader gives: rows with a place, or the reason why a place holds none."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, BinaryIO, Protocol

from wuxing.core.error import WuxingError
from wuxing.core.record import Drop

Value = tuple[int, Any]
"""The number of a row in its file, and a mapping, a scalar or a Drop."""


class NotThere(WuxingError):
    """A server says that it has no such file: final, and no fault of the network."""


def short(error: BaseException) -> str:
    """An exception's message as the detail of a fate."""
    return " ".join(str(error).split())[:200] or type(error).__name__


def numbered(name: str, count: int) -> str:
    """A file's name that differs from those of `count - 1` files before it with the same one: `d/a~2.jsonl.gz`."""
    if count == 1:
        return name
    directory, slash, last = name.rpartition("/")
    stem, dot, suffixes = last.partition(".")
    return f"{directory}{slash}{stem}~{count}{dot}{suffixes}"


@dataclass(frozen=True)
class Row:
    """One raw row.  `place` is stable: path inside the source, number inside the file."""

    place: str
    value: Any
    """A mapping field → value, or a `Drop` when the place could not be read."""

    @property
    def unreadable(self) -> Drop | None:
        return self.value if isinstance(self.value, Drop) else None


class Document(dict[str, Any]):
    """The row of a document: `text` is its content, and whatever else it has (title, url, date, ...) is about it.

    Without `fields` in the recipe the content becomes the record's text and the rest its meta.
    """


class Blob(Protocol):
    """One file, wherever it lies.  Picklable: a worker elsewhere opens it."""

    @property
    def name(self) -> str:
        """Path inside the source: the first part of its rows' places."""
        ...

    @property
    def bytes(self) -> int:
        """Its size."""
        ...

    def open(self) -> BinaryIO:
        """The content from its beginning."""
        ...

    def digest(self) -> str:
        """Identity of the content: its SHA-256, or what its holder guarantees (CRC and size, an object's id)."""
        ...


@dataclass(frozen=True)
class Part:
    """A stretch of a source that any worker reads on its own, with the same rows."""

    blob: Any
    """A Blob, or what a reader of its own format needs (an exchange log, a query)."""
    format: str
    start: int = 0
    """First byte (lines of text) or row group (Parquet) of the stretch."""
    stop: int | None = None
    """Where it ends; None: at the end of the blob."""
    first_row: int = 0
    """The number of the first row, for places that do not depend on how the blob was cut."""
    digest: str | None = None
    """SHA-256 of the stretch's own bytes, where cutting has read them; else the blob's digest says what it holds."""


@dataclass(frozen=True)
class Origin:
    """A source that was opened: listed, not read."""

    parts: list[Part]
    card: dict[str, Any] = field(default_factory=dict)
    """Where it comes from, for the corpus card: registry, digest, files."""
    ready: bool = False
    """Whether the rows are records already (`Row.value` is a Record) and need no `fields`."""
