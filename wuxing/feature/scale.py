"""Scaling of columns, measured on the train split."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from wuxing.feature.fitted import Matrix


@dataclass(frozen=True)
class Scale:
    """x → (x - shift) · factor, column by column; a column that does not vary keeps its factor 1."""

    shift: NDArray[np.float64]
    factor: NDArray[np.float64]

    def apply(self, rows: Matrix) -> Matrix:
        """Scaled rows."""
        if isinstance(rows, sparse.csr_array):
            values = (rows.data * self.factor[rows.indices]).astype(np.float32)
            return sparse.csr_array((values, rows.indices, rows.indptr), shape=rows.shape)
        return ((rows - self.shift) * self.factor).astype(np.float32)

    def save(self, path: Path) -> None:
        """Write safetensors."""
        from safetensors.numpy import save_file

        save_file({"shift": self.shift, "factor": self.factor}, path)

    @classmethod
    def load(cls, path: Path) -> Scale:
        """Read what `save` wrote."""
        from safetensors.numpy import load_file

        found = load_file(path)
        return cls(found["shift"], found["factor"])


class Moments:
    """Count, mean, variance, least, largest and share of non-zero values of each column, one block after the other.

    Blocks are merged by Chan, Golub & LeVeque 1979, so that nothing is lost to large means.
    """

    def __init__(self, columns: int):
        self.count = 0
        self.mean = np.zeros(columns)
        self._squares = np.zeros(columns)
        self.least = np.full(columns, np.inf)
        self.largest = np.full(columns, -np.inf)
        self.filled = np.zeros(columns, np.int64)

    def add(self, rows: Matrix) -> None:
        """A block of rows."""
        count = rows.shape[0]
        if not count:
            return
        if isinstance(rows, sparse.csr_array):
            wide = rows.astype(np.float64)
            mean = np.asarray(wide.sum(0)).ravel() / count
            squares = np.maximum(0, np.asarray(wide.multiply(wide).sum(0)).ravel() - count * mean**2)
            least, largest = (np.asarray(f(0).todense()).ravel() for f in (wide.min, wide.max))
            filled = np.bincount(rows.indices[rows.data != 0], minlength=rows.shape[1])
        else:
            wide = np.asarray(rows, np.float64)
            mean, squares = wide.mean(0), np.square(wide - wide.mean(0)).sum(0)
            least, largest, filled = wide.min(0), wide.max(0), np.count_nonzero(wide, 0)
        both = self.count + count
        apart = mean - self.mean
        self._squares += squares + apart**2 * self.count * count / both
        self.mean += apart * count / both
        self.least, self.largest = np.minimum(self.least, least), np.maximum(self.largest, largest)
        self.filled += filled
        self.count = both

    @property
    def deviation(self) -> NDArray[np.float64]:
        """Standard deviation (of the population)."""
        return np.sqrt(self._squares / max(1, self.count))

    @property
    def constant(self) -> NDArray[np.bool_]:
        """Which columns never vary."""
        return self.least == self.largest


def fit(how: str, blocks: Iterable[Matrix], columns: int) -> Scale:
    """Measure `standard` or `max_abs` scaling on the rows of the train split."""
    moments = Moments(columns)
    for block in blocks:
        moments.add(block)
    varies = ~moments.constant
    if how == "standard":
        spread = np.where(varies & (moments.deviation > 0), moments.deviation, 1)
        return Scale(moments.mean, 1 / spread)
    size = np.maximum(np.abs(moments.least), np.abs(moments.largest))
    return Scale(np.zeros(columns), 1 / np.where(size > 0, size, 1))
