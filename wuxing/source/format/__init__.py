"""File formats: one function each, `(stream, source) -> rows`.  What is broken becomes a row with a reason.

To add one: a function here or in a module beside, its line in `FORMATS`, its suffixes in `SUFFIXES`.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from typing import BinaryIO

from wuxing.core.record import Drop
from wuxing.source.config import SourceConfig
from wuxing.source.format.cut import stretch
from wuxing.source.format.table import read_row_groups
from wuxing.source.row import Blob, Part, Row, Value, short

FORMATS = {
    "text": "wuxing.source.format.table:read_text",
    "jsonl": "wuxing.source.format.table:read_jsonl",
    "json": "wuxing.source.format.table:read_json",
    "yaml": "wuxing.source.format.table:read_yaml",
    "csv": "wuxing.source.format.table:read_csv",
    "tsv": "wuxing.source.format.table:read_tsv",
    "parquet": "wuxing.source.format.table:read_parquet",
    "image": "wuxing.source.format.image:read_image",
    "audio": "wuxing.source.format.audio:read_audio",
}
SUFFIXES = {
    ".txt": "text",
    ".text": "text",
    ".md": "text",
    ".markdown": "text",
    ".rst": "text",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
    ".yaml": "yaml",
    ".yml": "yaml",
    **dict.fromkeys((".png", ".jpg", ".jpeg", ".gif", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm"), "image"),
    **dict.fromkeys((".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".au"), "audio"),
}

Reader = Callable[[BinaryIO, SourceConfig], Iterator[Value]]


def format_of(name: str) -> str | None:
    """The format that a file's name says, `.gz` aside; None when it says none."""
    plain = name.lower().removesuffix(".gz")
    return next((kind for suffix, kind in SUFFIXES.items() if plain.endswith(suffix)), None)


def parts_of(blobs: Sequence[Blob], source: SourceConfig) -> list[Part]:
    """The stretches in which the files of a source are read."""
    return [Part(blob, (format_of(blob.name) or "") if source.format == "auto" else source.format) for blob in blobs]


def read_part(part: Part, source: SourceConfig) -> Iterator[Row]:
    """The rows of one stretch in order.  A file that cannot be read is one row with the reason."""
    blob: Blob = part.blob
    if not part.format:
        yield Row(blob.name, Drop("unknown_format", "its name ends like no format that is read; set format"))
        return
    module, _, function = FORMATS[part.format].partition(":")
    read: Reader = getattr(import_module(module), function)
    number = -1
    try:
        with _opened(blob) as stream:
            if part.format == "parquet" and part.stop is not None:
                rows = read_row_groups(stream, part.start, part.stop)
            else:
                rows = read(stretch(stream, part.start, part.stop), source)
            for number, value in ((first + part.first_row, value) for first, value in rows):
                shown = value if isinstance(value, dict | Drop) else {"value": value}
                yield Row(f"{blob.name}#{number}", shown)
    except (OSError, EOFError, zlib.error) as error:
        yield Row(f"{blob.name}#{number + 1}", Drop("broken_file", short(error)))


def _opened(blob: Blob) -> BinaryIO:
    stream = blob.open()
    return gzip.open(stream) if blob.name.lower().endswith(".gz") else stream  # type: ignore[return-value]
