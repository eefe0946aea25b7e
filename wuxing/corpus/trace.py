"""From the id of a raw record to its fate in a corpus."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Trace:
    """What became of one raw record in one corpus."""

    fate: str
    """`kept`, `duplicate`, `filtered:<reason>`, ..."""
    detail: str
    split: str | None
    """The split that a kept record went to."""


def trace_record(directory: Path, record_id: str) -> Trace | None:
    """The fate of a record in the corpus artifact at `directory`; None when that corpus never read it."""
    import pyarrow.parquet as parquet

    if not (directory / "fates.parquet").exists():
        return None
    fates = parquet.read_table(directory / "fates.parquet", filters=[("id", "=", record_id)]).to_pylist()
    if not fates:
        return None
    splits = [
        split
        for split in ("train", "validation", "test")
        if parquet.read_table(directory / f"{split}.parquet", columns=["id"], filters=[("id", "=", record_id)]).num_rows
    ]
    return Trace(fates[0]["fate"], fates[0]["detail"] or "", splits[0] if splits else None)
