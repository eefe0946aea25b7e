"""The sample plan: which row of which data set stands at place p of a training run.

A pure function of (seed, weights, digests of the data).  Nothing is shuffled in memory and nothing has to be replayed:
the place of a run is one integer, and any number of ranks sees the same global sequence.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from wuxing.core.digest import digest_of

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


@dataclass(frozen=True)
class SamplePlan:
    """The endless order of samples over one data set or a weighted mixture.

    `rows` holds the number of rows of each data set, `digests` what they are made of (data and packing), `weights` the
    share of rows that each should have.  Rows of one run have one length, so a share of rows is a share of positions.
    A data set that is used up begins its next epoch in another order, whatever the others do.
    """

    seed: int
    rows: Mapping[str, int]
    digests: Mapping[str, str]
    weights: Mapping[str, float]
    _permutations: dict[tuple[str, int], Permutation] = field(default_factory=dict, repr=False, compare=False)

    def __getitem__(self, sample_id: int) -> Place:
        """The sample at a place of the run."""
        cycle, offset = divmod(sample_id, CYCLE)
        name = self._cycle[offset]
        index = cycle * self._shares[name] + self._before[offset]
        epoch, turn = divmod(index, self.rows[name])
        return Place(name, epoch, self._permutation(name, epoch)(turn))

    @cached_property
    def digest(self) -> str:
        """Two plans of one digest are the same sequence."""
        return digest_of(
            {
                "seed": self.seed,
                "rows": dict(self.rows),
                "digests": dict(self.digests),
                "shares": self._shares,
                "cycle": CYCLE,
                "rounds": ROUNDS,
            }
        )

    def _permutation(self, name: str, epoch: int) -> Permutation:
        key = (name, epoch)
        if key not in self._permutations:
            if len(self._permutations) > 64:
                self._permutations.clear()
            text = f"{self.seed}/{name}/{epoch}/{self.digests[name]}"
            self._permutations[key] = Permutation(self.rows[name], text)
        return self._permutations[key]

    @cached_property
    def _shares(self) -> dict[str, int]:
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
    def _cycle(self) -> list[str]:
        """The data set at each offset: whichever is furthest behind its share, so that any stretch is well mixed."""
        given = dict.fromkeys(self._shares, 0)
        order = []
        for offset in range(CYCLE):
            name = max(given, key=lambda name: (self._shares[name] * (offset + 1) - CYCLE * given[name], name))
            given[name] += 1
            order.append(name)
        return order

    @cached_property
    def _before(self) -> list[int]:
        """How often the data set of each offset came before it in its cycle."""
        seen = dict.fromkeys(self._shares, 0)
        before = []
        for name in self._cycle:
            before.append(seen[name])
            seen[name] += 1
        return before
