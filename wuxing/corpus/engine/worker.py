"""From parts of a source to a shard: read, clean, sign.  It depends on nothing but the parts and the recipe."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wuxing.core.context import Context
from wuxing.core.error import WuxingError
from wuxing.core.splits import corpus_schema, record_batch
from wuxing.corpus.clean import Cleaning
from wuxing.corpus.clean.column import DOCUMENTS, Columns
from wuxing.corpus.clean.privacy import Privacy
from wuxing.corpus.config import CorpusConfig
from wuxing.corpus.engine.look import looks_of, wanted
from wuxing.corpus.engine.rows import Chunk, Reader, printable
from wuxing.corpus.engine.sample import Samples, samples_table
from wuxing.corpus.engine.shard import Held, Shard, rows_schema
from wuxing.corpus.fingerprint import KEY_BYTES, content_key, split_key
from wuxing.source.row import Part

if TYPE_CHECKING:
    import numpy as np
    import pyarrow
    from numpy.typing import NDArray

NEVER = -2
"""The step of a row that never was a record."""
PASSING = ("broken_file", "unreachable")
"""Reasons that another attempt may not meet: a shard with one of them is not used again."""


@dataclass(frozen=True)
class Task:
    """Some parts of one source, and under which keys their result is known."""

    source: int
    """The number of the source in the recipe."""
    name: str
    """The file of its shard."""
    parts: tuple[Part, ...]
    keys: tuple[str, ...]
    states: tuple[str | None, ...]
    """What the file system said of each part's file when it was listed."""
    bytes: int
    """About how much there is to read."""


def state_of(blob: Any) -> str | None:
    """What tells that a file of this machine is still the same; None for what has no such thing."""
    path: Path | None = getattr(blob, "path", None) or getattr(blob, "archive", None)
    if path is None:
        return None
    try:
        state = path.stat()
    except OSError:
        return "gone"
    return f"{state.st_size}|{state.st_mtime_ns}|{state.st_ctime_ns}|{state.st_ino}"


@dataclass
class _Gathered:
    """The pieces of a shard while its chunks come in."""

    rows: list[pyarrow.RecordBatch] = field(default_factory=list)
    records: list[pyarrow.RecordBatch] = field(default_factory=list)
    keys: list[NDArray[np.uint8]] = field(default_factory=list)
    signatures: list[NDArray[np.uint32]] = field(default_factory=list)
    looks: list[NDArray[np.uint8]] = field(default_factory=list)
    row_counts: Counter[int] = field(default_factory=Counter)
    record_counts: Counter[int] = field(default_factory=Counter)
    lasting: bool = True


class Worker:
    """Makes shards, one after the other."""

    def __init__(self, config: CorpusConfig, fitted: Path | None, context: Context):
        self.config = config
        self._cleaning = Cleaning(config.clean, context, fitted)
        self._redact = Privacy().change if config.redacts else str

    def run(self, task: Task) -> Shard:
        """The shard of a task.  Raises WuxingError when a file is no longer what was listed."""
        self._check(task)
        source = self.config.sources[task.source]
        reader, gathered = Reader(source), _Gathered()
        names = [step.chosen for step in self.config.clean]
        samples = Samples(self.config.dropped_samples, names, self._redact)
        for count in self._cleaning.counts:
            count.found.clear()
        for chunk in reader.chunks(list(task.parts)):
            self._chunk(chunk, gathered, samples)
        self._check(task)
        found = [dict(sorted(count.found.items())) for count in self._cleaning.counts]
        return self._shard(task, gathered, samples, found, sorted(reader.mapper.seen_fields))

    def _check(self, task: Task) -> None:
        for part, state in zip(task.parts, task.states, strict=True):
            if (now := state_of(part.blob)) != state:
                what = "vanished" if now == "gone" else "changed"
                raise WuxingError(
                    f"{self.config.sources[task.source].label}: {part.blob.name} {what} while it was being read",
                    "Type the same command again when nothing writes there any more; what is done is kept",
                )

    def _chunk(self, chunk: Chunk, gathered: _Gathered, samples: Samples) -> None:
        import numpy as np

        columns = chunk.columns
        kinds = columns.kinds()
        self._cleaning.run(columns, samples)
        fates, details = [""] * len(chunk.ids), [""] * len(chunk.ids)
        for row, (drop, unread) in chunk.drops.items():
            fates[row] = f"{'unreadable' if unread else 'filtered'}:{drop.reason}"
            details[row] = self._redact(printable(drop.detail))
            samples.unread(chunk.ids[row], fates[row], printable(drop.detail))
            gathered.lasting = gathered.lasting and not (unread and drop.reason in PASSING)
        for owner, drop in columns.drops.items():
            row = int(chunk.rows[owner])
            fates[row], details[row] = f"filtered:{drop.reason}", self._redact(printable(drop.detail))
        kept = columns.kept()
        gathered.rows.append(_rows(chunk, kinds, fates, details))
        gathered.records.append(batch_of(columns, kept))
        gathered.keys.append(keys_of(columns, kept))
        self._sign(gathered)
        if wanted(self.config.duplicates):
            gathered.looks.append(looks_of(columns, kept, self.config.duplicates))
        rows_kept = np.zeros(len(chunk.ids), np.int64)
        rows_kept[chunk.rows[kept]] = 1
        at = 0
        for part, rows in chunk.parts:
            gathered.row_counts[part] += rows
            gathered.record_counts[part] += int(rows_kept[at : at + rows].sum())
            at += rows

    def _sign(self, gathered: _Gathered) -> None:
        """The MinHash signatures of the newest batch."""
        import pyarrow.compute as pc

        from wuxing.text.kernel import minhash

        settings = self.config.duplicates
        if settings.near_jaccard is not None:
            texts = pc.fill_null(gathered.records[-1].column("text"), "")
            gathered.signatures.append(minhash(texts, settings.shingle_words, settings.hashes))

    def _shard(
        self, task: Task, gathered: _Gathered, samples: Samples, found: list[dict[str, int]], fields: list[str]
    ) -> Shard:
        import numpy as np
        import pyarrow as pa

        parts, row, record = [], 0, 0
        for number, key in enumerate(task.keys):
            rows, records = gathered.row_counts[number], gathered.record_counts[number]
            parts.append(Held(key, (row, row + rows), (record, record + records)))
            row, record = row + rows, record + records
        near = self.config.duplicates.near_jaccard is not None
        none = np.empty((0, self.config.duplicates.hashes), np.uint32)
        return Shard(
            parts,
            _table(gathered.rows),
            pa.Table.from_batches(gathered.records, corpus_schema()),
            np.concatenate([np.empty((0, 2 * KEY_BYTES), np.uint8), *gathered.keys]),
            np.concatenate([none, *gathered.signatures]) if near else None,
            np.concatenate(gathered.looks) if gathered.looks else None,
            samples_table(samples.all()),
            found,
            fields,
            gathered.lasting,
        )


