"""Intervals and tests.  Shares get Wilson intervals, ratios of sums a bootstrap over documents, pairs a paired test."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

CONFIDENCE = 0.95
RESAMPLES = 2000


@dataclass(frozen=True)
class Estimate:
    """A value with its interval at `CONFIDENCE`, from `n` items."""

    value: float
    low: float
    high: float
    n: int

    def to_json(self) -> dict[str, float]:
        return {"value": self.value, "low": self.low, "high": self.high, "n": self.n}


@dataclass(frozen=True)
class Difference:
    """b minus a on the same `n` items, with its interval and the two-sided p of "no difference"."""

    difference: float
    low: float
    high: float
    p: float
    n: int

    def to_json(self) -> dict[str, float]:
        return {"difference": self.difference, "low": self.low, "high": self.high, "p": self.p, "n": self.n}


def wilson(successes: int, n: int, confidence: float = CONFIDENCE) -> Estimate:
    """A share with its score interval (Wilson 1927): honest near 0 and 1 and for few items."""
    if not 0 <= successes <= n or n == 0:
        raise ValueError(f"{successes} successes of {n} give no share")
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    share = successes / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    low = 0.0 if successes == 0 else centre - half
    high = 1.0 if successes == n else centre + half
    return Estimate(share, low, high, n)


def ratio(
    sums: Sequence[float],
    counts: Sequence[float],
    seed: int,
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
) -> Estimate:
    """Σ sums / Σ counts with a percentile bootstrap over the items: long documents weigh more, as in the value."""
    top, bottom = np.asarray(sums, float), np.asarray(counts, float)
    drawn = _drawn(len(top), seed, resamples)
    ratios = _resampled(top, drawn) / _resampled(bottom, drawn)
    low, high = np.quantile(ratios, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Estimate(float(top.sum() / bottom.sum()), float(low), float(high), len(top))


def ratio_difference(
    a: Sequence[float],
    b: Sequence[float],
    counts: Sequence[float],
    seed: int,
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
) -> Difference:
    """Σ b / Σ counts − Σ a / Σ counts: a paired bootstrap, each resample drawing the same items for both."""
    first, second, bottom = (np.asarray(values, float) for values in (a, b, counts))
    drawn = _drawn(len(bottom), seed, resamples)
    differences = (_resampled(second, drawn) - _resampled(first, drawn)) / _resampled(bottom, drawn)
    low, high = np.quantile(differences, [(1 - confidence) / 2, (1 + confidence) / 2])
    # Each tail counts the observed sample itself, so that p is never 0 (Davison & Hinkley 1997, 4.2).
    tail = min(int((differences <= 0).sum()), int((differences >= 0).sum()))
    p = min(1.0, 2 * (tail + 1) / (resamples + 1))
    value = (second.sum() - first.sum()) / bottom.sum()
    return Difference(float(value), float(low), float(high), p, len(bottom))


def share_difference(a: Sequence[bool], b: Sequence[bool], confidence: float = CONFIDENCE) -> Difference:
    """Share of `b` minus share of `a` on the same items.

    p is McNemar's exact test on the items where they differ; the interval is Agresti and Min's adjusted Wald interval
    for matched pairs (2005): half an item is added to each of the four cells.
    """
    if len(a) != len(b) or not a:
        raise ValueError(f"{len(a)} and {len(b)} items are no pairs")
    gained = sum(1 for x, y in zip(a, b, strict=True) if y and not x)
    lost = sum(1 for x, y in zip(a, b, strict=True) if x and not y)
    n = len(a)
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    size, up, down = n + 2, gained + 0.5, lost + 0.5
    centre = (up - down) / size
    half = z * math.sqrt(up + down - (up - down) ** 2 / size) / size
    low, high = max(-1.0, centre - half), min(1.0, centre + half)
    return Difference((gained - lost) / n, low, high, mcnemar(gained, lost), n)


def macro_f1(counts: np.ndarray) -> float:
    """The mean over the classes that occur of 2 right / (true + named); `counts` by true and by named class."""
    right, both = np.diagonal(counts), counts.sum(1) + counts.sum(0)
    occurs = both > 0
    return float((2 * right[occurs] / both[occurs]).mean())


def f1_interval(counts: np.ndarray, resamples: int = RESAMPLES // 2) -> tuple[float, float]:
    """The middle 95 % of `macro_f1` over resampled sets of items, drawn with a fixed seed."""
    total = int(counts.sum())
    drawn = np.random.default_rng(0).multinomial(total, counts.flatten() / total, resamples)
    found = [macro_f1(one.reshape(counts.shape).astype(np.float64)) for one in drawn]
    low, high = np.quantile(found, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)


def mcnemar(gained: int, lost: int) -> float:
    """Two-sided exact p that `gained` and `lost` come from a fair coin (McNemar's test by the binomial)."""
    n, few = gained + lost, min(gained, lost)
    if n == 0:
        return 1.0
    tail = sum(math.comb(n, k) for k in range(few + 1))
    return min(1.0, 2 * tail / 2**n)


def _drawn(n: int, seed: int, resamples: int) -> np.ndarray:
    if n == 0:
        raise ValueError("no items give no interval")
    return np.random.default_rng(seed).integers(0, n, size=(resamples, n))


def _resampled(values: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """The sum of each resample, a block of them at a time: memory stays below 8 MB for up to a million items."""
    block = max(1, 1_000_000 // drawn.shape[1])
    return np.concatenate([values[drawn[i : i + block]].sum(axis=1) for i in range(0, len(drawn), block)])


def holm(ps: Sequence[float]) -> list[float]:
    """Each p adjusted for the number of tests (Holm 1979): the chance of any false alarm stays below the level."""
    adjusted, highest = [0.0] * len(ps), 0.0
    for rank, place in enumerate(sorted(range(len(ps)), key=lambda place: ps[place])):
        highest = max(highest, min(1.0, (len(ps) - rank) * ps[place]))
        adjusted[place] = highest
    return adjusted
