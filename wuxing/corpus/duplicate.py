"""Duplicates: of records with equal content the first stays; of each cluster of near-equal documents the first stays.

Only keys are held in memory: 16 bytes a record for exact duplicates; MinHash signatures lie in a memory-mapped file and
one band of them is sorted at a time.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def first_of_equal(keys: NDArray[Any]) -> NDArray[np.int64]:
    """For each 16-byte key, the index of its first occurrence."""
    import numpy as np

    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    found: NDArray[np.int64] = first[inverse].astype(np.int64)
    return found


@dataclass(frozen=True)
class Bands:
    """How a signature is cut: documents that agree in all `rows` values of one of `count` bands are compared."""

    count: int
    rows: int

    def found(self, jaccard: float) -> float:
        """Probability that a pair of this similarity is compared at all."""
        return 1.0 - (1.0 - jaccard**self.rows) ** self.count


@cache
def bands_for(jaccard: float, hashes: int, miss: float = 0.01) -> Bands:
    """The cut with the fewest needless comparisons that misses at most 1 % of the pairs at the threshold itself."""
    best = Bands(hashes, 1)
    for rows in range(2, hashes + 1):
        cut = Bands(hashes // rows, rows)
        if cut.count and cut.found(jaccard) >= 1.0 - miss:
            best = cut
    return best


def near_clusters(signatures: NDArray[np.uint32], jaccard: float, usable: NDArray[np.bool_]) -> NDArray[np.int64]:
    """For each document, the first document of its cluster: itself, or an earlier one that it nearly equals.

    Two documents are linked when their signatures agree in at least `jaccard` of their values; the later one leaves,
    and only those that have not left are compared further, so no two are left that were compared and agree.  A
    cluster is a connected component of the links.  Documents that are not `usable` stand alone.
    """
    import numpy as np

    root = np.arange(len(signatures), dtype=np.int64)
    candidates = np.flatnonzero(usable)
    if not len(candidates):
        return root
    bands = bands_for(jaccard, signatures.shape[1])
    for band in range(bands.count):
        columns = signatures[candidates, band * bands.rows : (band + 1) * bands.rows]
        for bucket in _buckets(columns):
            _link(signatures, candidates[bucket], jaccard, root)
    return _flat(root)


def _buckets(columns: NDArray[np.uint32]) -> list[NDArray[np.int64]]:
    """The groups of two or more equal rows, each in rising order."""
    import numpy as np

    rows = np.ascontiguousarray(columns).view(np.dtype((np.void, columns.shape[1] * 4))).ravel()
    order = np.argsort(rows, kind="stable")
    changes = np.flatnonzero(rows[order][1:] != rows[order][:-1]) + 1
    starts = np.concatenate([[0], changes])
    ends = np.concatenate([changes, [len(rows)]])
    several = np.flatnonzero(ends - starts > 1)
    return [order[starts[group] : ends[group]] for group in several]


def _link(signatures: NDArray[np.uint32], bucket: NDArray[np.int64], jaccard: float, root: NDArray[np.int64]) -> None:
    """Compare those of a bucket that are still firsts, round by round: the earliest with all later ones."""
    left = bucket[root[bucket] == bucket]
    rows = signatures[left]
    while len(left) > 1:
        agree = (rows[1:] == rows[0]).mean(axis=1) >= jaccard
        root[left[1:][agree]] = left[0]
        left, rows = left[1:][~agree], rows[1:][~agree]


def _flat(root: NDArray[np.int64]) -> NDArray[np.int64]:
    """Every document pointing at its cluster's first; links only ever point backwards."""
    while not (root == root[root]).all():
        root = root[root]
    return root
