"""How good a larger model or a longer run would be: a law fitted to finished runs, and what it says with its interval.

L(N, D) = E + A / N^alpha + B / D^beta (Hoffmann et al. 2022, equation 10), N the parameters of the blocks, D the
positions that were trained on, L any loss in one unit, such as bits per byte of one held-out text.

Few small runs do not determine five numbers, and an interval that pretends they do is worthless.  So the exponents and
the floor have wide priors, and each of many draws disturbs the measurements by the noise of a run *and* the priors by
their own spread, and fits again (randomise, then optimise: Bardsley et al. 2014).  Where the runs say much, the draws
agree; where they say little, they fan out as far as the priors allow.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from wuxing.core.error import UsageError

Array = NDArray[np.float64]

DRAWS = 300
LEVEL = 0.9
"""Of the intervals."""
RUN_NOISE = 0.005
"""Relative deviation of the loss of two runs that differ in the seed only, before the residuals have their say (twins
of 5 million parameters: 0.3 to 0.6 %, docs/log.md)."""
NOISE_WEIGHT = 4.0
"""How many residuals that first guess is worth."""
PRIOR = np.array([0.0, math.log(0.3), math.log(0.3), math.log(0.35), math.log(0.35)])
"""Logit of E over the least loss; log of the other terms' share of that loss at the middle of the runs; log of the
exponents (0.34 and 0.28 in Hoffmann et al. 2022; 0.35 and 0.37 refitted by Besiroglu et al. 2024)."""
SPREAD = np.array([1.5, 1.5, 1.5, 0.4, 0.4])
"""Standard deviations of the prior: an exponent lies within a factor of 1.5 two times in three."""
MIN_SIZES = 3
STEPS = 100
"""Of a fit, at most."""


@dataclass(frozen=True)
class Point:
    """One finished run."""

    parameters: float
    """Of the blocks: tables left out."""
    positions: float
    loss: float
    name: str = ""


@dataclass(frozen=True)
class Interval:
    """What a law says of one number."""

    middle: float
    low: float
    high: float

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high

    def to_json(self) -> list[float]:
        """low, middle, high."""
        return [self.low, self.middle, self.high]


@dataclass(frozen=True)
class Law:
    """A fitted law: the likeliest one and the draws around it, each (logit E, log a, log b, log alpha, log beta)."""

    points: tuple[Point, ...]
    best: Array
    draws: Array
    noise: Array
    """Of each draw: the relative deviation of one run."""
    seed: int = 0

    def loss(self, parameters: float, positions: float) -> float:
        """The likeliest law's loss."""
        return float(self._scale.losses(self.best[None], np.array([parameters]), np.array([positions]))[0, 0])

    def predict(self, parameters: float, positions: float, runs: int = 1) -> Interval:
        """The loss of the mean of `runs` runs that are still to come; the noise of a run is part of the interval."""
        size, data = np.array([parameters]), np.array([positions])
        drawn = self._scale.losses(self.draws, size, data)[:, 0]
        luck = np.random.default_rng([self.seed, 1]).standard_normal(len(drawn))
        drawn = drawn * np.exp(self.noise * luck / math.sqrt(runs))
        return self._interval(drawn, self.loss(parameters, positions))

    @cached_property
    def figures(self) -> dict[str, Interval]:
        """E, A, B, alpha and beta of the equation above."""
        names = ("E", "A", "B", "alpha", "beta")
        best, drawn = self._scale.plain(self.best[None])[0], self._scale.plain(self.draws)
        return {name: self._interval(drawn[:, k], best[k]) for k, name in enumerate(names)}

    @property
    def deviation(self) -> float:
        """Root mean square of the relative residuals."""
        return float(np.sqrt(np.mean(np.square([math.log(p.loss / self.loss(*_place(p))) for p in self.points]))))

    @cached_property
    def _scale(self) -> _Scale:
        return _Scale.of(self.points)

    @staticmethod
    def _interval(drawn: Array, middle: float) -> Interval:
        low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        return Interval(middle, min(float(low), middle), max(float(high), middle))


@dataclass(frozen=True)
class _Scale:
    """The middle of the runs: in its units every number of the fit is near one."""

    parameters: float
    positions: float
    least: float

    @classmethod
    def of(cls, points: Sequence[Point]) -> _Scale:
        middle = [math.exp(float(np.mean(np.log([_place(p)[k] for p in points])))) for k in (0, 1)]
        return cls(middle[0], middle[1], min(p.loss for p in points))

    def terms(self, thetas: Array, parameters: Array, positions: Array) -> tuple[Array, Array, Array]:
        """(floor, term of the size, term of the data), each laws x points."""
        floor, a, b, alpha, beta = np.moveaxis(thetas, -1, 0)[:, :, None]
        size = self.least * np.exp(a - np.exp(alpha) * np.log(parameters / self.parameters))
        data = self.least * np.exp(b - np.exp(beta) * np.log(positions / self.positions))
        return np.broadcast_to(self.least / (1 + np.exp(-floor)), size.shape), size, data

    def losses(self, thetas: Array, parameters: Array, positions: Array) -> Array:
        """The losses of each law, laws x points."""
        return np.sum(self.terms(thetas, parameters, positions), axis=0)

    def slopes(self, thetas: Array, parameters: Array, positions: Array) -> Array:
        """Derivatives of the losses by the five numbers, laws x points x 5."""
        floor, size, data = self.terms(thetas, parameters, positions)
        alpha, beta = np.exp(thetas[:, 3:4]), np.exp(thetas[:, 4:5])
        by_alpha = -size * alpha * np.log(parameters / self.parameters)
        by_beta = -data * beta * np.log(positions / self.positions)
        return np.stack([floor * (1 - floor / self.least), size, data, by_alpha, by_beta], axis=-1)

    def plain(self, thetas: Array) -> Array:
        """E, A, B, alpha, beta in the units of the runs, laws x 5."""
        floor, a, b = thetas[:, 0], thetas[:, 1], thetas[:, 2]
        alpha, beta = np.exp(thetas[:, 3]), np.exp(thetas[:, 4])
        size, data = np.exp(a) * self.parameters**alpha, np.exp(b) * self.positions**beta
        return np.stack([self.least / (1 + np.exp(-floor)), self.least * size, self.least * data, alpha, beta], axis=1)


