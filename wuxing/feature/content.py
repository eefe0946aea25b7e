"""What a transform reads of a record: its text, its picture, its samples."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wuxing.core.record import Drop
from wuxing.core.splits import split_path
from wuxing.feature.config import Content

if TYPE_CHECKING:
    import pyarrow

ROWS = {"text": 1024, "image": 256, "audio": 64}
"""Records worked on at once."""
COLUMNS = {"text": ("text", "messages"), "image": ("image",), "audio": ("audio",)}


@dataclass
class Chunk:
    """Some records of a split, decoded; those without the content are lost, with a fate."""

    ids: list[str] = field(default_factory=list)
    labels: list[str | None] = field(default_factory=list)
    values: list[Any] = field(default_factory=list)
    lost: list[tuple[str, str, str]] = field(default_factory=list)
    """id, fate, detail."""


@dataclass(frozen=True)
class Reader:
    """How records are read: which content, where the class stands, and the rate of sounds."""

    content: Content
    label: str | None = None
    """The field of meta that holds the class; the record's own label when None."""
    rate: int | None = None

    def batches(self, directory: Path, split: str) -> Iterator[pyarrow.RecordBatch]:
        """The needed columns of a split, some records at a time."""
        import pyarrow.parquet as pq

        columns = ["id", "label", *COLUMNS[self.content], *(["meta"] if self.label else [])]
        with pq.ParquetFile(split_path(directory, split)) as file:
            known = [name for name in columns if name in file.schema_arrow.names]
            yield from file.iter_batches(ROWS[self.content], columns=known)

    def decode(self, batch: pyarrow.RecordBatch) -> Chunk:
        """The records of a batch."""
        chunk = Chunk()
        for row in batch.to_pylist():
            value = self.value(row)
            if isinstance(value, Drop):
                chunk.lost.append((row["id"], value.reason, value.detail))
                continue
            chunk.ids.append(row["id"])
            chunk.labels.append(self._label(row))
            chunk.values.append(value)
        return chunk

    def value(self, row: Mapping[str, Any]) -> Any | Drop:
        """The text, picture or samples of a record, or why there is none; the reason is a fate."""
        if self.content == "text":
            return _text(row)
        data = row.get(self.content)
        if data is None:
            return Drop(f"filtered:no_{self.content}", "the record holds something else")
        from wuxing.media.error import MediaError

        try:
            return _picture(data) if self.content == "image" else _samples(data, self.rate)
        except MediaError as error:
            return Drop(f"unreadable:{self.content}", str(error))

    def _label(self, row: Mapping[str, Any]) -> str | None:
        value = json.loads(row["meta"]).get(self.label) if self.label else row.get("label")
        return None if value is None else str(value)


def _text(row: Mapping[str, Any]) -> str | Drop:
    if row.get("text") is not None:
        return str(row["text"])
    turns: Sequence[Mapping[str, str]] | None = row.get("messages")
    if turns is not None:
        return "\n".join(turn["content"] for turn in turns)
    return Drop("filtered:no_text", "the record holds something else")


def _picture(data: bytes) -> Any:
    from wuxing.media.image import decode

    return decode(data)


def _samples(data: bytes, rate: int | None) -> Any:
    from wuxing.media.audio import decode

    return decode(data, rate).mono_T
