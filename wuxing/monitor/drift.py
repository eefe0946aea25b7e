"""Drift of one signal: has what is served moved away from the window in which the model was evaluated?

Three distances, each with a threshold of effect size.  A distance alarms only when it is larger than the threshold
*and* larger than what two samples of these sizes from one distribution exceed once in a thousand times, so that few
samples do not alarm by chance and many samples do not alarm over trifles.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Verdict = Literal["steady", "drifted", "too_few"]

MIN_SAMPLES = 50
"""Fewer on either side: no verdict."""
PSI_THRESHOLD = 0.25
"""Population stability index; above 0.25 is the customary "major shift" (Siddiqi 2006, Credit Risk Scorecards)."""
KS_THRESHOLD = 0.2
"""Largest distance of the two distribution functions: the share of requests that would have to change."""
SHIFT_THRESHOLD = 0.4
"""Difference of the means in pooled standard deviations (Cohen's d; 0.2 is small, 0.5 medium: Cohen 1988)."""
BINS = 10
_ONCE_IN_THOUSAND_KS = math.sqrt(-0.5 * math.log(0.001 / 2))
_ONCE_IN_THOUSAND_NORMAL = 3.2905
_ONCE_IN_THOUSAND_ONE_SIDED = 3.0902

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Distance:
    """One measure of drift."""

    value: float
    threshold: float
    """The larger of the effect-size threshold and the level of chance at these sample sizes."""

    @property
    def alarms(self) -> bool:
        return abs(self.value) > self.threshold


@dataclass(frozen=True)
class Drift:
    """The verdict on one signal."""

    signal: str
    verdict: Verdict
    reference_samples: int
    samples: int
    reference_mean: float | None = None
    mean: float | None = None
    psi: Distance | None = None
    ks: Distance | None = None
    shift: Distance | None = None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def judge_drift(signal: str, reference: list[float], live: list[float]) -> Drift:
    """Compare a signal's live values with its reference window."""
    old, new = np.asarray(reference, np.float64), np.asarray(live, np.float64)
    old, new = old[np.isfinite(old)], new[np.isfinite(new)]
    if min(len(old), len(new)) < MIN_SAMPLES:
        return Drift(signal, "too_few", len(old), len(new), _mean(old), _mean(new))
    share = 1 / len(old) + 1 / len(new)
    edges = bin_edges(old)
    distances = {
        "psi": Distance(psi(old, new, edges), max(PSI_THRESHOLD, _chance_of_psi(len(edges), share))),
        "ks": Distance(ks(old, new), max(KS_THRESHOLD, _ONCE_IN_THOUSAND_KS * math.sqrt(share))),
        "shift": Distance(shift(old, new), max(SHIFT_THRESHOLD, _ONCE_IN_THOUSAND_NORMAL * math.sqrt(share))),
    }
    drifted = any(distance.alarms for distance in distances.values())
    verdict: Verdict = "drifted" if drifted else "steady"
    return Drift(signal, verdict, len(old), len(new), _mean(old), _mean(new), **distances)


def bin_edges(reference: Values) -> Values:
    """Inner edges of at most BINS bins that hold equal shares of the reference; equal values stay together."""
    return np.unique(np.quantile(reference, np.arange(1, BINS) / BINS))


def psi(reference: Values, live: Values, edges: Values) -> float:
    """Population stability index: the sum over bins of (q - p) · ln(q / p).

    Half a count is added to each bin (the Jeffreys prior), so that an empty bin does not make it infinite.
    """
    p, q = _shares(reference, edges), _shares(live, edges)
    return float(np.sum((q - p) * np.log(q / p)))


def ks(reference: Values, live: Values) -> float:
    """Kolmogorov and Smirnov's distance of two samples: the largest gap between their distribution functions."""
    both = np.concatenate([reference, live])
    below_old = np.searchsorted(np.sort(reference), both, side="right") / len(reference)
    below_new = np.searchsorted(np.sort(live), both, side="right") / len(live)
    return float(np.abs(below_old - below_new).max())


def shift(reference: Values, live: Values) -> float:
    """Cohen's d: how far the live mean lies above the reference's, in pooled standard deviations.

    Where neither side varies at all it is 0 for equal means and 10 (beyond any threshold) for different ones.
    """
    degrees = len(reference) + len(live) - 2
    squares = float(((reference - reference.mean()) ** 2).sum() + ((live - live.mean()) ** 2).sum())
    difference = float(live.mean() - reference.mean())
    if squares <= 1e-24 * max(1.0, float(np.abs(reference).max()) ** 2) * degrees:
        return 0.0 if math.isclose(live.mean(), reference.mean(), rel_tol=1e-9) else math.copysign(10.0, difference)
    return difference / math.sqrt(squares / degrees)


def _shares(values: Values, edges: Values) -> Values:
    counts = np.bincount(np.searchsorted(edges, values, side="left"), minlength=len(edges) + 1) + 0.5
    return np.asarray(counts / counts.sum(), np.float64)


def _chance_of_psi(edges: int, share: float) -> float:
    """What PSI exceeds once in a thousand times without drift: share · χ² with one degree per edge
    (Yurdakul 2018, "Statistical properties of population stability index"); χ² by Wilson and Hilferty's formula."""
    degrees = max(1, edges)
    spread = 2 / (9 * degrees)
    return share * degrees * (1 - spread + _ONCE_IN_THOUSAND_ONE_SIDED * math.sqrt(spread)) ** 3


def _mean(values: Values) -> float | None:
    return float(values.mean()) if len(values) else None
