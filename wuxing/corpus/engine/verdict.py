"""What is kept of duplicates: equal records, near-equal documents, lookalikes, stretches that stood before.

Only keys are compared; memory holds 8 bytes a record and one partition of keys at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wuxing.corpus.config import CorpusConfig
from wuxing.corpus.duplicate import EMPTY, bands_for
from wuxing.corpus.engine.equal import NearKeys, Partitions, exact_firsts, index_type
from wuxing.corpus.engine.look import lookalikes, wanted
from wuxing.corpus.engine.pieces import Pieces
from wuxing.corpus.engine.trim import Trimming, trim
from wuxing.corpus.fingerprint import KEY_BYTES

if TYPE_CHECKING:
    import numpy as np
    import pyarrow
    from numpy.typing import NDArray

KEPT, EXACT, NEAR, SHORT = range(4)
FATES = ("kept", "duplicate", "near_duplicate", "substring_duplicate")


@dataclass
class Verdicts:
    """What became of each record beyond its shard: the first of its equals, the first of its near cluster."""

    first: NDArray[Any]
    root: NDArray[Any]
    short: NDArray[Any] | None = None
    """Records of which trimming left too little, rising."""
    trimming: Trimming | None = None
    _indices: Any = None
    _ids: Any = None

    def codes(self, records: NDArray[np.int64]) -> NDArray[np.int8]:
        """KEPT, EXACT, NEAR or SHORT, for records side by side."""
        import numpy as np

        found = np.where(self.root[records] != records, np.int8(NEAR), np.int8(KEPT))
        if self.short is not None and len(records):
            low, high = np.searchsorted(self.short, [records[0], records[-1] + 1])
            found[self.short[low:high] - records[0]] = SHORT
        return np.where(self.first[records] != records, np.int8(EXACT), found).astype(np.int8)

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
    if wanted(settings):
        verdicts.root = verdicts.root.copy()
        lookalikes(pieces, config, verdicts.first, verdicts.root)
    verdicts.trimming = trim(pieces, verdicts, config, work)
    return verdicts
