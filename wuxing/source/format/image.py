"""Picture files: one record each, as they are.  Decoding is a cleaning step's work (`corpus/clean/image.py`)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, BinaryIO

from wuxing.core.amount import bytes_text
from wuxing.core.record import Drop
from wuxing.source.config import SourceConfig
from wuxing.source.row import Value

if TYPE_CHECKING:
    import pyarrow

MAX_FILE_BYTES = 256 << 20


def read_image(stream: BinaryIO, source: SourceConfig) -> Iterator[Value]:
    yield 0, whole(stream, "image")


def whole(stream: BinaryIO, field: str) -> dict[str, bytes] | Drop:
    """A file's content as the value of `field`, or why it is none."""
    data = stream.read(MAX_FILE_BYTES + 1)
    if len(data) > MAX_FILE_BYTES:
        return Drop("file_too_large", f"more than {bytes_text(MAX_FILE_BYTES)}")
    return {field: data} if data else Drop("empty", "a file of 0 bytes")


def class_names(schema: pyarrow.Schema) -> dict[str, list[str]]:
    """Column → names of its classes, which Hugging Face's data sets keep in a Parquet or Arrow file's metadata."""
    raw = (schema.metadata or {}).get(b"huggingface")
    try:
        features = json.loads(raw)["info"]["features"] if raw else {}
    except (ValueError, KeyError, TypeError):
        return {}
    if not isinstance(features, dict):
        return {}
    kinds = {name: kind for name, kind in features.items() if isinstance(kind, dict)}
    return {
        name: [str(label) for label in kind["names"]]
        for name, kind in kinds.items()
        if kind.get("_type") == "ClassLabel" and isinstance(kind.get("names"), list)
    }


def named(row: dict[str, Any], names: dict[str, list[str]]) -> dict[str, Any]:
    """A row in which the numbers of classes are their names; -1 stands for none (the hub's test splits)."""
    for column, labels in names.items():
        number = row.get(column)
        if isinstance(number, int):
            row[column] = labels[number] if 0 <= number < len(labels) else None
    return row