def _rows(chunk: Chunk, kinds: NDArray[np.int8], fates: list[str], details: list[str]) -> pyarrow.RecordBatch:
    """One row for each raw row of a chunk."""
    import numpy as np
    import pyarrow as pa

    columns, count = chunk.columns, len(chunk.ids)

    def spread(values: NDArray[Any], default: Any) -> NDArray[Any]:
        if len(values) == count:
            return values
        whole = np.full(count, default, values.dtype)
        whole[chunk.rows] = values
        return whole

    found: dict[str, Any] = {
        "id": pa.array(chunk.ids, pa.string()),
        "fate": pa.array(fates, pa.string()),
        "detail": pa.array(details, pa.string()),
        "step": pa.array(spread(columns.step, NEVER)),
        "kind": pa.array(spread(kinds, -1)),
        "changed": pa.array(spread(columns.changed, 0)),
    }
    for (step, name), values in columns.measures.items():
        found[f"{step}:{name}"] = pa.array(spread(values, np.nan))
    return pa.RecordBatch.from_pydict(found)


def _table(batches: list[pyarrow.RecordBatch]) -> pyarrow.Table:
    """Chunks of rows as one table; a measure that a chunk lacks is NaN there."""
    import numpy as np
    import pyarrow as pa

    if not batches:
        return rows_schema().empty_table()
    names = list(dict.fromkeys(name for batch in batches for name in batch.schema.names))
    whole = []
    for batch in batches:
        have = dict(zip(batch.schema.names, batch.columns, strict=True))
        lacking = pa.array(np.full(batch.num_rows, np.nan, np.float32))
        whole.append(pa.RecordBatch.from_pydict({name: have.get(name, lacking) for name in names}))
    return pa.Table.from_batches(whole).combine_chunks()


def batch_of(columns: Columns, kept: NDArray[np.int64]) -> pyarrow.RecordBatch:
    """The records that are left, as rows of a corpus."""
    import pyarrow as pa

    if set(columns.views) - {DOCUMENTS} or columns.rest:
        return record_batch([record for _, record in columns.records()])
    schema, whole = corpus_schema(), len(kept) == len(columns)
    ids = columns.ids if whole else [columns.ids[number] for number in kept.tolist()]
    texts = columns.views[DOCUMENTS].values if columns.views else pa.array([], pa.string())
    if columns.meta is None and not columns.said:
        meta = pa.repeat(pa.scalar("{}"), len(kept))
    else:
        meta = pa.array([_ENCODE(columns.meta_of(number)) for number in kept.tolist()], pa.string())
    given = {
        "id": pa.array(ids, pa.string()),
        "source": pa.array([columns.sources[number] for number in kept.tolist()], pa.string()),
        "text": texts,
        "meta": meta,
    }
    arrays = [given[f.name] if f.name in given else pa.nulls(len(kept), f.type) for f in schema]
    return pa.record_batch(arrays, schema=schema)


def _encoder() -> Any:
    import json

    return json.JSONEncoder(ensure_ascii=False, sort_keys=True).encode


_ENCODE = _encoder()


def keys_of(columns: Columns, kept: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Content key and split key of each record that is left, 32 bytes a row."""
    import numpy as np

    from wuxing.text.key import keys

    found = np.empty((len(kept), 2 * KEY_BYTES), np.uint8)
    view = columns.views.get(DOCUMENTS)
    if view is not None and len(view.owners):
        rows = np.searchsorted(kept, view.owners)
        found[rows, :KEY_BYTES] = found[rows, KEY_BYTES:] = keys(view.values, b"document")
    if set(columns.views) - {DOCUMENTS}:
        for row, (_, record) in enumerate(columns.records()):
            if record.text is None:
                both = content_key(record) + split_key(record)
                found[row] = np.frombuffer(both, np.uint8)
    return found
