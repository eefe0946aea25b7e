"""Mojibake: UTF-8 that somebody read as Latin-1 or Windows-1252.  ftfy mends it, where a pattern says that it is there.

ftfy on every document costs 60 to 100 times as much, for the same repairs (docs/choices.md).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from wuxing.core.context import Context
from wuxing.corpus.clean.cleaner import Cleaned, Notes
from wuxing.corpus.clean.config import RepairConfig
from wuxing.corpus.clean.text_cleaner import TextCleaner, replaced
from wuxing.text.scan import marks

if TYPE_CHECKING:
    import pyarrow

_CONTINUATION = "\x80-\xbf\u0152\u0153\u0160\u0161\u0178\u017d\u017e\u0192\u02c6\u02dc\u2013\u2014\u2018-\u201a"
_CONTINUATION += "\u201c-\u201e\u2020-\u2022\u2026\u2030\u2039\u203a\u20ac\u2122"
MOJIBAKE = re.compile(
    f"[\xc2-\xdf][{_CONTINUATION}]|[\xe0-\xef][{_CONTINUATION}]{{2}}|[\xf0-\xf4][{_CONTINUATION}]{{3}}"
)
"""A UTF-8 lead byte and its continuation bytes, each read as a Windows-1252 or Latin-1 character."""


class Repair(TextCleaner):
    """Mends wrong encodings and leaves all other text as it is."""

    def change(self, text: str) -> str:
        if not MOJIBAKE.search(text):
            return text
        from ftfy import fix_encoding

        fixed = fix_encoding(text)
        self.found["mojibake"] += fixed != text
        return fixed

    def clean(self, values: pyarrow.Array, notes: Notes) -> Cleaned:
        """The column, mended; only texts with the bytes of a lead and a continuation are looked at."""
        import numpy as np

        return Cleaned(replaced(values, np.flatnonzero(marks(values) & 1), self.change))


def build(config: RepairConfig, context: Context, fitted: Path | None = None) -> Repair:
    """The step for a recipe."""
    return Repair()
