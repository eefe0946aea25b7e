"""Quality of single documents by counted facts: Gopher's rules (Rae et al. 2021, A.1.1) and FineWeb's line rule.

Scripts without spaces are counted by characters: rules on words between spaces keep a third of good Chinese documents,
these 97 % (docs/choices.md).
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from wuxing.core.context import Context
from wuxing.corpus.clean.cleaner import Cleaned, Column, Notes
from wuxing.corpus.clean.config import QualityConfig
from wuxing.corpus.clean.rules import columns, judged, share
from wuxing.text.statistics import QUALITY, quality_counts

if TYPE_CHECKING:
    import pyarrow


class Quality:
    """Drops a document for the first rule that it breaks, named by the rule."""

    column: ClassVar[Column] = "text"
    dialogues: ClassVar[bool] = False

    def __init__(self, config: QualityConfig):
        self.config = config
        self.found: Counter[str] = Counter()

    def clean(self, values: pyarrow.Array, notes: Notes) -> Cleaned:
        """The column, and for each value that leaves the rule that it breaks."""
        import numpy as np

        c = self.config
        n = columns(quality_counts(values, notes.get("language")), QUALITY)
        words, lines = n["words"], n["lines"]
        spaced = 2 * n["alone"] < words
        mean = np.where(spaced, share(n["word_characters"], words), np.nan)
        stop_words = np.where(n["stop_words"] >= 0, n["stop_words"], np.nan)
        symbols, letters = share(n["symbols"], words), share(n["letter_words"], words)
        bullets, cut, ended = (share(n[f"{name}_lines"], lines) for name in ("bullet", "ellipsis", "ended"))
        rules = (
            ("too_short", words < c.min_words, words),
            ("too_long", words > c.max_words, words),
            ("short_words", mean < c.min_mean_word_characters, mean),
            ("long_words", mean > c.max_mean_word_characters, mean),
            ("too_many_symbols", symbols > c.max_symbol_ratio, symbols),
            ("too_few_letters", letters < c.min_alpha_ratio, letters),
            ("too_few_stop_words", stop_words < c.min_stop_words, stop_words),
            ("bullet_list", bullets > c.max_bullet_lines, bullets),
            ("cut_lines", cut > c.max_ellipsis_lines, cut),
            ("no_sentences", ended < c.min_ended_lines, ended),
        )
        measures = {
            "characters": n["characters"],
            "words": words,
            "mean_word_characters": mean,
            "symbol_ratio": symbols,
            "alpha_ratio": letters,
            "stop_words": stop_words,
            "lines": lines,
            "bullet_lines": bullets,
            "ellipsis_lines": cut,
            "ended_lines": ended,
        }
        return judged(values, rules, measures)


def build(config: QualityConfig, context: Context, fitted: Path | None = None) -> Quality:
    """The step for a recipe."""
    return Quality(config)
