"""Judging a column by arrays of statistics: the first rule that a value breaks names why it leaves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from wuxing.core.record import Drop
from wuxing.corpus.clean.cleaner import Cleaned

if TYPE_CHECKING:
    import numpy as np
    import pyarrow
    from numpy.typing import NDArray

Rule = tuple[str, "NDArray[np.bool_]", "NDArray[np.float64]"]
"""The reason, which values break the rule, and the figure that says by how much."""


def judged(values: pyarrow.Array, rules: Sequence[Rule], measures: Mapping[str, NDArray[np.float64]]) -> Cleaned:
    """The column, with a reason for each value that breaks a rule; NaN breaks none."""
    import numpy as np

    broken = np.stack([rule[1] for rule in rules]) if rules else np.zeros((1, len(values)), bool)
    dropped = {}
    for place in np.flatnonzero(broken.any(axis=0)).tolist():
        reason, _, figure = rules[int(broken[:, place].argmax())]
        value = float(figure[place])
        dropped[place] = Drop(reason, str(int(value)) if value.is_integer() and value > 1 else f"{value:.3g}")
    return Cleaned(values, dropped, measures=dict(measures))


def columns(counts: NDArray[np.int64], names: Sequence[str]) -> dict[str, NDArray[np.float64]]:
    """The columns of a table of counts by their names."""
    import numpy as np

    return {name: counts[:, number].astype(np.float64) for number, name in enumerate(names)}


def share(part: NDArray[np.float64], whole: NDArray[np.float64]) -> NDArray[np.float64]:
    """Part of a whole; 0 where there is no whole."""
    import numpy as np

    return part / np.maximum(1.0, whole)
