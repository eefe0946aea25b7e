"""From shards to a corpus: what is kept of duplicates, which split a record falls into, the fate of each row.

Rows come in the order of the sources, whichever shards hold them.  The passes that compare records look at keys only;
texts go through in a last pass, one shard at a time.
"""

from __future__ import annotations

import os
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wuxing.core.record import Fates
from wuxing.core.splits import SPLITS, SplitWriter, corpus_schema
from wuxing.corpus.config import CorpusConfig
from wuxing.corpus.duplicate import EMPTY, bands_for
from wuxing.corpus.engine.equal import NearKeys, Partitions, exact_firsts, index_type
from wuxing.corpus.engine.plan import Plan
from wuxing.corpus.engine.sample import SAMPLE_CHARACTERS, Sample, Samples, rank
from wuxing.corpus.engine.shard import ShardFile
from wuxing.corpus.engine.statistics import Clusters, Tally
from wuxing.corpus.fingerprint import KEY_BYTES, splits_of

if TYPE_CHECKING:
    import numpy as np
    import pyarrow
    from numpy.typing import NDArray

OPEN_BYTES = 128 << 20
"""Shards that are held in memory at once while their rows are put into order."""
KEPT, EXACT, NEAR = range(3)
FATES = ("kept", "duplicate", "near_duplicate")


def fates_schema() -> pyarrow.Schema:
    """id, fate, detail."""
    import pyarrow as pa

    return pa.schema([("id", pa.string()), ("fate", pa.string()), ("detail", pa.string())])


@dataclass(frozen=True)
class Piece:
    """Rows of one source that lie side by side in a shard."""

    source: int
    shard: ShardFile
    rows: tuple[int, int]
    records: tuple[int, int]


class Pieces:
    """All rows and records of a corpus, in order."""

    def __init__(self, plan: Plan):
        import numpy as np

        held = {(settings, one.key): (shard, one) for (settings, _), shard in plan.found.items() for one in shard.parts}
        self.pieces: list[Piece] = []
        for wanted in plan.parts:
            shard, mine = held[wanted.settings, wanted.key]
            last = self.pieces[-1] if self.pieces else None
            if last and last.shard is shard and (last.source, last.rows[1]) == (wanted.source, mine.rows[0]):
                joined = (last.rows[0], mine.rows[1]), (last.records[0], mine.records[1])
                self.pieces[-1] = Piece(wanted.source, shard, *joined)
            else:
                self.pieces.append(Piece(wanted.source, shard, mine.rows, mine.records))
        counts = [piece.records[1] - piece.records[0] for piece in self.pieces]
        self.starts = np.cumsum([0, *counts])
        self.rows = sum(piece.rows[1] - piece.rows[0] for piece in self.pieces)
        self._files: OrderedDict[Path, int] = OrderedDict()
        self._tables: OrderedDict[tuple[Path, str], Any] = OrderedDict()

    @property
    def records(self) -> int:
        """Records that go on."""
        return int(self.starts[-1])

    def shards(self) -> list[ShardFile]:
        """Each shard once."""
        return list({piece.shard.path: piece.shard for piece in self.pieces}.values())

    def each(self) -> Iterator[tuple[Piece, NDArray[np.int64]]]:
        """Each piece with the numbers of its records."""
        import numpy as np

        for number, piece in enumerate(self.pieces):
            yield piece, np.arange(self.starts[number], self.starts[number + 1])

    def keys(self, piece: Piece) -> NDArray[np.uint8]:
        """Content key and split key of each record of a piece."""
        return self._raw(piece, "keys", 2 * KEY_BYTES)

    def signatures(self, piece: Piece) -> NDArray[np.uint32]:
        """The signature of each record of a piece."""
        import numpy as np

        return self._raw(piece, "signatures", 4 * piece.shard.hashes).view(np.uint32)

    def _raw(self, piece: Piece, section: str, width: int) -> NDArray[np.uint8]:
        import numpy as np

        at, _ = piece.shard.place(section)
        first, last = piece.records
        raw = os.pread(self._file(piece.shard.path), (last - first) * width, at + first * width)
        return np.frombuffer(raw, np.uint8).reshape(last - first, width)

    def read_signatures(self, indices: NDArray[np.int64]) -> NDArray[np.uint32]:
        """The signatures of single records, wherever they lie."""
        import numpy as np

        hashes = self.pieces[0].shard.hashes
        found = np.empty((len(indices), hashes), np.uint32)
        place = np.searchsorted(self.starts, indices, side="right") - 1
        for row in np.argsort(indices, kind="stable").tolist():
            piece = self.pieces[place[row]]
            at, _ = piece.shard.place("signatures")
            record = piece.records[0] + int(indices[row] - self.starts[place[row]])
            raw = os.pread(self._file(piece.shard.path), 4 * hashes, at + record * 4 * hashes)
            found[row] = np.frombuffer(raw, np.uint32)
        return found

    def _file(self, path: Path) -> int:
        """An open file; not more than a few hundred at a time."""
        if path in self._files:
            self._files.move_to_end(path)
            return self._files[path]
        if len(self._files) >= 200:
            os.close(self._files.popitem(last=False)[1])
        self._files[path] = os.open(path, os.O_RDONLY)
        return self._files[path]

    def table(self, piece: Piece, section: str) -> pyarrow.Table:
        """The rows or records of a piece.  Shards stay at hand while they fit: new files stand between old ones."""
        key = piece.shard.path, section
        if key not in self._tables:
            table = piece.shard.table(section)
            self._tables[key] = table
            while len(self._tables) > 2 and sum(held.nbytes for held in self._tables.values()) > OPEN_BYTES:
                self._tables.popitem(last=False)
        self._tables.move_to_end(key)
        first, last = piece.rows if section == "rows" else piece.records
        return self._tables[key].slice(first, last - first)

    def close(self) -> None:
        """Let go of files and memory."""
        for handle in self._files.values():
            os.close(handle)
        self._files.clear()
        self._tables.clear()


