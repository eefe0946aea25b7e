"""Some copies to look at: before and after."""

from __future__ import annotations

import hashlib
import heapq
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wuxing.core.record import Record
from wuxing.core.splits import records_of, split_path

SAMPLES = 24


class Sampler:
    """Keeps the ids with the smallest hash: the same ones in any order."""

    def __init__(self) -> None:
        self._drawn: list[tuple[int, str]] = []

    def offer(self, id: str) -> None:
        entry = (-int.from_bytes(hashlib.blake2b(id.encode(), digest_size=8).digest()), id)
        if len(self._drawn) < SAMPLES:
            heapq.heappush(self._drawn, entry)
        elif entry > self._drawn[0]:
            heapq.heapreplace(self._drawn, entry)

    @property
    def ids(self) -> list[str]:
        """The ids, in the order of their hash."""
        return [id for _, id in sorted(self._drawn, reverse=True)]


@dataclass(frozen=True)
class Sample:
    """A copy beside its record."""

    before: Record
    after: Record

    @property
    def operations(self) -> list[dict[str, Any]]:
        """What was done, with its numbers."""
        done: list[dict[str, Any]] = self.after.meta["augmentation"]["operations"]
        return done


def _content(record: Record) -> bytes:
    if record.messages is not None:
        return json.dumps(record.messages, ensure_ascii=False).encode()
    return record.image or record.audio or (record.text or "").encode()


def records_with(directory: Path, ids: set[str]) -> dict[str, Record]:
    """The records of the train split with these ids; only the row groups that hold one are read whole."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    found: dict[str, Record] = {}
    wanted = pa.array(sorted(ids), pa.string())
    with pq.ParquetFile(split_path(directory, "train")) as file:
        for group in range(file.num_row_groups):
            mine = pc.is_in(file.read_row_group(group, columns=["id"])["id"], wanted)
            if pc.any(mine).as_py():
                found |= {record.id: record for record in records_of(file.read_row_group(group).filter(mine))}
    return found


def find(directory: Path, data: Path, ids: list[str]) -> list[Sample]:
    """The copies with these ids and their records."""
    after = records_with(directory, set(ids))
    before = records_with(data, {copy.meta["augmentation"]["of"] for copy in after.values()})
    copies = [after[id] for id in ids]
    return [Sample(before[copy.meta["augmentation"]["of"]], copy) for copy in copies]


def write_samples(directory: Path, data: Path, ids: list[str]) -> None:
    """`changed.parquet`: id, step, before, after (bytes: text as UTF-8, else an encoded file)."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = list(_rows(find(directory, data, ids)))
    types = {"id": pa.string(), "step": pa.string(), "label": pa.string(), "before": pa.binary(), "after": pa.binary()}
    table = pa.table({name: pa.array([row[name] for row in rows], kind) for name, kind in types.items()})
    pq.write_table(table, directory / "changed.parquet", compression="zstd")


def _rows(samples: list[Sample]) -> Iterator[dict[str, Any]]:
    for sample in samples:
        soft = sample.after.meta.get("soft_label")
        yield {
            "id": sample.after.id,
            "step": json.dumps(sample.operations, ensure_ascii=False),
            "label": json.dumps(soft, ensure_ascii=False) if soft else sample.after.label,
            "before": _content(sample.before),
            "after": _content(sample.after),
        }
