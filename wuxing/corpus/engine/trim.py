"""Stretches of text that stood before are cut out of the documents that are left: `corpus/substring.py` finds them.

What is left of a document may be too little to keep, or equal another one: both are looked at again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wuxing.corpus.config import CorpusConfig
from wuxing.corpus.duplicate import flat
from wuxing.corpus.engine.equal import Partitions, exact_firsts
from wuxing.corpus.fingerprint import KEY_BYTES

if TYPE_CHECKING:
    import numpy as np
    import pyarrow
    from numpy.typing import NDArray

    from wuxing.corpus.engine.pieces import Pieces
    from wuxing.corpus.engine.verdict import Verdicts
    from wuxing.corpus.substring import Cuts


@dataclass
class Trimming:
    """What is cut out of which records."""

    cuts: Cuts
    changed: NDArray[np.int64]
    short: NDArray[np.int64]
    """Records of which too little is left."""
    characters: int = 0
    """How many of them were cut, of the records that stay."""

    def apply(self, texts: pyarrow.Array, first: int) -> pyarrow.Array:
        """The texts of records from number `first` on, trimmed."""
        return self.cuts.apply(texts, first)


def trim(pieces: Pieces, verdicts: Verdicts, config: CorpusConfig, work: Path) -> Trimming | None:
    """Find the cuts among the records that are kept, and change the verdicts of those that do not survive them."""
    import numpy as np

    from wuxing.corpus.substring import find_cuts

    length = config.duplicates.substring_tokens
    if length is None or not pieces.records:
        return None
    cuts = find_cuts(lambda: (texts for _, texts in kept_texts(pieces, verdicts)), length, work / "substring")
    found = Trimming(cuts, cuts.records(), np.empty(0, np.int64))
    if len(found.changed):
        _judge(pieces, verdicts, found, config, work)
    return found


def kept_texts(pieces: Pieces, verdicts: Verdicts) -> Iterator[tuple[NDArray[np.int64], pyarrow.Array]]:
    """The texts of each piece, null where the record is not kept or holds none."""
    import pyarrow as pa
    import pyarrow.compute as pc

    for piece, records in pieces.each():
        texts = pieces.table(piece, "records").column("text").combine_chunks()
        if isinstance(texts, pa.ChunkedArray):
            texts = pa.concat_arrays(texts.chunks) if texts.chunks else pa.array([], pa.string())
        yield records, pc.if_else(pa.array(verdicts.codes(records) == 0), texts, pa.scalar(None, pa.string()))


def _judge(pieces: Pieces, verdicts: Verdicts, found: Trimming, config: CorpusConfig, work: Path) -> None:
    """Which trimmed records are too short, and which now equal an earlier one."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    from wuxing.corpus.substring import too_little
    from wuxing.text.key import keys

    short: list[NDArray[np.int64]] = [found.short]
    with Partitions(work, "again", KEY_BYTES, pieces.records) as partitions:
        for records, texts in kept_texts(pieces, verdicts):
            if not len(records):
                continue
            contents = pieces.keys_of(records)[:, :KEY_BYTES].copy()
            stay = verdicts.codes(records) == 0
            low, high = np.searchsorted(found.changed, [records[0], records[-1] + 1])
            places = found.changed[low:high] - records[0]
            if len(places):
                left = found.apply(texts, int(records[0])).take(pa.array(places))
                contents[places] = keys(left, b"document")
                little = too_little(left)
                short.append(records[places[little]])
                stay[places[little]] = False
                gone = pc.subtract(pc.utf8_length(texts.take(pa.array(places))), pc.utf8_length(left))
                found.characters += int(gone.to_numpy(zero_copy_only=False)[~little].sum())
            partitions.add(contents[stay], records[stay])
    found.short = np.concatenate(short)
    if config.duplicates.exact:
        again: NDArray[Any] = exact_firsts(partitions, pieces.records)
        alone = verdicts.first == np.arange(len(verdicts.first), dtype=verdicts.first.dtype)
        verdicts.first = flat(np.where(alone, again, verdicts.first))
    else:
        for _ in partitions.read():
            pass
    verdicts.short = np.sort(found.short)
