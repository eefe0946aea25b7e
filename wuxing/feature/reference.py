"""`reference.json`: what each feature looks like on the train split, for drift detectors and for people."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

from wuxing.core.file import write_json
from wuxing.feature.matrix import Features, matrix_path, stacked
from wuxing.feature.scale import Moments
from wuxing.feature.transform import side_by_side

if TYPE_CHECKING:
    from wuxing.feature.fitted import Matrix

QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
SAMPLED_ROWS = 10_000
"""Rows from which quantiles are taken, evenly spaced; means and ranges are of all rows."""
SAMPLED_VALUES = 50_000_000
"""Fewer rows are taken where they are wide: 200 MB of float32."""
DESCRIBED = 2000
"""Features that are described one by one: those with the most non-zero values."""


@dataclass
class Reference:
    """Statistics of the columns of the train split."""

    names: list[str]
    moments: Moments
    quantiles: np.ndarray
    """One row per quantile, of the described columns."""
    described: np.ndarray
    """Which columns."""
    lengths: np.ndarray
    """The Euclidean length of each sampled row."""

    def to_json(self) -> dict[str, Any]:
        """One entry per described feature, and the lengths of rows."""
        moments = self.moments
        features = {
            self.names[c]: {
                "mean": _short(moments.mean[c]),
                "deviation": _short(moments.deviation[c]),
                "min": _short(moments.least[c]),
                "max": _short(moments.largest[c]),
                "share_nonzero": _short(moments.filled[c] / max(1, moments.count)),
                "quantiles": [_short(q) for q in self.quantiles[:, place]],
            }
            for place, c in enumerate(self.described)
        }
        lengths = np.quantile(self.lengths, QUANTILES) if len(self.lengths) else []
        return {
            "split": "train",
            "records": moments.count,
            "features": len(self.names),
            "quantiles": list(QUANTILES),
            "row_length": [_short(length) for length in lengths],
            "constant": int(moments.constant.sum()),
            "columns": features,
        }


def _short(value: float) -> float:
    return float(f"{value:.7g}")


def measure(directory: Path) -> Reference:
    """Two passes over the stored matrix of the train split, a row group at a time."""
    import pyarrow.parquet as pq

    features = Features(directory)
    total = pq.read_metadata(matrix_path(directory, "train")).num_rows
    most = min(total, SAMPLED_ROWS, rows_within(features))
    wanted = np.unique(np.linspace(0, max(0, total - 1), most).astype(np.int64))
    moments, kept, seen = Moments(len(features.names)), [], 0
    for rows in features.blocks("train"):
        block = side_by_side(rows.blocks)
        moments.add(block)
        mine = wanted[(wanted >= seen) & (wanted < seen + len(rows.ids))] - seen
        kept.append(block[mine])
        seen += len(rows.ids)
    described = np.sort(np.argsort(-moments.filled, kind="stable")[:DESCRIBED])
    sample = stacked(kept) if kept else np.zeros((0, len(features.names)), np.float32)
    return Reference(features.names, moments, _quantiles(sample, described), described, _lengths(sample))


def rows_within(features: Features) -> int:
    """How many rows may be held in memory at once; rows of sparse transforms are narrow."""
    dense = sum(len(part.fitted.names) for part in features.transform.parts if not part.fitted.sparse)
    return max(100, SAMPLED_VALUES // max(1, dense))


def _quantiles(sample: Matrix, columns: np.ndarray) -> np.ndarray:
    if not sample.shape[0]:
        return np.zeros((len(QUANTILES), len(columns)))
    found = np.empty((len(QUANTILES), len(columns)))
    for start in range(0, len(columns), 256):
        block = sample[:, columns[start : start + 256]]
        dense = block.toarray() if isinstance(block, sparse.csr_array) else block
        found[:, start : start + 256] = np.quantile(dense.astype(np.float64), QUANTILES, axis=0)
    return found


def _lengths(sample: Matrix) -> np.ndarray:
    if isinstance(sample, sparse.csr_array):
        return np.sqrt(np.asarray(sample.multiply(sample).sum(1)).ravel())
    return np.asarray(np.linalg.norm(sample.astype(np.float64), axis=1))


def write_reference(directory: Path) -> Reference:
    """Measure and write `reference.json`."""
    reference = measure(directory)
    write_json(directory / "reference.json", reference.to_json())
    return reference