@dataclass
class Verdicts:
    """What became of each record beyond its shard: the first of its equals, the first of its near cluster."""

    first: NDArray[Any]
    root: NDArray[Any]
    names: dict[int, str] = field(default_factory=dict)
    _indices: Any = None
    _ids: Any = None

    def codes(self, records: NDArray[np.int64]) -> NDArray[np.int8]:
        """KEPT, EXACT or NEAR."""
        import numpy as np

        near = np.where(self.root[records] != records, np.int8(NEAR), np.int8(KEPT))
        return np.where(self.first[records] != records, np.int8(EXACT), near).astype(np.int8)

    def because(self, records: NDArray[np.int64], codes: NDArray[np.int8]) -> NDArray[np.int64]:
        """For records that left, the one that stayed."""
        import numpy as np

        return np.where(codes == EXACT, self.first[records], self.root[records]).astype(np.int64)

    def name(self, pieces: Pieces, more: list[int]) -> None:
        """Look up the ids of all records for which others left, and of `more`: one pass over the ids."""
        import numpy as np
        import pyarrow as pa
        import pyarrow.compute as pc

        numbers = np.arange(len(self.first), dtype=self.first.dtype)
        wanted = [self.first[self.first != numbers], self.root[self.root != numbers], np.array(more, np.int64)]
        self._indices = np.unique(np.concatenate(wanted).astype(np.int64))
        found = []
        for piece, records in pieces.each():
            low, high = np.searchsorted(self._indices, [records[0], records[-1] + 1]) if len(records) else (0, 0)
            if low < high:
                rows = piece.shard.table("rows", ["id", "step"]).slice(piece.rows[0], piece.rows[1] - piece.rows[0])
                ids = rows.filter(pc.equal(rows.column("step"), -1)).column("id").combine_chunks()
                found.append(ids.take(pa.array(self._indices[low:high] - records[0])))
        self._ids = pa.concat_arrays(found) if found else pa.array([], pa.string())

    def ids(self, indices: NDArray[np.int64]) -> pyarrow.Array:
        """The ids of records that `name` looked up."""
        import numpy as np
        import pyarrow as pa

        return self._ids.take(pa.array(np.searchsorted(self._indices, indices)))

    def id_map(self, indices: list[int]) -> Mapping[int, str]:
        """The same as a mapping."""
        import numpy as np

        return dict(zip(indices, self.ids(np.array(indices, np.int64)).to_pylist(), strict=True))


