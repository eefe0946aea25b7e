"""C4's rules (Raffel et al. 2020, "Exploring the Limits of Transfer Learning", section 2.2).

Bad lines go; then documents leave that hold a forbidden phrase or too few sentences.  Sentences end at the signs of
Chinese and other scripts too, and words of scripts without spaces are their characters.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from wuxing.core.context import Context
from wuxing.corpus.clean.cleaner import Cleaned, Column, Notes
from wuxing.corpus.clean.config import C4Config
from wuxing.corpus.clean.rules import judged
from wuxing.text.c4 import LineRules, filter_lines

if TYPE_CHECKING:
    import pyarrow


class C4:
    """Takes bad lines out of documents, and drops what is no page of text."""

    column: ClassVar[Column] = "text"
    dialogues: ClassVar[bool] = False

    def __init__(self, config: C4Config):
        self.min_sentences = config.min_sentences
        self.found: Counter[str] = Counter()
        self.rules = LineRules(
            config.terminal_marks,
            config.min_line_words,
            config.max_word_characters,
            config.line_phrases,
            config.document_phrases,
        )

    def clean(self, values: pyarrow.Array, notes: Notes) -> Cleaned:
        """The column without the lines that go."""
        import numpy as np
        import pyarrow.compute as pc

        lines = filter_lines(values, self.rules)
        empty = pc.equal(pc.binary_length(lines.texts), 0).to_numpy(zero_copy_only=False)
        sentences, removed = lines.sentences.astype(np.float64), lines.removed.astype(np.float64)
        self.found["lines"] += int(lines.removed.sum())
        rules = (
            ("bad_phrase", lines.bad, np.ones(len(values))),
            ("empty", empty, sentences),
            ("too_few_sentences", sentences < self.min_sentences, sentences),
        )
        cleaned = judged(values, rules, {"sentences": sentences, "removed_lines": removed})
        if not lines.texts.equals(values):
            cleaned.values = lines.texts
        return cleaned


def build(config: C4Config, context: Context, fitted: Path | None = None) -> C4:
    """The step for a recipe."""
    return C4(config)
