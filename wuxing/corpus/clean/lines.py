"""Texts of a column as lines, and single texts put back into it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import pyarrow
    from numpy.typing import NDArray


def put(values: pyarrow.Array, new: Mapping[int, str]) -> pyarrow.Array:
    """The column with these texts at these places; the same object when there is none."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    if not new:
        return values
    mask = np.zeros(len(values), bool)
    mask[list(new)] = True
    texts = pa.array([new[place] for place in sorted(new)], values.type)
    return pc.replace_with_mask(values, pa.array(mask), texts)


def pieces_of(values: pyarrow.Array, unit: str) -> tuple[pyarrow.Array, NDArray[np.int64]]:
    """The lines or paragraphs of all texts in a row, and the text of each; joined by `JOINTS` they are the text."""
    import pyarrow.compute as pc

    parts = pc.split_pattern(values, JOINTS[unit])
    return pc.list_flatten(parts), pc.list_parent_indices(parts).to_numpy().astype("int64")


JOINTS = {"line": "\n", "paragraph": "\n\n"}