def compare(pieces: Pieces, config: CorpusConfig, work: Path, said: Callable[[], None]) -> Verdicts:
    """Find the duplicates.  `work` is a folder for partitions; `said` hears of each band that is done."""
    import numpy as np

    settings, total = config.duplicates, pieces.records
    alone = np.arange(total, dtype=index_type(total))
    verdicts = Verdicts(alone, alone)
    near = settings.near_jaccard is not None and total > 0
    with ExitStack() as stack:
        keys = stack.enter_context(Partitions(work, "keys", KEY_BYTES, total)) if settings.exact else None
        bands = None
        if near and settings.near_jaccard is not None:
            cut = bands_for(settings.near_jaccard, settings.hashes)
            bands = stack.enter_context(NearKeys(work, cut, total))
        for piece, records in pieces.each():
            if keys:
                keys.add(pieces.keys(piece)[:, :KEY_BYTES], records)
            if bands:
                signatures = pieces.signatures(piece)
                with_tokens = (signatures != EMPTY).any(axis=1)
                bands.add(signatures[with_tokens], records[with_tokens])
        if keys:
            verdicts.first = exact_firsts(keys, total)
        if bands and settings.near_jaccard is not None:
            verdicts.root = bands.roots(verdicts.first, pieces.read_signatures, settings.near_jaccard, said)
    return verdicts


@dataclass
class Merged:
    """A corpus that was written."""

    fates: Fates
    splits: dict[str, int]
    tally: Tally
    duplicates: dict[str, Any]
    fields: set[str]
    lacking: set[str]
    """Names of fields for the lack of which rows left."""


def write_corpus(
    directory: Path, pieces: Pieces, verdicts: Verdicts, tally: Tally, config: CorpusConfig, said: Callable[[int], None]
) -> Merged:
    """Write the splits, `fates.parquet`, `dropped.parquet` and `changed.parquet`.

    `said` is told the number of rows of each piece that was written.
    """
    clusters = {"exact": Clusters(verdicts.first), "near": Clusters(verdicts.root)}
    verdicts.name(pieces, [index for found in clusters.values() for index in found.indices])
    samples = Samples(config.dropped_samples, [step.chosen for step in config.clean], str)
    merged = Merged(Fates(total=pieces.rows), {}, tally, {}, set(), set())
    for shard in pieces.shards():
        tally.found(shard.header["found"])
        merged.fields |= set(shard.header["fields"])
        for row in shard.table("samples").to_pylist():
            samples.offer(Sample(**row))
    with ExitStack() as stack:
        writers = {
            split: stack.enter_context(SplitWriter(directory / f"{split}.parquet", corpus_schema())) for split in SPLITS
        }
        fates = stack.enter_context(SplitWriter(directory / "fates.parquet", fates_schema()))
        for piece, records in pieces.each():
            _write_piece(piece, records, pieces, verdicts, config, writers, fates, samples, merged)
            said(piece.rows[1] - piece.rows[0])
    merged.splits = {split: writer.rows for split, writer in writers.items()}
    merged.fates.counts = Counter(tally.fates)
    merged.duplicates = {name: found.to_json(verdicts.id_map(found.indices)) for name, found in clusters.items()}
    merged.duplicates["substring"] = {"records": 0, "characters": 0}
    _write_samples(directory, samples.all())
    return merged


