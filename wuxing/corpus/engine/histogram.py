"""Histograms that may be added in any order with the same result: bins of the first 16 bits of a 32-bit float.

Such a bin is at most 0.8 % of its value wide.  Means are exact: a float is a whole number times a power of two, so
sums are kept as whole numbers for each power.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MOST_BINS = 40
LOG_RATIO = 200
"""Positive values are drawn on a logarithmic scale when the largest is so many times the 1 % quantile; shares not."""
QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
_POWERS = 300


def _zeros(count: int) -> Any:
    import numpy as np

    return np.zeros(count, np.int64)


@dataclass
class Histogram:
    """Counts of values; NaN is counted as missing."""

    bins: NDArray[np.int64] = field(default_factory=lambda: _zeros(1 << 16))
    sums: NDArray[np.int64] = field(default_factory=lambda: _zeros(_POWERS))
    missing: int = 0
    least: float = math.inf
    most: float = -math.inf

    def add(self, values: NDArray[Any]) -> None:
        """Count some values."""
        import numpy as np

        values = np.asarray(values, np.float32)
        known = values[np.isfinite(values)]
        self.missing += len(values) - len(known)
        if not len(known):
            return
        known = known + np.float32(0)  # -0.0 becomes 0.0
        places, counts = np.unique(known.view(np.uint32) >> np.uint32(16), return_counts=True)
        self.bins[places] += counts
        parts, powers = np.frexp(known.astype(np.float64))
        whole = np.bincount(powers + _POWERS // 2, weights=parts * 2.0**24, minlength=_POWERS)
        self.sums += whole.astype(np.int64)  # exact: below 2**53 for half a billion values
        self.least = min(self.least, float(known.min()))
        self.most = max(self.most, float(known.max()))

    def to_json(self) -> dict[str, Any]:
        """As `statistics.json` has it."""
        import numpy as np

        values = (np.arange(1 << 16, dtype=np.uint32) << np.uint32(16)).view(np.float32)
        filled = np.flatnonzero(self.bins)
        filled = filled[np.argsort(values[filled], kind="stable")]
        starts, counts = values[filled].astype(np.float64), self.bins[filled]
        count = int(counts.sum())
        if not count:
            empty: dict[str, Any] = {"count": 0, "missing": self.missing, "min": None, "max": None, "mean": None}
            return {**empty, "quantiles": {}, "scale": "linear", "edges": [], "counts": []}
        shares = np.cumsum(counts)
        quantiles = {q: float(starts[np.searchsorted(shares, max(1, math.ceil(q * count)))]) for q in QUANTILES}
        clipped = {str(q): _short(min(max(value, self.least), self.most)) for q, value in quantiles.items()}
        scale, edges = self._edges(quantiles[0.01])
        place = np.clip(np.searchsorted(edges, starts, side="right") - 1, 0, len(edges) - 2)
        return {
            "count": count,
            "missing": self.missing,
            "min": _short(self.least),
            "max": _short(self.most),
            "mean": _short(self._mean(count)),
            "quantiles": clipped,
            "scale": scale,
            "edges": [_short(edge) for edge in edges],
            "counts": np.bincount(place, counts, len(edges) - 1).astype(int).tolist(),
        }

    def _mean(self, count: int) -> float:
        total = sum(Fraction(int(s)) * Fraction(2) ** (p - _POWERS // 2 - 24) for p, s in enumerate(self.sums) if s)
        return float(total / count)

    def _edges(self, low: float) -> tuple[str, list[float]]:
        """The bounds of at most 40 bins, at round numbers."""
        if self.least > 0 and self.most > 1 and self.most / max(low, self.least) >= LOG_RATIO:
            first, last = math.floor(math.log10(self.least)), math.ceil(math.log10(self.most * (1 + 1e-9)))
            each = next((n for n in (10, 5, 3, 2, 1) if (last - first) * n <= MOST_BINS), 1)
            return "log", [10 ** (first + step / each) for step in range((last - first) * each + 1)]
        width = self.most - self.least
        if width <= 0:
            size = abs(self.least) * 0.1 or 1.0
            return "linear", [self.least, self.least + size]
        power = 10 ** math.floor(math.log10(width / MOST_BINS))
        step = next(power * n for n in (1, 2, 2.5, 5, 10, 20) if width / (power * n) <= MOST_BINS - 1)
        first, last = math.floor(self.least / step), math.floor(self.most / step) + 1
        return "linear", [number * step for number in range(first, last + 1)]


def _short(value: float) -> float:
    """Six digits: enough to draw and to compare, and the same on every machine."""
    return float(f"{value:.6g}")
