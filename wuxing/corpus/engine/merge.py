"""From shards to a corpus: what is kept of duplicates, which split a record falls into, the fate of each row.

Rows come in the order of the sources, whichever shards hold them.  The passes that compare records look at keys only;
texts go through in a last pass, one shard at a time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wuxing.core.record import Fates
from wuxing.core.splits import SPLITS, SplitWriter, corpus_schema
from wuxing.corpus.config import CorpusConfig
from wuxing.corpus.engine.pieces import Piece, Pieces
from wuxing.corpus.engine.sample import SAMPLE_CHARACTERS, Sample, Samples, rank
from wuxing.corpus.engine.statistics import Clusters, Tally
from wuxing.corpus.engine.verdict import EXACT, FATES, KEPT, NEAR, Verdicts
from wuxing.corpus.fingerprint import KEY_BYTES, splits_of

if TYPE_CHECKING:
    import numpy as np
    import pyarrow
    from numpy.typing import NDArray


def fates_schema() -> pyarrow.Schema:
    """id, fate, detail."""
    import pyarrow as pa

    return pa.schema([("id", pa.string()), ("fate", pa.string()), ("detail", pa.string())])


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
    cut = verdicts.trimming
    stay = len(cut.changed) - len(cut.short) if cut else 0
    merged.duplicates["substring"] = {"records": stay, "characters": cut.characters if cut else 0}
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
    left = (codes == EXACT) | (codes == NEAR)
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
    if verdicts.trimming is not None:
        texts = pa.chunked_array([verdicts.trimming.apply(table.column("text").combine_chunks(), int(records[0]))])
        table = table.set_column(table.schema.get_field_index("text"), "text", texts)
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
