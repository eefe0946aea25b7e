"""What cleaning left behind, found by other means than those of cleaning: the evidence must be able to fail."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from wuxing.corpus.private import MAY_BE_PRIVATE, private_findings
from wuxing.text.key import script_of

__all__ = ["MAY_BE_PRIVATE", "near_twins", "private_findings", "script_of"]

if TYPE_CHECKING:
    import numpy as np
    import pyarrow
    from numpy.typing import NDArray

FILTER_BITS = 22
"""The sample's shingles are looked up by so many bits first: nearly all others go no further."""
THIN, LONG_SHINGLES = 8, 64
"""Documents with so many shingles are searched by one in eight of them: what shares most of all shares some of these
but for a chance of less than one in a million at the least length."""


def near_twins(
    texts: Callable[[], Iterable[pyarrow.Array]],
    sampled: NDArray[np.int64],
    width: int,
    least: float = 0.0,
    own: pyarrow.Array | None = None,
) -> NDArray[np.float64]:
    """For each sampled document the largest exact Jaccard similarity of its shingle set with any other document's.

    A similarity below `least` may count as 0.  An inverted index over shingles of the sample, no MinHash: `texts` gives
    all documents in chunks, `own` those of the sample where they are at hand.  With `least`, one in eight shingles of
    long documents finds the candidates; what is measured is always the whole sets.
    """
    import numpy as np

    mine = _pairs(own, width) if own is not None else _sample_pairs(texts(), sampled, width)
    whole = np.split(mine.astype(np.uint32), np.searchsorted(mine >> np.uint64(32), np.arange(1, len(sampled))))
    my_sizes = np.array([len(shingles) for shingles in whole[: len(sampled)]], np.int64)
    index = _Index(mine, my_sizes, least)
    best, first = np.zeros(len(sampled)), 0
    for chunk in texts():
        hashes, ends = _shingles(chunk, width)
        places, theirs = index.candidates(hashes, ends)
        for place, other in zip(places.tolist(), theirs.tolist(), strict=True):
            if sampled[place] == other + first:
                continue
            them = np.unique(hashes[ends[other - 1] if other else 0 : ends[other]])
            shared = len(np.intersect1d(whole[place], them, assume_unique=True))
            best[place] = max(best[place], shared / max(1, len(whole[place]) + len(them) - shared))
        first += len(chunk)
    return best


class _Index:
    """The sample's shingles, or one in eight of a long document's, and which document they stand in."""

    def __init__(self, pairs: NDArray[np.uint64], sizes: NDArray[np.int64], least: float):
        import numpy as np

        owners, hashes = (pairs >> np.uint64(32)).astype(np.int64), pairs.astype(np.uint32)
        if least:
            chosen = (sizes[owners] < LONG_SHINGLES) | (hashes % np.uint32(THIN) == 0)
            owners, hashes = owners[chosen], hashes[chosen]
        order = np.argsort(hashes, kind="stable")
        self.hashes, self.owners = hashes[order], owners[order]
        self.enough = np.bincount(owners, minlength=len(sizes)) * np.where(sizes < LONG_SHINGLES, least, least / 2)
        self.known = np.zeros(1 << FILTER_BITS, bool)
        self.known[self.hashes >> np.uint32(32 - FILTER_BITS)] = True

    def candidates(
        self, hashes: NDArray[np.uint32], ends: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Pairs of a sampled document and one of a chunk that share enough to be measured."""
        import numpy as np

        there = np.flatnonzero(self.known[hashes >> np.uint32(32 - FILTER_BITS)])
        documents = np.searchsorted(ends, there, side="right").astype(np.uint64)
        pairs = np.unique(documents << np.uint64(32) | hashes[there].astype(np.uint64))
        documents, theirs = (pairs >> np.uint64(32)).astype(np.int64), pairs.astype(np.uint32)
        left = np.searchsorted(self.hashes, theirs, side="left")
        repeats = np.searchsorted(self.hashes, theirs, side="right") - left
        places = np.repeat(left - np.cumsum(repeats) + repeats, repeats) + np.arange(repeats.sum())
        count = max(1, len(ends))
        cells, shared = np.unique(self.owners[places] * count + np.repeat(documents, repeats), return_counts=True)
        mine, other = np.divmod(cells, count)
        enough = shared >= self.enough[mine]
        return mine[enough], other[enough]


def _shingles(texts: pyarrow.Array, width: int) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
    from wuxing.text.kernel import shingles

    return shingles(texts, width)


def _pairs(texts: pyarrow.Array, width: int) -> NDArray[np.uint64]:
    """Document number and shingle in one value each, sorted, without repeats."""
    import numpy as np

    from wuxing.text.kernel import shingles

    hashes, ends = shingles(texts, width)
    documents = np.repeat(np.arange(len(texts), dtype=np.uint64), np.diff(ends, prepend=0))
    values = np.sort(documents << np.uint64(32) | hashes.astype(np.uint64))
    return values[np.diff(values, prepend=~values[:1]) != 0]


def _sample_pairs(texts: Iterable[pyarrow.Array], sampled: NDArray[np.int64], width: int) -> NDArray[np.uint64]:
    """`_pairs` of the sampled documents, numbered by their place in the sample."""
    import numpy as np

    parts, first = [np.empty(0, np.uint64)], 0
    for chunk in texts:
        inside = np.flatnonzero((sampled >= first) & (sampled < first + len(chunk)))
        if len(inside):
            offset = np.uint64(int(inside[0])) << np.uint64(32)
            parts.append(_pairs(chunk.take(sampled[inside] - first), width) + offset)
        first += len(chunk)
    return np.concatenate(parts)
