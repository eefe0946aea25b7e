"""How well a score tells good from bad: the area under the ROC curve with its interval."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wuxing.core.statistic import CONFIDENCE, Estimate

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def area(good: NDArray[np.float64], bad: NDArray[np.float64], confidence: float = CONFIDENCE) -> Estimate:
    """The chance that a good one scores higher than a bad one, ties by half; DeLong's interval (DeLong et al. 1988).

    At 0 or 1 the variance is 0 and says too much; there the interval is the rule of three's, over the smaller group.
    """
    from statistics import NormalDist

    import numpy as np
    from scipy.stats import rankdata

    m, n = len(good), len(bad)
    ranks = rankdata(np.concatenate([good, bad]))
    over_bad = (ranks[:m] - rankdata(good)) / n
    over_good = 1 - (ranks[m:] - rankdata(bad)) / m
    value = float(over_bad.mean())
    variance = over_bad.var(ddof=1) / m + over_good.var(ddof=1) / n if min(m, n) > 1 else 0.25
    half = NormalDist().inv_cdf(0.5 + confidence / 2) * float(np.sqrt(variance))
    half = max(half, 3 / min(m, n) if value in (0.0, 1.0) else 0.0)
    return Estimate(value, max(0.0, value - half), min(1.0, value + half), m + n)
