"""Readers: each origin of data is one file here, and gives raw rows in a stable order.

A reader is `read(source, context) -> Origin`.  To add one: a field in `source_config.SourceConfig`, a file here, a
line in `READERS`.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module

from wuxing.core.context import Context
from wuxing.source.config import SourceConfig
from wuxing.source.format import read_part
from wuxing.source.row import Origin, Part, Row

READERS = {
    "package": "wuxing.source.package",
    "files": "wuxing.source.files",
    "exchanges": "wuxing.source.exchanges",
}


def _module(source: SourceConfig) -> str:
    return next(module for field, module in READERS.items() if getattr(source, field) is not None)


def open_source(source: SourceConfig, context: Context) -> Origin:
    """The parts of a source, and where they come from.  Raises WuxingError when it cannot be reached at all."""
    origin: Origin = import_module(_module(source)).read(source, context)
    return origin


def source_digest(source: SourceConfig, context: Context) -> str | None:
    """Digest of what lies outside the recipe (files, exchanges); None when the recipe itself pins the content."""
    digest: str | None = import_module(_module(source)).digest(source, context)
    return digest


def rows_of(part: Part, source: SourceConfig) -> Iterator[Row]:
    """The rows of one part of a source, in order: what is broken is a row with a reason, never an exception."""
    if part.format == "exchanges":
        from wuxing.source.exchanges import read_exchanges

        return read_exchanges(part, source)
    return read_part(part, source)


def rows_in(source: SourceConfig, context: Context) -> Iterator[Row]:
    """All rows of a source, one part after the other."""
    return (row for part in open_source(source, context).parts for row in rows_of(part, source))
