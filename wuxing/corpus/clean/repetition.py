"""Documents that repeat themselves: Gopher's repetition rules (Rae et al. 2021, table A1)."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from wuxing.core.context import Context
from wuxing.corpus.clean.cleaner import Cleaned, Column, Notes
from wuxing.corpus.clean.config import RepetitionConfig
from wuxing.corpus.clean.rules import columns, judged, share
from wuxing.text.statistics import REPETITION, repetition_counts

if TYPE_CHECKING:
    import pyarrow


class Repetition:
    """Drops a document for the first rule that it breaks, named by the rule."""

    column: ClassVar[Column] = "text"
    dialogues: ClassVar[bool] = False

    def __init__(self, config: RepetitionConfig):
        self.config = config
        self.found: Counter[str] = Counter()

    def clean(self, values: pyarrow.Array, notes: Notes) -> Cleaned:
        """The column, and for each value that leaves the rule that it breaks."""
        c = self.config
        n = columns(repetition_counts(values), REPETITION)
        long = n["tokens"] >= c.min_words
        measures = {
            "duplicate_lines": share(n["duplicate_lines"], n["lines"]),
            "duplicate_line_characters": share(n["duplicate_line_characters"], n["line_characters"]),
            "duplicate_paragraphs": share(n["duplicate_paragraphs"], n["paragraphs"]),
            "duplicate_paragraph_characters": share(n["duplicate_paragraph_characters"], n["line_characters"]),
        }
        rules = [
            (reason, measures[name] > limit, measures[name])
            for reason, name, limit in (
                ("repeated_lines", "duplicate_lines", c.max_duplicate_lines),
                ("repeated_lines", "duplicate_line_characters", c.max_duplicate_line_characters),
                ("repeated_paragraphs", "duplicate_paragraphs", c.max_duplicate_paragraphs),
                ("repeated_paragraphs", "duplicate_paragraph_characters", c.max_duplicate_paragraph_characters),
            )
        ]
        runs = [(f"top_{width}gram", width) for width in (2, 3, 4)]
        runs += [(f"repeated_{width}gram", width) for width in range(5, 11)]
        for name, width in runs:
            measures[name] = share(n[f"{name}_characters"], n["token_characters"])
            rules.append((f"repeated_{width}gram", (measures[name] > getattr(c, f"max_{name}")) & long, measures[name]))
        return judged(values, rules, measures)


def build(config: RepetitionConfig, context: Context, fitted: Path | None = None) -> Repetition:
    """The step for a recipe."""
    return Repetition(config)