def fit(points: Sequence[Point], seed: int = 0, draws: int = DRAWS) -> Law:
    """The law of these runs.

    Raises UsageError for fewer than three sizes, or losses, sizes and positions that are not above zero.
    """
    points = tuple(points)
    _check(points)
    task = _Task.of(points)
    first = task.solve(task.measured[None], PRIOR[None], np.array([RUN_NOISE]), PRIOR[None])
    residuals = task.misfit(first, task.measured[None])[0]
    freedom = NOISE_WEIGHT + max(0, len(points) - len(PRIOR))
    variance = NOISE_WEIGHT * RUN_NOISE**2 + float(residuals @ residuals)
    best = task.solve(task.measured[None], PRIOR[None], np.array([math.sqrt(variance / freedom)]), first)
    random = np.random.default_rng([seed, 0])
    noise = np.sqrt(variance / random.chisquare(freedom, draws))
    goals = task.measured + noise[:, None] * random.standard_normal((draws, len(points)))
    priors = PRIOR + SPREAD * random.standard_normal((draws, len(PRIOR)))
    return Law(points, best[0], task.solve(goals, priors, noise, np.repeat(best, draws, axis=0)), noise, seed)


@dataclass(frozen=True)
class _Task:
    """The measurements as arrays, and many fits of them at once."""

    scale: _Scale
    sizes: Array
    data: Array
    measured: Array
    """Logarithms of the losses."""

    @classmethod
    def of(cls, points: Sequence[Point]) -> _Task:
        sizes, data = (np.array([_place(p)[k] for p in points]) for k in (0, 1))
        return cls(_Scale.of(points), sizes, data, np.log([p.loss for p in points]))

    def misfit(self, thetas: Array, goals: Array) -> Array:
        """Relative distance of each law from its goal, laws x points."""
        return np.log(self.scale.losses(thetas, self.sizes, self.data)) - goals

    def cost(self, thetas: Array, goals: Array, priors: Array, noise: Array) -> Array:
        """What `solve` makes least, one number a law."""
        misfit = self.misfit(thetas, goals) / noise[:, None]
        return np.square(misfit).sum(-1) + np.square((thetas - priors) / SPREAD).sum(-1)

    def solve(self, goals: Array, priors: Array, noise: Array, start: Array) -> Array:
        """The likeliest laws, by Levenberg's and Marquardt's steps: downhill only, shorter after a failed one."""
        thetas, damping = start.copy(), np.full(len(start), 1e-3)
        cost = self.cost(thetas, goals, priors, noise)
        for _ in range(STEPS):
            slopes = self.scale.slopes(thetas, self.sizes, self.data)
            slopes = slopes / self.scale.losses(thetas, self.sizes, self.data)[..., None] / noise[:, None, None]
            misfit = self.misfit(thetas, goals) / noise[:, None]
            gradient = np.einsum("lpk,lp->lk", slopes, misfit) + (thetas - priors) / SPREAD**2
            curvature = np.einsum("lpk,lpj->lkj", slopes, slopes) + np.diag(1 / SPREAD**2)
            curvature = curvature + damping[:, None, None] * curvature * np.eye(len(PRIOR))
            step = np.linalg.solve(curvature, gradient[..., None])[..., 0]
            tried = thetas - np.clip(step, -1, 1)
            value = self.cost(tried, goals, priors, noise)
            better = value < cost
            thetas = np.where(better[:, None], tried, thetas)
            damping = np.clip(np.where(better, damping / 5, damping * 4), 1e-12, 1e8)
            if not np.any(cost - np.where(better, value, cost) > 1e-9 * cost) and np.all(better | (damping > 1e3)):
                break
            cost = np.where(better, value, cost)
        return thetas


def _check(points: Sequence[Point]) -> None:
    for point in points:
        if not all(math.isfinite(value) and value > 0 for value in (*_place(point), point.loss)):
            raise UsageError(f"{point.name or point} has a size, positions or a loss that is not above zero")
    sizes = {point.parameters for point in points}
    if len(sizes) < MIN_SIZES:
        raise UsageError(
            f"a law needs runs of {MIN_SIZES} sizes, {len(sizes)} given",
            "Train smaller models of the same recipe: architecture: {size: ...}",
        )


def _place(point: Point) -> tuple[float, float]:
    return point.parameters, point.positions
