"""Shares of data sets that follow how each of them is learnt.

The loss of each data set is measured on held-out rows, with the weights that learn; what comes of it is an event of the
sample plan: from a stated place on, other shares.  Events are part of the checkpoint.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from wuxing.train.order import Adapt

if TYPE_CHECKING:
    from wuxing.data.source import PackedSource
    from wuxing.model.network import Network

Shares = dict[str, float]
PERCENT = 100
"""Shares are whole percents: a last bit of a loss, which another number of processes may turn, moves none of them."""
UNMOVED = 0.01
"""What a data set that did not move counts beside the one that moved most, so that no share falls to nothing."""


@dataclass
class Mixer:
    """Measures and shifts; its state goes into the checkpoint."""

    rule: Adapt
    prior: Mapping[str, float]
    """The recipe's shares."""
    measure: Callable[[Network], Mapping[str, float]]
    """The held-out loss of each data set, in bits per byte."""
    refer: Callable[[], Mapping[str, float]] | None = None
    """The losses of the reference model."""
    shares: Shares = field(default_factory=dict)
    losses: Shares = field(default_factory=dict)
    """Of the last measurement."""
    reference: Shares = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.shares = self.shares or normalised(self.prior)

    def due(self, done: int, steps: int) -> bool:
        """Whether the shares are looked at after so many steps; never after the last one."""
        times = self.rule.times
        return done < steps and done in {round(steps * part / times) for part in range(times)}

    def turn(self, network: Network, source: PackedSource) -> dict[str, Any]:
        """Measure, and give the source its next shares; the first time is for comparing only."""
        now = dict(self.measure(network))
        if not self.losses and self.refer is not None:
            self.reference = dict(self.refer())
        if self.losses:
            before = current(source)  # a knob may have turned them
            if self.rule.rule == "excess":
                wanted = by_excess(before, now, self.reference, self.rule.strength)
            else:
                wanted = by_progress(before, self.prior, self.losses, now, self.rule.strength)
            kept = self.rule.inertia
            wanted = {name: kept * before[name] + (1 - kept) * share for name, share in wanted.items()}
            self.shares = in_percent(bounded(wanted, self.rule.min_share))
            source.mix(self.shares)
        self.losses = now
        return {"shares": self.shares, "losses": now}

    def state(self) -> dict[str, Any]:
        """As JSON values."""
        return {"shares": self.shares, "losses": self.losses, "reference": self.reference}

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state()` gave."""
        self.shares, self.losses, self.reference = state["shares"], state["losses"], state["reference"]


def by_excess(shares: Shares, now: Shares, reference: Shares, strength: float) -> Shares:
    """Exponentiated gradient on the excess loss over a reference (Xie et al. 2023, DoReMi, algorithm 1)."""
    excess = {name: max(0.0, loss - reference[name]) for name, loss in now.items()}
    return normalised({name: shares[name] * math.exp(strength * excess[name]) for name in shares})


def by_progress(shares: Shares, prior: Mapping[str, float], before: Shares, now: Shares, strength: float) -> Shares:
    """Shares that follow the size of each loss's last change, in bits (Matiisen et al. 2017): the absolute one, so that
    what is being forgotten comes again.

    Times the root of the share (the credit of Jiang et al. 2024, ADO): what moved although it was hardly drawn was
    moved by the others, or by chance.
    """
    moved = {name: abs(before[name] - now[name]) * math.sqrt(max(shares[name], 1 / PERCENT)) for name in shares}
    most = max(moved.values())
    if not most:
        return shares
    speed = {name: max(value / most, UNMOVED) ** strength for name, value in moved.items()}
    return normalised({name: prior[name] * speed[name] for name in shares})


def bounded(shares: Shares, least: float) -> Shares:
    """The shares with none below `least`; what that takes is taken from the others in proportion."""
    low: set[str] = set()
    while True:
        rest = sum(share for name, share in shares.items() if name not in low)
        room = 1 - least * len(low)
        found = {name: least if name in low else share * room / rest for name, share in shares.items()}
        below = {name for name, share in found.items() if share < least} - low
        if not below:
            return found
        low |= below


def in_percent(shares: Shares) -> Shares:
    """Whole percents by largest remainder; every data set has one at least."""
    exact = {name: PERCENT * share for name, share in shares.items()}
    whole = {name: max(1, int(value)) for name, value in exact.items()}
    for name in sorted(exact, key=lambda name: (int(exact[name]) - exact[name], name)):
        whole[name] += sum(whole.values()) < PERCENT
    while sum(whole.values()) > PERCENT:
        whole[max(whole, key=lambda name: (whole[name], name))] -= 1
    return {name: value / PERCENT for name, value in whole.items()}


def normalised(weights: Mapping[str, float]) -> Shares:
    """The weights over their sum."""
    total = sum(weights.values())
    return {name: weight / total for name, weight in weights.items()}


def current(source: PackedSource) -> Shares:
    """The shares of the source's next row."""
    weights = source.weights_at(source.position)
    return normalised({name: weights.get(name, 0.0) for name in source.packings})


def with_share(source: PackedSource, name: str, share: float) -> Shares:
    """Shares in which one data set has `share`, and the others keep their proportions."""
    now = current(source)
    others = sum(value for other, value in now.items() if other != name)
    each = {other: value / others if others else 1 / (len(now) - 1) for other, value in now.items() if other != name}
    return {other: share if other == name else (1 - share) * each[other] for other in now}
