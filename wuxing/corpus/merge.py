"""From cleaned shards to a corpus: what is kept of duplicates, which split a record falls into, the fate of each row.

Texts go through files, an Arrow batch at a time; only keys are held in memory.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wuxing.core.record import Fates
from wuxing.core.splits import SPLITS, SplitWriter, corpus_schema
from wuxing.corpus.clean import StepCount
from wuxing.corpus.config import CorpusConfig
from wuxing.corpus.duplicate import first_of_equal, near_clusters
from wuxing.corpus.fingerprint import KEY_BYTES, split_of
from wuxing.corpus.shard import Fate, Shard

if TYPE_CHECKING:
    import numpy as np
    import pyarrow
    from numpy.typing import NDArray


@dataclass
class Spool:
    """Cleaned records on disk between the pass that cleans and the pass that writes the splits."""

    directory: Path
    config: CorpusConfig
    records: int = 0
    rows: int = 0
    samples: list[tuple[str, str, str, str]] = field(default_factory=list)
    steps: list[StepCount] = field(init=False)
    """What each cleaning step did, over all shards."""
    fields: set[str] = field(default_factory=set)
    _taken: Counter[str] = field(default_factory=Counter)
    _files: ExitStack = field(default_factory=ExitStack)

    def __post_init__(self) -> None:
        self.steps = [StepCount(step.chosen) for step in self.config.clean]

    def __enter__(self) -> Spool:
        import pyarrow as pa

        shutil.rmtree(self.directory, ignore_errors=True)
        self.directory.mkdir(parents=True)
        open_file = self._files.enter_context
        self._records = open_file(pa.ipc.new_file(str(self.directory / "records.arrow"), corpus_schema()))
        self._fates = open_file(pa.ipc.new_file(str(self.directory / "fates.arrow"), fates_schema()))
        self._keys = open_file(open(self.directory / "keys", "wb"))
        self._signatures = open_file(open(self.directory / "signatures", "wb"))
        return self

    def __exit__(self, *error: object) -> None:
        self._files.close()

    def add(self, shard: Shard) -> None:
        """Append a shard."""
        import pyarrow as pa

        self.rows += len(shard.fates)
        self.records += shard.batch.num_rows
        self.fields |= shard.fields
        columns = list(zip(*shard.fates, strict=True)) or [(), (), ()]
        self._fates.write_batch(pa.record_batch([pa.array(c, pa.string()) for c in columns], schema=fates_schema()))
        self._keys.write(shard.keys)
        if shard.batch.num_rows:
            self._records.write_batch(shard.batch)
            self._sign(shard.batch.column("text"))
        for sample in shard.samples:
            if self._taken[sample[1]] < self.config.dropped_samples:
                self._taken[sample[1]] += 1
                self.samples.append(sample)
        for total, count in zip(self.steps, shard.counts, strict=True):
            total.add(count)

    def _sign(self, texts: pyarrow.Array) -> None:
        import pyarrow.compute as pc

        from wuxing.text.kernel import minhash

        settings = self.config.duplicates
        if settings.near_jaccard is not None:
            whole = pc.fill_null(texts, "")
            self._signatures.write(minhash(whole, settings.shingle_words, settings.hashes).tobytes())

    @cached_property
    def keys(self) -> NDArray[Any]:
        """Content key and split key of each record."""
        import numpy as np

        return np.fromfile(self.directory / "keys", np.dtype((np.void, KEY_BYTES))).reshape(-1, 2)

    @cached_property
    def signatures(self) -> NDArray[np.uint32]:
        """The MinHash signature of each record, memory-mapped."""
        import numpy as np

        shape = (self.records, self.config.duplicates.hashes)
        return np.memmap(self.directory / "signatures", np.uint32, "r", shape=shape)

    @cached_property
    def batches(self) -> pyarrow.ipc.RecordBatchFileReader:
        """The records, memory-mapped."""
        import pyarrow as pa

        return pa.ipc.open_file(pa.memory_map(str(self.directory / "records.arrow")))

    def fates(self) -> Iterator[Fate]:
        """The fate of each row as far as it is known: empty for records that went on."""
        import pyarrow as pa

        reader = pa.ipc.open_file(pa.memory_map(str(self.directory / "fates.arrow")))
        for number in range(reader.num_record_batches):
            batch = reader.get_batch(number).to_pydict()
            yield from zip(batch["id"], batch["fate"], batch["detail"], strict=True)


def fates_schema() -> pyarrow.Schema:
    """id, fate, detail."""
    import pyarrow as pa

    return pa.schema([("id", pa.string()), ("fate", pa.string()), ("detail", pa.string())])


def duplicates_of(spool: Spool) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """For each record: the first with equal content, and the first of its near cluster."""
    import numpy as np

    settings, alone = spool.config.duplicates, np.arange(spool.records, dtype=np.int64)
    first = first_of_equal(spool.keys[:, 0]) if settings.exact and spool.records else alone
    if settings.near_jaccard is None or not spool.records:
        return first, alone
    has_tokens = (spool.signatures != 0xFFFFFFFF).any(axis=1)
    return first, near_clusters(spool.signatures, settings.near_jaccard, has_tokens & (first == alone))


def write_splits(directory: Path, spool: Spool, said: Callable[[int], None]) -> tuple[Fates, dict[str, int]]:
    """Write the splits, `fates.parquet` and `dropped.parquet`; returns the fates and the rows of each split.

    `said` is told the number of records of each batch that was written.
    """
    first, near = duplicates_of(spool)
    fates = Fates(total=spool.rows)
    with ExitStack() as stack:
        writers = {
            split: stack.enter_context(SplitWriter(directory / f"{split}.parquet", corpus_schema())) for split in SPLITS
        }
        fate_writer = stack.enter_context(SplitWriter(directory / "fates.parquet", fates_schema()))
        verdicts = _verdicts(spool, first, near, writers, said)
        for group in _groups(_final(spool, verdicts, fates), 4096):
            fate_writer.write(group)
    _write_dropped(directory / "dropped.parquet", spool)
    return fates, {split: writer.rows for split, writer in writers.items()}


def _verdicts(
    spool: Spool,
    first: NDArray[np.int64],
    near: NDArray[np.int64],
    writers: dict[str, SplitWriter],
    said: Callable[[int], None],
) -> Iterator[tuple[str, str]]:
    """Fate and detail of each record in order; kept ones go to their split's writer on the way."""
    import numpy as np

    starts = np.cumsum([0] + [spool.batches.get_batch(n).num_rows for n in range(spool.batches.num_record_batches)])

    def id_of(index: int) -> str:
        batch = int(np.searchsorted(starts, index, side="right")) - 1
        return str(spool.batches.get_batch(batch).column("id")[index - int(starts[batch])].as_py())

    index = 0
    for number in range(spool.batches.num_record_batches):
        batch = spool.batches.get_batch(number)
        chosen: dict[str, list[int]] = {split: [] for split in SPLITS}
        verdicts = []
        for row in range(batch.num_rows):
            if first[index] != index:
                verdicts.append(("duplicate", id_of(int(first[index]))))
            elif near[index] != index:
                verdicts.append(("near_duplicate", id_of(int(near[index]))))
                _sample(spool, batch, row, verdicts[-1])
            else:
                chosen[split_of(spool.keys[index, 1].tobytes(), spool.config.split)].append(row)
                verdicts.append(("kept", ""))
            index += 1
        for split, rows in chosen.items():
            if rows:
                writers[split].write(batch.take(rows))
        said(batch.num_rows)
        yield from verdicts