def _write_piece(
    piece: Piece,
    records: NDArray[np.int64],
    pieces: Pieces,
    verdicts: Verdicts,
    config: CorpusConfig,
    writers: dict[str, SplitWriter],
    fates: SplitWriter,
    samples: Samples,
    merged: Merged,
) -> None:
    """The rows of one piece: their fates, and the kept records to their splits."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    rows = pieces.table(piece, "rows")
    codes = verdicts.codes(records)
    because = verdicts.because(records, codes)
    goes_on = rows.column("step").to_numpy() == -1
    assert goes_on.sum() == len(records), "every record of a shard has its row"
    names = pa.DictionaryArray.from_arrays(pa.array(codes), pa.array(FATES)).dictionary_decode()
    left = codes != KEPT
    details = np.full(len(records), "", object)
    details[left] = verdicts.ids(because[left]).to_pylist()
    mask = pa.array(goes_on)
    ended = pc.replace_with_mask(rows.column("fate").combine_chunks(), mask, names)
    detail = pc.replace_with_mask(rows.column("detail").combine_chunks(), mask, pa.array(details, pa.string()))
    if isinstance(ended, pa.ChunkedArray):
        ended, detail = ended.combine_chunks(), detail.combine_chunks()
    ids = rows.column("id").combine_chunks()
    fates.write(pa.record_batch([ids, ended, detail], schema=fates_schema()))
    merged.tally.rows(piece.source, rows, ended)
    if pc.any(pc.equal(ended, "filtered:missing_field")).as_py():
        merged.lacking |= set(detail.filter(pc.equal(ended, "filtered:missing_field")).unique().to_pylist())
    if not len(records):
        return
    table = pieces.table(piece, "records")
    places = splits_of(pieces.keys(piece)[:, KEY_BYTES:], config.split)
    for number, split in enumerate(SPLITS):
        chosen = np.flatnonzero((codes == KEPT) & (places == number))
        if len(chosen):
            for batch in table.take(pa.array(chosen)).to_batches():
                writers[split].write(batch)
    _sample_near(table, codes, because, verdicts, samples)


def _sample_near(
    table: pyarrow.Table,
    codes: NDArray[np.int8],
    because: NDArray[np.int64],
    verdicts: Verdicts,
    samples: Samples,
) -> None:
    import numpy as np

    for row in np.flatnonzero(codes == NEAR).tolist():
        id = table.column("id")[row].as_py()
        at = rank(id)
        if samples.most and samples.wants(FATES[NEAR], at, True):
            record = table.slice(row, 1).to_pylist()[0]
            detail = verdicts.ids(because[row : row + 1])[0].as_py()
            text = (record["text"] or "")[:SAMPLE_CHARACTERS]
            samples.offer(Sample(at, id, FATES[NEAR], detail, text, None, record["image"], record["audio"]))


def _write_samples(directory: Path, samples: list[Sample]) -> None:
    import pyarrow as pa

    dropped = [sample for sample in samples if sample.after is None]
    changed = [sample for sample in samples if sample.after is not None]
    schema = fates_schema()
    for name, kind in (("text", pa.string()), ("image", pa.binary()), ("audio", pa.binary())):
        schema = schema.append(pa.field(name, kind))
    columns = {"fate": "group"}
    with SplitWriter(directory / "dropped.parquet", schema) as writer:
        arrays = [pa.array([getattr(s, columns.get(f.name, f.name)) for s in dropped], f.type) for f in schema]
        writer.write(pa.record_batch(arrays, schema=schema))
    schema = pa.schema([(name, pa.string()) for name in ("id", "step", "before", "after")])
    columns = {"step": "group", "before": "text"}
    with SplitWriter(directory / "changed.parquet", schema) as writer:
        arrays = [pa.array([getattr(s, columns.get(f.name, f.name)) for s in changed], f.type) for f in schema]
        writer.write(pa.record_batch(arrays, schema=schema))
