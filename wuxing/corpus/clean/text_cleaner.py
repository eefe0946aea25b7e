"""A cleaner that maps text to text, in documents and in each turn of dialogues."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, ClassVar

from wuxing.corpus.clean.cleaner import Cleaned, Column, Notes, changed_texts

if TYPE_CHECKING:
    import pyarrow


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