def _sample(spool: Spool, batch: pyarrow.RecordBatch, row: int, verdict: tuple[str, str]) -> None:
    fate, detail = verdict
    if spool._taken[fate] < spool.config.dropped_samples:
        spool._taken[fate] += 1
        text = batch.column("text")[row].as_py()
        spool.samples.append((batch.column("id")[row].as_py(), fate, detail, (text or "")[:2000]))


def _final(spool: Spool, verdicts: Iterator[tuple[str, str]], fates: Fates) -> Iterator[Fate]:
    for id, fate, detail in spool.fates():
        if not fate:
            fate, detail = next(verdicts)
        fates.count(fate)
        yield id, fate, detail
    assert next(verdicts, None) is None, "a record has no row in the list of fates"


def _groups(rows: Iterator[Fate], size: int) -> Iterator[pyarrow.RecordBatch]:
    import pyarrow as pa

    group: list[Fate] = []
    for row in rows:
        group.append(row)
        if len(group) == size:
            yield pa.record_batch([pa.array(c, pa.string()) for c in zip(*group, strict=True)], schema=fates_schema())
            group = []
    if group:
        yield pa.record_batch([pa.array(c, pa.string()) for c in zip(*group, strict=True)], schema=fates_schema())


def _write_dropped(path: Path, spool: Spool) -> None:
    import pyarrow as pa

    schema = fates_schema().append(pa.field("text", pa.string()))
    columns = list(zip(*spool.samples, strict=True)) or [()] * 4
    with SplitWriter(path, schema) as writer:
        writer.write(pa.record_batch([pa.array(c, pa.string()) for c in columns], schema=schema))
