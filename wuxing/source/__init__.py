"""Readers: each origin of data is one file here, and gives raw rows in a stable order.

A reader is `read(source, context) -> Origin`.  To add one: a field in `source_config.SourceConfig`, a file here, a
line in `READERS`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from importlib import import_module

from wuxing.core.context import Context
from wuxing.core.digest import digest_of
from wuxing.source.config import SourceConfig
from wuxing.source.format import read_part
from wuxing.source.medium import Manifest, attached, with_media
from wuxing.source.row import Origin, Part, Row

READERS = {
    "package": "wuxing.source.package",
    "files": "wuxing.source.files",
    "exchanges": "wuxing.source.exchanges",
    "git": "wuxing.source.git",
    "sql": "wuxing.source.sql",
    "hub": "wuxing.source.hub",
}
READ_BY_THEMSELVES = {
    "exchanges": "wuxing.source.exchanges:read_exchanges",
    "git": "wuxing.source.git:read_tree",
    "sql": "wuxing.source.sql:read_query",
}
"""Formats of parts that are no files: who reads them."""


def _module(source: SourceConfig) -> str:
    if source.files is not None and "://" in source.files:
        return "wuxing.source.remote"
    return next(module for field, module in READERS.items() if getattr(source, field) is not None)


def open_source(source: SourceConfig, context: Context) -> Origin:
    """The parts of a source, and where they come from.  Raises WuxingError when it cannot be reached at all."""
    origin: Origin = import_module(_module(source)).read(source, context)
    return replace(origin, parts=with_media(origin.parts, source)) if source.files is not None else origin


def source_digest(source: SourceConfig, context: Context) -> str | None:
    """Digest of what lies outside the recipe (files, exchanges); None when the recipe itself pins the content."""
    digest: str | None = import_module(_module(source)).digest(source, context)
    if digest is None or source.files is None or "://" in source.files:
        return digest
    tables = [part.blob for part in open_source(source, context).parts if isinstance(part.blob, Manifest)]
    return digest_of([digest, [table.digest() for table in tables]]) if tables else digest


def rows_of(part: Part, source: SourceConfig) -> Iterator[Row]:
    """The rows of one part of a source, in order: what is broken is a row with a reason, never an exception."""
    if part.format in READ_BY_THEMSELVES:
        module, _, function = READ_BY_THEMSELVES[part.format].partition(":")
        rows: Iterator[Row] = getattr(import_module(module), function)(part, source)
        return rows
    return attached(read_part(part, source), part, source)


def rows_in(source: SourceConfig, context: Context) -> Iterator[Row]:
    """All rows of a source, one part after the other."""
    return (row for part in open_source(source, context).parts for row in rows_of(part, source))
