"""What an augmentation proves about itself."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wuxing.augment.augmentation import changed, copy_id, largest
from wuxing.augment.config import AugmentationConfig
from wuxing.augment.sample import records_with
from wuxing.augment.worker import KEY_BYTES, Worker, asked, content_key
from wuxing.core.artifact import Artifact
from wuxing.core.digest import digest_of_file
from wuxing.core.evidence import Evidence
from wuxing.core.record import Fates, Record
from wuxing.core.splits import read_records, record_batch, records_of, split_path

REPLAYED = 48
"""Records whose copies are made anew."""


def examine(
    directory: Path,
    data: Artifact,
    config: AugmentationConfig,
    seed: int,
    fates: Fates,
    work: Path,
    replies: Path,
    evidence: Evidence,
) -> None:
    """All checks."""
    fates.judge(evidence)
    _judge_held_out(directory, data.path, evidence)
    _judge_train(directory, data.path, work, evidence)
    _judge_replay(directory, data.path, Worker(config, seed, work, replies), config, evidence)
    copies = asked(fates)
    share = fates.counts["augmented"] / copies if copies else 0.0
    evidence.judge("changed", share > 0, share, "> 0", "share of the copies that differ from their record")


def _judge_held_out(directory: Path, data: Path, evidence: Evidence) -> None:
    """`held_out_untouched`: validation and test are the parent's, byte for byte."""
    names = ("validation.parquet", "test.parquet")
    different = [name for name in names if digest_of_file(directory / name) != digest_of_file(data / name)]
    evidence.judge("held_out_untouched", not different, different, [], "files that differ from the parent's")


def _judge_train(directory: Path, data: Path, work: Path, evidence: Evidence) -> None:
    """One pass over the written split beside the parent's: labels, ids, and whether a copy equals a held-out record."""
    import numpy as np

    raw = (work / "held_out.keys").read_bytes()
    held_out = {raw[i : i + KEY_BYTES] for i in range(0, len(raw), KEY_BYTES)}
    parents = _labels(data)
    parent = next(parents, None)
    wrong, leaked = [], []
    ids = bytearray()
    for record in read_records(directory, "train"):
        ids += content_key(Record(record.id, "", text=record.id))
        of = _of(record) or record.id
        while parent is not None and parent.id != of:  # copies stand in the order of their records
            parent = next(parents, None)
        fault = _label_fault(record, parent)
        wrong += [f"{record.id}: {fault}"] if fault else []
        if _of(record) is not None and content_key(record) in held_out:
            leaked.append(record.id)
    keys = np.frombuffer(bytes(ids), np.dtype((np.void, KEY_BYTES)))
    evidence.judge("labels_kept", not wrong, wrong[:5], [], "copies whose label is not their record's, or not its mix")
    evidence.judge("ids_unique", len(np.unique(keys)) == len(keys), len(keys) - len(np.unique(keys)), 0)
    evidence.judge("held_out_apart", not leaked, leaked[:5], [], "copies that equal a held-out record")


def _labels(data: Path) -> Iterator[Record]:
    """Ids and labels of the parent's train split, without its contents."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(split_path(data, "train")) as file:
        for batch in file.iter_batches(columns=["id", "label"]):
            yield from (Record(row["id"], "", label=row["label"]) for row in batch.to_pylist())


def _label_fault(record: Record, parent: Record | None) -> str | None:
    """What is wrong with a label."""
    if parent is None:
        return "its record is not in the train split"
    soft = record.meta.get("soft_label") if _of(record) is not None else None
    if soft is None:
        return None if record.label == parent.label else f"{record.label}, its record {parent.label}"
    if not math.isclose(sum(soft.values()), 1, abs_tol=1e-5):
        return f"shares sum to {sum(soft.values())}"
    if parent.label not in soft:
        return f"its own class {parent.label} has no share"
    return None if record.label == largest(soft, parent.label) else f"{record.label} is not the largest of {soft}"


def _judge_replay(directory: Path, data: Path, worker: Worker, config: AugmentationConfig, evidence: Evidence) -> None:
    """`replay_equal`: copies of some records, made anew, alone and in reverse order, are the written ones."""
    import pyarrow.parquet as pq

    step = max(1, pq.read_metadata(split_path(data, "train")).num_rows // REPLAYED)
    names = {record.id for place, record in enumerate(_labels(data)) if place % step == 0}
    chosen = records_with(data, names)
    again: dict[str, Record] = {}
    for record in reversed(chosen.values()):
        for copy in records_of(worker(record_batch([record])).batch):
            again[copy.id] = copy
    asked_for = {copy_id(id, epoch) for id in names for epoch in range(1, config.copies + 1)}
    written = records_with(directory, asked_for | names)
    different = sorted(id for id in again.keys() | written.keys() if again.get(id) != written.get(id))
    value: dict[str, Any] = {"different": different[:5], "copies": sum(_is_changed(copy) for copy in again.values())}
    evidence.judge("replay_equal", not different and bool(again), value, {"different": []}, "copies made anew")


def _of(record: Record) -> str | None:
    story = record.meta.get("augmentation")
    return story["of"] if story else None


def _is_changed(record: Record) -> bool:
    return "augmentation" in record.meta and changed(record)
