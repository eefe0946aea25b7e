"""A batch of records of the train split → the records and their copies, with a fate for each."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from wuxing.augment.ask import Asker
from wuxing.augment.augmentation import Augmentation, changed, copy_id
from wuxing.augment.config import AugmentationConfig, Paraphrase
from wuxing.core.digest import canonical_json
from wuxing.core.record import Drop, Fates, Record
from wuxing.core.splits import SPLITS, read_records, record_batch, records_of, write_records

if TYPE_CHECKING:
    import pyarrow

Fate = tuple[str, str, str]
"""id, fate, detail."""
ROWS = {"text": 512, "image": 128, "audio": 32}
"""Records worked on at once."""
KEY_BYTES = 16


def content_key(record: Record) -> bytes:
    """What a record says, shows or sounds, as 16 bytes."""
    if record.messages is not None:
        data = canonical_json(record.messages).encode()
    else:
        data = record.image or record.audio or (record.text or "").encode()
    return hashlib.blake2b(data, digest_size=KEY_BYTES).digest()


def asked(fates: Fates) -> int:
    """How many copies were to be made: all that are neither kept records nor replaced ones."""
    return fates.total - fates.counts["kept"] - fates.counts["replaced"]


@dataclass
class Made:
    """The result of a batch."""

    batch: pyarrow.RecordBatch
    fates: list[Fate] = field(default_factory=list)
    operations: Counter[str] = field(default_factory=Counter)
    """How many copies each operation changed."""


class Worker:
    """Makes the copies of batches; `work` holds what all workers read: the partners, the keys of held-out records."""

    def __init__(self, config: AugmentationConfig, seed: int, work: Path, replies: Path):
        partners = list(read_records(work, "train")) if config.operations.mixes else []
        asks = [step.operation for step in config.steps if isinstance(step.operation, Paraphrase)]
        self._threads = max((operation.concurrency for operation in asks), default=1)
        self._config = config
        self._augmentation = Augmentation(config.operations, seed, partners, Asker(replies) if asks else None)
        raw = (work / "held_out.keys").read_bytes()
        self._held_out = frozenset(raw[i : i + KEY_BYTES] for i in range(0, len(raw), KEY_BYTES))

    def __call__(self, batch: pyarrow.RecordBatch) -> Made:
        """Each record (where originals stay), then its copies."""
        records = list(records_of(batch))
        epochs = range(1, self._config.copies + 1)
        tasks = [(record, epoch) for record in records for epoch in epochs]
        copies = iter(self._copies(tasks))
        kept: list[Record] = []
        fates: list[Fate] = []
        operations: Counter[str] = Counter()
        for record in records:
            if self._config.keep_originals:
                kept.append(record)
                fates.append((record.id, "kept", ""))
            else:
                fates.append((record.id, "replaced", "its copies stand in its place"))
            for epoch in epochs:
                copy = next(copies)
                fate = self._fate(copy)
                fates.append((copy_id(record.id, epoch), *fate))
                if fate[0] == "augmented":
                    assert isinstance(copy, Record)
                    kept.append(copy)
                    operations.update(name for done in copy.meta["augmentation"]["operations"] for name in done)
        return Made(record_batch(kept), fates, operations)

    def _copies(self, tasks: Sequence[tuple[Record, int]]) -> Sequence[Record | Drop]:
        if self._threads == 1:
            return [self._augmentation.apply(record, epoch) for record, epoch in tasks]
        with ThreadPoolExecutor(self._threads) as threads:
            return list(threads.map(lambda task: self._augmentation.apply(*task), tasks))

    def _fate(self, copy: Record | Drop) -> tuple[str, str]:
        if isinstance(copy, Drop):
            return copy.reason, copy.detail
        if not changed(copy):
            return "unchanged", "equal to its record"
        if content_key(copy) in self._held_out:
            return "filtered:held_out", "equal to a held-out record"
        return "augmented", ""


def prepare(data: Path, config: AugmentationConfig, seed: int, work: Path) -> None:
    """Write what the workers share: partners drawn from the train split by a hash of their id, held-out keys."""
    work.mkdir(parents=True, exist_ok=True)
    keys = [content_key(record) for split in SPLITS[1:] for record in read_records(data, split)]
    (work / "held_out.keys").write_bytes(b"".join(keys))
    if config.operations.mixes:
        write_records(work, "train", draw(read_records(data, "train"), config.partners, seed))


def draw(records: Iterator[Record], count: int, seed: int) -> list[Record]:
    """The `count` records with images whose ids have the smallest hash, in the order of the hash."""
    import heapq

    drawn: list[tuple[int, int, Record]] = []
    for place, record in enumerate(records):
        if record.image is None:
            continue
        hashed = int.from_bytes(hashlib.blake2b(f"{seed}/{record.id}".encode(), digest_size=8).digest())
        entry = (-hashed, -place, record)
        if len(drawn) < count:
            heapq.heappush(drawn, entry)
        elif entry[:2] > drawn[0][:2]:
            heapq.heapreplace(drawn, entry)
    return [record for _, _, record in sorted(drawn, key=lambda entry: (-entry[0], -entry[1]))]


def start(config: AugmentationConfig, seed: int, work: Path, replies: Path) -> Worker:
    """A worker's function."""
    return Worker(config, seed, work, replies)
