"""The seam between transforms and the step: what a fitted transform promises, and which module fits which."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from wuxing.core.context import Context

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from scipy import sparse

    Matrix: TypeAlias = NDArray[np.float32] | sparse.csr_array

MODULES = {
    "bag_of_words": ("wuxing.feature.count", "Counts"),
    "tf_idf": ("wuxing.feature.count", "Counts"),
    "word2vec": ("wuxing.feature.word_vector", "WordVectors"),
    "sentence_embedding": ("wuxing.feature.sentence", "SentenceVectors"),
    "colour_histogram": ("wuxing.feature.picture", "Pictures"),
    "edges": ("wuxing.feature.picture", "Pictures"),
    "hog": ("wuxing.feature.picture", "Pictures"),
    "log_mel": ("wuxing.feature.sound", "Sounds"),
    "mfcc": ("wuxing.feature.sound", "Sounds"),
}
LEARN = ("bag_of_words", "tf_idf", "word2vec")
"""Transforms that learn something from the train split."""


class Fitted(Protocol):
    """A transform that can be applied."""

    sparse: bool
    tolerance: float
    """Largest difference of a value computed alone and beside other records."""

    @property
    def names(self) -> list[str]:
        """What each column is."""

    def apply(self, values: Sequence[Any]) -> Matrix:
        """One row per value; a row depends on its value only."""

    def save(self, directory: Path) -> None:
        """Write what was learnt, in plain formats."""


@dataclass
class Room:
    """What fitting may use."""

    scratch: Path
    """A directory for passing files."""
    seed: int
    context: Context
    said: Callable[[float, float], None] = field(default=lambda share, figure: None)
    """Called with the share done and a figure."""


def fit(name: str, settings: Any, values: Iterable[Any], room: Room) -> Fitted:
    """Fit one transform on the values of the train split (which may be read more than once)."""
    fitted: Fitted = importlib.import_module(MODULES[name][0]).fit(settings, values, room)
    return fitted


def load(name: str, settings: Any, directory: Path) -> Fitted:
    """Read a fitted transform."""
    module, kind = MODULES[name]
    fitted: Fitted = getattr(importlib.import_module(module), kind).load(directory, settings)
    return fitted
