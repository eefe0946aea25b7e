"""The sample plan: which row of which data set stands at place p of a training run.

A pure function of (seed, weights, digests of the data).  Nothing is shuffled in memory and nothing has to be replayed:
the place of a run is one integer, and any number of ranks sees the same global sequence.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from wuxing.core.digest import digest_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

ROUNDS = 6
"""Feistel rounds; four make a pseudo-random permutation of a pseudo-random function (Luby and Rackoff 1988)."""

CYCLE = 1000
"""Rows after which a mixture has its weights exactly: they are rounded to 0.1 %."""

_MASK = (1 << 64) - 1


@dataclass(frozen=True)
class Permutation:
    """A bijection of range(size) that is computed, not stored: a balanced Feistel network with cycle walking."""

    size: int
    key: str

    def __call__(self, index: int) -> int:
        """Where `index` goes.  Raises IndexError outside of range(size)."""
        if not 0 <= index < self.size:
            raise IndexError(f"{index} is not in range({self.size})")
        value = self._encrypt(index)
        while value >= self.size:
            value = self._encrypt(value)
        return value

    @cached_property
    def _half_bits(self) -> int:
        return max(1, ((self.size - 1).bit_length() + 1) // 2)

    @cached_property
    def _keys(self) -> list[int]:
        hashed = hashlib.blake2b(self.key.encode(), digest_size=8 * ROUNDS).digest()
        return [int.from_bytes(hashed[8 * i : 8 * i + 8], "little") for i in range(ROUNDS)]

    def _encrypt(self, value: int) -> int:
        bits = self._half_bits
        mask = (1 << bits) - 1
        left, right = value >> bits, value & mask
        for key in self._keys:
            left, right = right, left ^ (_mix(right + key) & mask)
        return (left << bits) | right


def _mix(value: int) -> int:
    """The finaliser of SplitMix64 (Steele, Lea and Flood 2014): every input bit reaches every output bit."""
    value &= _MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)


@dataclass(frozen=True)
class Place:
    """Where a sample comes from."""

    data: str
    epoch: int
    row: int


class Ladder:
    """The rows of a data set in buckets, lowest score first: a curriculum for its first epochs."""

    def __init__(
        self, scores: Sequence[float] | NDArray[np.float64], buckets: int, epochs: int = 1, descending: bool = False
    ):
        import numpy as np

        values = np.asarray(scores, np.float64)
        self.epochs = epochs
        self._order = np.argsort(-values if descending else values, kind="stable")
        self._bounds = np.linspace(0, len(values), min(buckets, max(1, len(values))) + 1).astype(np.int64)
        self.digest = hashlib.sha256(repr(epochs).encode() + self._order.tobytes() + self._bounds.tobytes()).hexdigest()

    def bucket(self, turn: int) -> tuple[int, int, int]:
        """(number, first turn and size) of the bucket that a turn of the epoch falls into."""
        number = int(self._bounds.searchsorted(turn, side="right")) - 1
        first, last = int(self._bounds[number]), int(self._bounds[number + 1])
        return number, first, last - first

    def row(self, place: int) -> int:
        """The row at a place of the sorted order."""
        return int(self._order[place])


@dataclass(frozen=True)
class Phase:
    """From sample `start` on, the mixture has these weights."""

    start: int
    weights: Mapping[str, float]


@dataclass(frozen=True)
class Stage:
    """From sample `start` on, a step takes `rows` rows of the plan, each cut into `parts` rows of the same length.

    Which sample stands at which place does not depend on it.
    """

    start: int
    rows: int
    parts: int = 1


@dataclass(frozen=True)
class SamplePlan:
    """The endless order of samples over one data set or a weighted mixture.

    `rows` holds the number of rows of each data set, `digests` what they are made of (data and packing), `weights` the
    share of rows that each should have.  Rows of one run have one length, so a share of rows is a share of positions.
    A data set that is used up begins its next epoch in another order, whatever the others do.  `phases` give other
    weights later on; in the first epochs of a data set with a ladder its rows come bucket after bucket.
    """

    seed: int
    rows: Mapping[str, int]
    digests: Mapping[str, str]
    weights: Mapping[str, float]
    phases: Sequence[Phase] = ()
    ladders: Mapping[str, Ladder] = field(default_factory=dict)
    _permutations: dict[tuple[str, int, int], Permutation] = field(default_factory=dict, repr=False, compare=False)

    def __getitem__(self, sample_id: int) -> Place:
        """The sample at a place of the run."""
        number = bisect_right(self._starts, sample_id) - 1
        cycle, offset = divmod(sample_id - self._starts[number], CYCLE)
        mixture = self._mixtures[number]
        name = mixture.cycle[offset]
        index = self._given[number][name] + cycle * mixture.shares[name] + mixture.before[offset]
        epoch, turn = divmod(index, self.rows[name])
        return Place(name, epoch, self._row(name, epoch, turn))

    def _row(self, name: str, epoch: int, turn: int) -> int:
        ladder = self.ladders.get(name)
        if ladder is None or epoch >= ladder.epochs:
            return self._permutation(name, epoch, -1, self.rows[name])(turn)
        bucket, first, size = ladder.bucket(turn)
        return ladder.row(first + self._permutation(name, epoch, bucket, size)(turn - first))

    @cached_property
    def digest(self) -> str:
        """Two plans of one digest are the same sequence."""
        described: dict[str, Any] = {
            "seed": self.seed,
            "rows": dict(self.rows),
            "digests": dict(self.digests),
            "shares": self._mixtures[0].shares,
            "cycle": CYCLE,
            "rounds": ROUNDS,
        }
        if self.phases:
            shares = [mixture.shares for mixture in self._mixtures]
            described["phases"] = [list(pair) for pair in zip(self._starts, shares, strict=True)]
        if self.ladders:
            described["ladders"] = {name: ladder.digest for name, ladder in self.ladders.items()}
        return digest_of(described)

    def _permutation(self, name: str, epoch: int, bucket: int, size: int) -> Permutation:
        key = (name, epoch, bucket)
        found = self._permutations.get(key)
        if found is None:
            if len(self._permutations) > 64:
                self._permutations.clear()
            inside = f"/{bucket}" if bucket >= 0 else ""
            found = Permutation(size, f"{self.seed}/{name}/{epoch}/{self.digests[name]}{inside}")
            self._permutations[key] = found
        return found

    @cached_property
    def _starts(self) -> list[int]:
        starts = [0, *(phase.start for phase in self.phases)]
        assert starts[1:] == sorted(set(starts[1:])), "phases begin one after the other"
        return starts

    @cached_property
    def _mixtures(self) -> list[Mixture]:
        return [mixture(tuple(sorted(w.items()))) for w in (self.weights, *(phase.weights for phase in self.phases))]

    @cached_property
    def _given(self) -> list[dict[str, int]]:
        """How often each data set came before each phase."""
        given = [dict.fromkeys(self.rows, 0)]
        for number, (start, stop) in enumerate(pairwise(self._starts)):
            before = self._mixtures[number].counts(stop - start)
            given.append({name: given[-1][name] + before.get(name, 0) for name in self.rows})
        return given


@lru_cache(maxsize=512)
def mixture(weights: tuple[tuple[str, float], ...]) -> Mixture:
    """One of each kind: a plan with many phases is made anew whenever one more joins them."""
    return Mixture(dict(weights))


class Mixture:
    """Data sets in turns, by weight."""

    def __init__(self, weights: Mapping[str, float]):
        self.weights = {name: weight for name, weight in weights.items() if weight > 0}

    def counts(self, samples: int) -> dict[str, int]:
        """How often each data set comes among so many samples."""
        cycles, offset = divmod(samples, CYCLE)
        begun = Counter(self.cycle[:offset])
        return {name: cycles * share + begun[name] for name, share in self.shares.items()}

    @cached_property
    def shares(self) -> dict[str, int]:
        """Rows of each data set in one cycle, by largest remainder; every data set has at least one."""
        total = sum(self.weights.values())
        exact = {name: CYCLE * weight / total for name, weight in sorted(self.weights.items())}
        shares = {name: max(1, int(value)) for name, value in exact.items()}
        order = sorted(exact, key=lambda name: (int(exact[name]) - exact[name], name))
        for turn in range(CYCLE - sum(shares.values())):
            shares[order[turn % len(order)]] += 1
        while sum(shares.values()) > CYCLE:
            shares[max(shares, key=lambda name: shares[name])] -= 1
        return shares

    @cached_property
    def cycle(self) -> list[str]:
        """The data set at each offset: whichever is furthest behind its share, so that any stretch is well mixed."""
        given = dict.fromkeys(self.shares, 0)
        order = []
        for offset in range(CYCLE):
            name = max(given, key=lambda name: (self.shares[name] * (offset + 1) - CYCLE * given[name], name))
            given[name] += 1
            order.append(name)
        return order

    @cached_property
    def before(self) -> list[int]:
        """How often the data set of each offset came before it in its cycle."""
        seen = dict.fromkeys(self.shares, 0)
        before = []
        for name in self.cycle:
            before.append(seen[name])
            seen[name] += 1
        return before
