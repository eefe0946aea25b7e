"""FineWeb's rules on lines (Penedo et al. 2024, "The FineWeb Datasets", section 3.6)."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from wuxing.core.context import Context
from wuxing.corpus.clean.cleaner import Cleaned, Column, Notes
from wuxing.corpus.clean.config import FineWebConfig
from wuxing.corpus.clean.rules import columns, judged, share
from wuxing.text.statistics import QUALITY, REPETITION, quality_counts, repetition_counts

if TYPE_CHECKING:
    import pyarrow


class FineWeb:
    """Drops a document for the first rule that it breaks, named by the rule."""

    column: ClassVar[Column] = "text"
    dialogues: ClassVar[bool] = False

    def __init__(self, config: FineWebConfig):
        self.config = config
        self.found: Counter[str] = Counter()

    def clean(self, values: pyarrow.Array, notes: Notes) -> Cleaned:
        """The column, and for each value that leaves the rule that it breaks."""
        c = self.config
        n = columns(quality_counts(values, None, c.short_line_characters), QUALITY)
        again = columns(repetition_counts(values, runs=False), REPETITION)
        measures = {
            "ended_lines": share(n["ended_lines"], n["lines"]),
            "short_lines": share(n["short_lines"], n["lines"]),
            "duplicate_line_characters": share(again["duplicate_line_characters"], again["line_characters"]),
            "newlines_per_word": share(n["newlines"], n["words"]),
        }
        rules = (
            ("no_sentences", measures["ended_lines"] < c.min_ended_lines, measures["ended_lines"]),
            ("short_lines", measures["short_lines"] > c.max_short_lines, measures["short_lines"]),
            (
                "repeated_lines",
                measures["duplicate_line_characters"] > c.max_duplicate_line_characters,
                measures["duplicate_line_characters"],
            ),
            ("too_many_lines", measures["newlines_per_word"] > c.max_newlines_per_word, measures["newlines_per_word"]),
        )
        return judged(values, rules, measures)


def build(config: FineWebConfig, context: Context, fitted: Path | None = None) -> FineWeb:
    """The step for a recipe."""
    return FineWeb(config)
