"""Features: rows of numbers from text, images and sounds, by transforms that are fitted on the train split and stored.

`load_transform(directory)` gives the transform of a `features` artifact; `Features(directory)` its matrices.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wuxing.feature.transform import Transform


def load_transform(directory: Path | str) -> Transform:
    """The transform that a `features` artifact holds; apply it to any records."""
    from wuxing.feature.transform import load_transform as load

    return load(directory)
