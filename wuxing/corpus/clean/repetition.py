"""Documents that repeat themselves: Gopher's repetition rules (Rae et al. 2021, table A1)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from wuxing.core.context import Context
from wuxing.core.record import Drop
from wuxing.corpus.clean.cleaner import Cleaned, Column, Notes
from wuxing.corpus.clean.config import RepetitionConfig
from wuxing.text.shingle import tokens_of

if TYPE_CHECKING:
    import pyarrow


def duplicate_lines(text: str) -> tuple[float, float]:
    """Share of lines that stood before, by number and by characters."""
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    seen: set[str] = set()
    again, again_characters = 0, 0
    for line in lines:
        if line in seen:
            again += 1
            again_characters += len(line)
        seen.add(line)
    return again / max(1, len(lines)), again_characters / max(1, sum(map(len, lines)))


def top_share(words: Sequence[str], width: int, characters: int) -> float:
    """Share of the characters in the most frequent run of `width` words; 0 when none occurs twice."""
    runs = Counter(zip(*(words[start:] for start in range(width)), strict=False))
    if not runs:
        return 0.0
    most = max(runs.values())
    if most < 2:
        return 0.0
    longest = max(sum(map(len, run)) for run, count in runs.items() if count == most)
    return most * longest / max(1, characters)


def repeated_share(words: Sequence[str], width: int) -> float:
    """Share of the words that lie in a run of `width` words which occurs more than once, first occurrence aside."""
    seen: set[tuple[str, ...]] = set()
    covered, covered_to = 0, 0
    for start, run in enumerate(zip(*(words[shift:] for shift in range(width)), strict=False)):
        if run in seen:
            covered += start + width - max(start, covered_to)
            covered_to = start + width
        seen.add(run)
    return covered / max(1, len(words))


class Repetition:
    """Drops a document for the first rule that it breaks, named by the rule."""

    column: ClassVar[Column] = "text"
    dialogues: ClassVar[bool] = False

    def __init__(self, config: RepetitionConfig):
        self.config = config
        self.found: Counter[str] = Counter()

    def clean(self, values: pyarrow.Array, notes: Notes) -> Cleaned:
        """The column, and for each value that leaves the rule that it breaks."""
        cleaned = Cleaned(values)
        for place, text in enumerate(values.to_pylist()):
            if broken := self._broken(text):
                cleaned.dropped[place] = broken
        return cleaned

    def _broken(self, text: str) -> Drop | None:
        c = self.config
        by_number, by_characters = duplicate_lines(text)
        if by_number > c.max_duplicate_lines or by_characters > c.max_duplicate_line_characters:
            return Drop("repeated_lines", f"{max(by_number, by_characters):.3g}")
        words = tokens_of(text)
        if len(words) < c.min_words:
            return None
        characters = sum(map(len, words))
        for width, limit in ((2, c.max_top_2gram), (3, c.max_top_3gram), (4, c.max_top_4gram)):
            share = top_share(words, width, characters)
            if share > limit:
                return Drop(f"repeated_{width}gram", f"{share:.3g}")
            if not share:
                return None  # no run of this width occurs twice, so no longer one does
        for width, limit in ((5, c.max_repeated_5gram), (10, c.max_repeated_10gram)):
            if (share := repeated_share(words, width)) > limit:
                return Drop(f"repeated_{width}gram", f"{share:.3g}")
        return None


def build(config: RepetitionConfig, context: Context, fitted: Path | None = None) -> Repetition:
    """The step for a recipe."""
    return Repetition(config)
