"""Duplicates: of records with equal content the first stays; of each cluster of near-equal documents the first stays.

Only keys are looked at.  What is compared with what is sorted in partitions on disk (`engine/equal.py`), so memory
does not grow with the corpus but for 16 bytes a record.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

ROWS_AT_ONCE = 1 << 14
"""Signatures that are compared in one go: 8 MB of 128 values."""
EMPTY = 0xFFFFFFFF
"""A document without tokens has only these in its signature."""


def first_of_equal(keys: NDArray[Any]) -> NDArray[np.int64]:
    """For each 16-byte key, the index of its first occurrence."""
    import numpy as np

    halves = np.ascontiguousarray(keys).view(np.uint64).reshape(-1, 2)
    order = np.lexsort((halves[:, 1], halves[:, 0]))  # stable: equal keys stay in their order
    ordered = halves[order]
    begins = np.ones(len(order), bool)
    begins[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    found = np.empty(len(order), np.int64)
    found[order] = order[begins][np.cumsum(begins) - 1]
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


def band_hashes(signatures: NDArray[np.uint32], bands: Bands, band: int) -> NDArray[np.uint64]:
    """One hash of 64 bits of each signature's values in a band."""
    import numpy as np

    found = np.full(len(signatures), 0x9E3779B97F4A7C15 + band, np.uint64)
    for column in range(band * bands.rows, (band + 1) * bands.rows):
        found = (found ^ signatures[:, column]) * np.uint64(0xFF51AFD7ED558CCD)
        found ^= found >> np.uint64(33)
    return found


def near_clusters(signatures: NDArray[np.uint32], jaccard: float, usable: NDArray[np.bool_]) -> NDArray[np.int64]:
    """For each document, the first document of its cluster: itself, or an earlier one that it nearly equals.

    Two documents are linked when their signatures agree in at least `jaccard` of their values; the later one leaves,
    and only those that have not left are compared further, so no two are left that were compared and agree.  A
    cluster is a connected component of the links.  Documents that are not `usable` stand alone.
    """
    import numpy as np

    root = np.arange(len(signatures), dtype=np.int64)
    candidates = np.flatnonzero(usable)
    bands = bands_for(jaccard, signatures.shape[1])
    for band in range(bands.count if len(candidates) else 0):
        link(band_hashes(signatures[candidates], bands, band), candidates, root, signatures.__getitem__, jaccard)
    return flat(root)


def link(
    hashes: NDArray[np.uint64],
    indices: NDArray[np.int64],
    root: NDArray[Any],
    read: Callable[[NDArray[np.int64]], NDArray[np.uint32]],
    jaccard: float,
) -> None:
    """One band, or a part of it: compare those with equal hashes that are still firsts, and let later ones leave.

    A bucket goes round by round: its earliest with all later ones, then the earliest of those that disagree, ...
    `read` gives the signatures of documents.  Buckets share no document, so all take a round at the same time.
    """
    import numpy as np

    there = root[indices] == indices
    hashes, indices = hashes[there], indices[there]
    order = np.lexsort((indices, hashes))
    hashes, indices = _several(hashes[order], indices[order])
    begin = 0
    while begin < len(hashes):  # whole buckets, as many as their signatures should be held at once
        stop = len(hashes)
        if stop - begin > ROWS_AT_ONCE:
            last = hashes[begin + ROWS_AT_ONCE]
            stop = int(np.searchsorted(hashes, last, side="left"))
            stop = stop if stop > begin else int(np.searchsorted(hashes, last, side="right"))
        _link_buckets(hashes[begin:stop], indices[begin:stop], root, read, jaccard)
        begin = stop


def _several(hashes: NDArray[np.uint64], indices: NDArray[Any]) -> tuple[NDArray[np.uint64], NDArray[Any]]:
    """Of sorted hashes those that occur more than once."""
    import numpy as np

    again = hashes[1:] == hashes[:-1]
    several = np.zeros(len(hashes), bool)
    several[1:] |= again
    several[:-1] |= again
    return hashes[several], indices[several]


def _link_buckets(
    hashes: NDArray[np.uint64],
    indices: NDArray[np.int64],
    root: NDArray[Any],
    read: Callable[[NDArray[np.int64]], NDArray[np.uint32]],
    jaccard: float,
) -> None:
    """All rounds of some whole buckets; their signatures are read once, unless one bucket alone is too large."""
    import numpy as np

    held = read(indices) if len(indices) <= 2 * ROWS_AT_ONCE else None
    places = np.arange(len(indices))

    def signatures(wanted: NDArray[np.int64]) -> NDArray[np.uint32]:
        return read(indices[wanted]) if held is None else held[wanted]

    while len(places):
        begins = np.ones(len(places), bool)
        begins[1:] = hashes[places[1:]] != hashes[places[:-1]]
        leaders = places[begins][np.cumsum(begins) - 1][~begins]
        followers = places[~begins]
        agree = _agree(leaders, followers, signatures, jaccard)
        root[indices[followers[agree]]] = indices[leaders[agree]]
        left = followers[~agree]
        places = _several(hashes[left], left)[1]


def _agree(
    leaders: NDArray[np.int64],
    followers: NDArray[np.int64],
    read: Callable[[NDArray[np.int64]], NDArray[np.uint32]],
    jaccard: float,
) -> NDArray[np.bool_]:
    """Whether the signatures of each leader and follower agree in enough values."""
    import numpy as np

    found = np.empty(len(leaders), bool)
    for start in range(0, len(leaders), ROWS_AT_ONCE):
        cut = slice(start, start + ROWS_AT_ONCE)
        different, place = np.unique(leaders[cut], return_inverse=True)
        found[cut] = (read(different)[place] == read(followers[cut])).mean(axis=1) >= jaccard
    return found


def flat(root: NDArray[Any]) -> NDArray[Any]:
    """Every document pointing at its cluster's first; links only ever point backwards."""
    while not (root == root[root]).all():
        root = root[root]
    return root
