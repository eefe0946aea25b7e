"""Quality of single documents by counted facts: Gopher's rules (Rae et al. 2021, A.1.1) and FineWeb's line rules.

Scripts without spaces are counted by characters: rules on words between spaces keep a third of good Chinese documents,
these 97 % (docs/choices.md).
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from wuxing.core.context import Context
from wuxing.core.record import Drop
from wuxing.corpus.clean.cleaner import Cleaned, Column, Notes
from wuxing.corpus.clean.config import QualityConfig
from wuxing.text.shingle import ALONE, ALONE_CHARACTER

if TYPE_CHECKING:
    import pyarrow

_ALONE = "".join(f"{chr(first)}-{chr(last)}" for first, last in ALONE)
_SIGNS = "!-/:-@\\[-`{-~\u3000-\u303f\uff00-\uff0f\uff1a-\uff20\uff3b-\uff40\uff5b-\uff65\u2014\u2018-\u201d\u2026"
WORD = re.compile(f"[{_ALONE}][{_SIGNS}]*|[^\\s{_ALONE}]+")
"""A word with the signs that touch it."""
_LETTER = re.compile(r"[^\W\d_]")
_ASCII_WORD = re.compile("[a-z]+")
_SYMBOL = re.compile("#|\u2026|\\.\\.\\.")
_BULLET = re.compile("[\u2022\u2023\u25cf\u25e6\u2043*\u00b7-]")
_ELLIPSIS = re.compile("(?:\u2026|\\.\\.\\.)$")
_END = tuple(".!?\u2026:;\"'\u201d\u2019)\u3002\uff01\uff1f\uff1b\uff1a\u300d\u300f\uff09\uff0c,")
_ENGLISH = "the be to of and that have with is in a for as was on by it at from or"
STOP_WORDS = {
    "en": frozenset(re.findall("[a-z]+", _ENGLISH)),
    "zh": frozenset("的是了在有不和一人我他这這中为為之以其而于於也上来來无無何"),
}
"""Words that hardly any text of a language does without."""


@dataclass(frozen=True)
class Statistics:
    """What the rules look at."""

    words: int
    mean_word_characters: float | None
    """None in scripts without spaces."""
    symbol_ratio: float
    alpha_ratio: float
    stop_words: int | None
    """None where the language has no list."""
    bullet_lines: float
    ellipsis_lines: float
    ended_lines: float


def statistics(text: str, language: str | None = None) -> Statistics:
    """Count a document.  `language` chooses the stop words; without it only Chinese is recognised."""
    words = WORD.findall(text)
    alone = len(ALONE_CHARACTER.findall(text))
    spaced = 2 * alone < len(words)
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    count, line_count = max(1, len(words)), max(1, len(lines))
    letters = sum(map(_has_letter, words))
    if language is None and not spaced:
        language = "zh"
    return Statistics(
        words=len(words),
        mean_word_characters=sum(map(len, words)) / count if spaced else None,
        symbol_ratio=len(_SYMBOL.findall(text)) / count,
        alpha_ratio=letters / count,
        stop_words=_stop_words(text, language),
        bullet_lines=sum(1 for line in lines if _BULLET.match(line)) / line_count,
        ellipsis_lines=sum(1 for line in lines if _ELLIPSIS.search(line)) / line_count,
        ended_lines=sum(1 for line in lines if line.endswith(_END)) / line_count,
    )


def _stop_words(text: str, language: str | None) -> int | None:
    known = STOP_WORDS.get(language or "")
    if known is None:
        return None
    return len(known & set(text if language == "zh" else _ASCII_WORD.findall(text.lower())))


@lru_cache(maxsize=1 << 16)
def _has_letter(word: str) -> bool:
    return _LETTER.search(word) is not None


class Quality:
    """Drops a document for the first rule that it breaks, named by the rule."""

    column: ClassVar[Column] = "text"
    dialogues: ClassVar[bool] = False

    def __init__(self, config: QualityConfig):
        self.config = config
        self.found: Counter[str] = Counter()

    def clean(self, values: pyarrow.Array, notes: Notes) -> Cleaned:
        """The column, and for each value that leaves the rule that it breaks."""
        cleaned = Cleaned(values)
        languages = notes.get("language", [None] * len(values))
        for place, (text, language) in enumerate(zip(values.to_pylist(), languages, strict=True)):
            if broken := self._broken(statistics(text, language)):
                cleaned.dropped[place] = broken
        return cleaned

    def _broken(self, s: Statistics) -> Drop | None:
        c, mean = self.config, s.mean_word_characters
        rules: tuple[tuple[str, bool, object], ...] = (
            ("too_short", s.words < c.min_words, s.words),
            ("too_long", s.words > c.max_words, s.words),
            ("short_words", mean is not None and mean < c.min_mean_word_characters, mean),
            ("long_words", mean is not None and mean > c.max_mean_word_characters, mean),
            ("too_many_symbols", s.symbol_ratio > c.max_symbol_ratio, s.symbol_ratio),
            ("too_few_letters", s.alpha_ratio < c.min_alpha_ratio, s.alpha_ratio),
            ("too_few_stop_words", s.stop_words is not None and s.stop_words < c.min_stop_words, s.stop_words),
            ("bullet_list", s.bullet_lines > c.max_bullet_lines, s.bullet_lines),
            ("cut_lines", s.ellipsis_lines > c.max_ellipsis_lines, s.ellipsis_lines),
            ("no_sentences", s.ended_lines < c.min_ended_lines, s.ended_lines),
        )
        for reason, broken, value in rules:
            if broken:
                return Drop(reason, f"{value:.3g}" if isinstance(value, float) else str(value))
        return None


def build(config: QualityConfig, context: Context, fitted: Path | None = None) -> Quality:
    """The step for a recipe."""
    return Quality(config)
