"""A cleaner that maps text to text, in documents and in each turn of dialogues."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar

from wuxing.corpus.clean.cleaner import Cleaned, Column, Notes, changed_texts

if TYPE_CHECKING:
    import numpy as np
    import pyarrow
    from numpy.typing import NDArray


def replaced(values: pyarrow.Array, places: NDArray[np.int64], change: Callable[[str], str]) -> pyarrow.Array:
    """The texts with `change` applied at these places, in rising order; the same object when nothing changed."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    old = values.take(pa.array(places)).to_pylist() if len(places) else []
    new = [change(text) for text in old]
    different = [number for number, text in enumerate(new) if text != old[number]]
    if not different:
        return values
    mask = np.zeros(len(values), bool)
    mask[places[different]] = True
    return pc.replace_with_mask(values, pa.array(mask), pa.array([new[number] for number in different], values.type))


class TextCleaner:
    """Subclasses give `change`, and `places` where a cheap look spares most texts.

    A document or turn of which nothing is left drops its record (`empty`).
    """

    column: ClassVar[Column] = "text"
    dialogues: ClassVar[bool] = True

    def __init__(self) -> None:
        self.found: Counter[str] = Counter()

    def change(self, text: str) -> str:
        """The cleaned text."""
        raise NotImplementedError

    def clean(self, values: pyarrow.Array, notes: Notes) -> Cleaned:
        """The column with every text changed."""
        return changed_texts(values, self.change)
