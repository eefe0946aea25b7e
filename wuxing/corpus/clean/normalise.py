"""Unicode form, line ends, space, invisible and control characters.  Doing it twice changes nothing more.

A C pass writes whole columns; the few texts that need Unicode's composition go through `Normalise.change`, the slow
truth of that pass.
"""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from wuxing.core.context import Context
from wuxing.core.record import Drop
from wuxing.corpus.clean.cleaner import Cleaned, Notes
from wuxing.corpus.clean.config import NormaliseConfig
from wuxing.corpus.clean.text_cleaner import TextCleaner, replaced
from wuxing.text.scan import BLANK, INVISIBLE, LINE_END, ODD_SPACE, UNKNOWN, normalised

if TYPE_CHECKING:
    import pyarrow

_LINE_END = re.compile(f"\r\n?|[{LINE_END}]")
_INVISIBLE = re.compile(f"[{INVISIBLE}]")
_ODD_SPACE = re.compile(f"[{ODD_SPACE}]")
_SPACE_AT_LINE_END = re.compile(f"[{BLANK}]+(?=\n)")


class Normalise(TextCleaner):
    """Maps each text to its one normal form."""

    def __init__(self, form: Literal["NFC", "NFKC"] = "NFC", max_blank_lines: int = 1):
        super().__init__()
        self.form: Literal["NFC", "NFKC"] = form
        self.max_blank_lines = max_blank_lines
        self._blank = re.compile("\n{%d,}" % (max_blank_lines + 2))  # noqa: UP031
        self._kept = "\n" * (max_blank_lines + 1)

    def change(self, text: str) -> str:
        text = _LINE_END.sub("\n", text)
        text = _INVISIBLE.sub("", text)
        text = unicodedata.normalize(self.form, text)
        text = _ODD_SPACE.sub(" ", text)
        text = _SPACE_AT_LINE_END.sub("", text)
        return self._blank.sub(self._kept, text).strip()

    def clean(self, values: pyarrow.Array, notes: Notes) -> Cleaned:
        """The column in normal form."""
        import numpy as np
        import pyarrow.compute as pc

        texts, status = normalised(values, self.form, self.max_blank_lines)
        texts = replaced(texts, np.flatnonzero(status == UNKNOWN), self.change)
        cleaned = Cleaned(texts)
        empty = pc.equal(pc.binary_length(texts), 0).to_numpy(zero_copy_only=False)
        for place in np.flatnonzero(empty).tolist():
            cleaned.dropped[place] = Drop("empty", "nothing but space")
        return cleaned


def build(config: NormaliseConfig, context: Context, fitted: Path | None = None) -> Normalise:
    """The step for a recipe."""
    return Normalise(config.form, config.max_blank_lines)
