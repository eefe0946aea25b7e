"""Unicode form, line ends, space, invisible and control characters.  Doing it twice changes nothing more."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path
from typing import Literal

from wuxing.core.context import Context
from wuxing.corpus.clean.config import NormaliseConfig
from wuxing.corpus.clean.text_cleaner import TextCleaner

_LINE_END = re.compile("\r\n?|[\x0b\x0c\x85\u2028\u2029]")
_INVISIBLE = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\xad\u200b\u2060\ufeff\ufff9-\ufffb\ufffe\uffff]")
"""Control characters, soft hyphen, zero-width space, byte order mark.  Joiners stay: Persian and emoji need them."""
_ODD_SPACE = re.compile("[\xa0\u2000-\u200a\u202f\u205f]")
_SPACE_AT_LINE_END = re.compile("[ \t\u3000]+(?=\n)")


class Normalise(TextCleaner):
    """Maps each text to its one normal form."""

    def __init__(self, form: Literal["NFC", "NFKC"] = "NFC", max_blank_lines: int = 1):
        super().__init__()
        self.form: Literal["NFC", "NFKC"] = form
        self._blank = re.compile("\n{%d,}" % (max_blank_lines + 2))  # noqa: UP031
        self._kept = "\n" * (max_blank_lines + 1)

    def change(self, text: str) -> str:
        text = _LINE_END.sub("\n", text)
        text = _INVISIBLE.sub("", text)
        text = unicodedata.normalize(self.form, text)
        text = _ODD_SPACE.sub(" ", text)
        text = _SPACE_AT_LINE_END.sub("", text)
        return self._blank.sub(self._kept, text).strip()


def build(config: NormaliseConfig, context: Context, fitted: Path | None = None) -> Normalise:
    """The step for a recipe."""
    return Normalise(config.form, config.max_blank_lines)
