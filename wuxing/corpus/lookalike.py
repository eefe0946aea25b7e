"""Pictures and sounds that are nearly the same: every pair of signatures within a distance, found exactly.

A signature (`media/hash.py`) is a hash of 64 bits and a sketch of 64 levels.  Candidates are all pairs whose hashes
differ in at most `bits` bits; a pair is one where their sketches correlate, too.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

HASH_BYTES = 8
BANDS = 4
BAND_BITS = 16
PROBES_AT_ONCE = 1 << 20
PAIRS_AT_ONCE = 1 << 20


def near_media(
    signatures: NDArray[np.uint8], bits: int, likeness: float, usable: NDArray[np.bool_] | None = None
) -> NDArray[np.int64]:
    """For each signature (a row), the index of the first kept one that it nearly equals: its own when it is kept.

    In order, each that has a near, kept one before it leaves; so no two kept ones are near, and nothing leaves for
    being near to something that left.  Rows that are not `usable` stand alone, and so do those without any contrast.
    """
    import numpy as np

    root = np.arange(len(signatures), dtype=np.int64)
    contrast = signatures[:, HASH_BYTES:].any(axis=1) if len(signatures) else np.zeros(0, bool)
    mine = np.flatnonzero(contrast if usable is None else contrast & usable)
    if len(mine) < 2:
        return root
    firsts, first_of = _distinct(signatures[mine])
    chosen = mine[firsts]
    root[mine] = chosen[first_of]
    hashes = np.ascontiguousarray(signatures[chosen, :HASH_BYTES]).view(np.uint64).ravel()
    found = [_alike(signatures, chosen, pairs, likeness) for pairs in near_pairs(hashes, bits)]
    pairs = np.concatenate(found) if found else np.empty((0, 2), np.int64)
    _leave(root, chosen, pairs)
    return root[root]


def _distinct(rows: NDArray[np.uint8]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The first of each set of equal rows in rising order, and for each row the number of its first."""
    import numpy as np

    whole = np.ascontiguousarray(rows).view(np.dtype((np.void, rows.shape[1]))).ravel()
    _, first, inverse = np.unique(whole, return_index=True, return_inverse=True)
    order = np.argsort(first)
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    return first[order], rank[inverse.ravel()]


def near_pairs(hashes: NDArray[np.uint64], bits: int) -> Iterator[NDArray[np.int64]]:
    """All pairs (i < j) of 64-bit hashes that differ in at most `bits` bits, each once, in chunks of unknown order.

    Multi-index hashing (Norouzi, Punjani, Fleet 2012): of four bands of 16 bits one differs in at most bits // 4.
    """
    import numpy as np

    reach = bits // BANDS
    masks = np.array([sum(1 << p for p in c) for n in range(reach + 1) for c in combinations(range(BAND_BITS), n)])
    bands = (hashes[:, None] >> np.arange(0, 64, BAND_BITS, dtype=np.uint64)).astype(np.uint16).astype(np.int64)
    for band in range(BANDS):
        order = np.argsort(bands[:, band], kind="stable")
        keys = bands[order, band]
        starts = np.searchsorted(keys, np.arange(1 << BAND_BITS))
        ends = np.append(starts[1:], len(keys))
        step = max(1, PROBES_AT_ONCE // len(masks))
        for begin in range(0, len(hashes), step):
            probes = (bands[begin : begin + step, band][:, None] ^ masks[None, :]).ravel()
            who = np.repeat(np.arange(begin, min(begin + step, len(hashes))), len(masks))
            counts = ends[probes] - starts[probes]
            there = counts > 0
            for left, right in _expanded(who[there], starts[probes[there]], counts[there], order):
                close = left < right
                left, right = left[close], right[close]
                close = np.bitwise_count(hashes[left] ^ hashes[right]) <= bits
                left, right = left[close], right[close]
                seen_before = np.zeros(len(left), bool)
                for earlier in range(band):
                    apart = np.bitwise_count((bands[left, earlier] ^ bands[right, earlier]).astype(np.uint16))
                    seen_before |= apart <= reach
                if not seen_before.all():
                    yield np.stack([left, right], axis=1)[~seen_before]


def _expanded(
    who: NDArray[Any], starts: NDArray[Any], counts: NDArray[Any], order: NDArray[Any]
) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    """Each of `who` beside all members of its bucket, some at a time."""
    import numpy as np

    ends = np.cumsum(counts)
    begin = 0
    while begin < len(who):
        before = int(ends[begin - 1]) if begin else 0
        stop = max(begin + 1, int(np.searchsorted(ends, before + PAIRS_AT_ONCE, side="right")))
        number = counts[begin:stop]
        places = np.arange(number.sum()) - np.repeat(np.cumsum(number) - number, number)
        yield np.repeat(who[begin:stop], number), order[np.repeat(starts[begin:stop], number) + places]
        begin = stop


def _alike(
    signatures: NDArray[np.uint8], chosen: NDArray[np.int64], pairs: NDArray[np.int64], likeness: float
) -> NDArray[np.int64]:
    """Those of the pairs whose sketches correlate enough."""
    import numpy as np

    sides = []
    for side in (0, 1):
        levels = signatures[chosen[pairs[:, side]], HASH_BYTES:].astype(np.float32)
        levels -= levels.mean(axis=1, keepdims=True)
        sides.append(levels / np.maximum(1e-6, np.linalg.norm(levels, axis=1, keepdims=True)))
    return pairs[(sides[0] * sides[1]).sum(axis=1) >= likeness]


def _leave(root: NDArray[np.int64], chosen: NDArray[np.int64], pairs: NDArray[np.int64]) -> None:
    """Go through the later ones of the pairs in order; each points at its first kept neighbour, if it has one."""
    import numpy as np

    for early, late in pairs[np.lexsort((pairs[:, 0], pairs[:, 1]))].tolist():
        if root[chosen[late]] == chosen[late] and root[chosen[early]] == chosen[early]:
            root[chosen[late]] = chosen[early]
