"""What every reader gives: rows with a place, or the reason why a place holds none."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from wuxing.core.record import Drop


@dataclass(frozen=True)
class Row:
    """One raw row.  `place` is stable: path inside the source, number inside the file."""

    place: str
    value: Any
    """A mapping field → value, or a `Drop` when the place could not be read."""

    @property
    def unreadable(self) -> Drop | None:
        return self.value if isinstance(self.value, Drop) else None


@dataclass(frozen=True)
class Blob:
    """One file, wherever it lies."""

    name: str
    """Path inside the source: the first part of its rows' places."""
    open: Callable[[], BinaryIO]
    bytes: int


@dataclass(frozen=True)
class Origin:
    """A source that was opened."""

    rows: Iterator[Row]
    card: dict[str, Any] = field(default_factory=dict)
    """Where it comes from, for the corpus card: registry, digest, files."""
    ready: bool = False
    """Whether the rows are records already (`Row.value` is a Record) and need no `fields`."""
