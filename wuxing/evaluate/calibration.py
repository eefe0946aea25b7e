"""Whether a classifier is as often right as it is sure (Guo et al. 2017)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from wuxing.core.statistic import CONFIDENCE, RESAMPLES, Estimate, wilson

BINS = 15
"""Of equal width, as is usual; empty ones count nothing."""

Values = NDArray[np.float64]


def calibration_error(sure: Values, right: Values, bins: int = BINS) -> float:
    """Expected calibration error: the mean over items of |share right − mean sureness| of their bin."""
    number = _bin(sure, bins)
    gaps = np.bincount(number, right - sure, minlength=bins)
    return float(np.abs(gaps).sum() / len(sure))


def calibration_estimate(sure: Values, right: Values, seed: int) -> Estimate:
    """The error with a bootstrap interval over items, widened where it would not hold the value: resampled errors are
    larger, since what is well calibrated can only get worse."""
    drawn = np.random.default_rng(seed).integers(0, len(sure), (RESAMPLES, len(sure)))
    found = [calibration_error(sure[some], right[some]) for some in drawn]
    low, high = np.quantile(found, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    value = calibration_error(sure, right)
    return Estimate(value, min(value, float(low)), max(value, float(high)), len(sure))


def by_chance(sure: Values, seed: int) -> float:
    """The error that 95 % of perfectly calibrated models of the same sureness stay below, on as many items
    (consistency resampling, Bröcker and Smith 2007): a larger one is no chance."""
    uniform = np.random.default_rng(seed)
    found = [calibration_error(sure, (uniform.random(len(sure)) < sure).astype(float)) for _ in range(RESAMPLES // 4)]
    return float(np.quantile(found, CONFIDENCE))


def reliability(sure: Values, right: Values, bins: int = BINS) -> list[dict[str, Any]]:
    """Of each bin that holds something: items, mean sureness, and the share right with its interval."""
    number, found = _bin(sure, bins), []
    for place in range(bins):
        inside = number == place
        if inside.any():
            share = wilson(int(right[inside].sum()), int(inside.sum()))
            found.append({"sure": float(sure[inside].mean()), **share.to_json()})
    return found


def _bin(sure: Values, bins: int) -> NDArray[np.int64]:
    number: NDArray[np.int64] = np.clip(np.ceil(sure * bins).astype(np.int64) - 1, 0, bins - 1)
    return number
