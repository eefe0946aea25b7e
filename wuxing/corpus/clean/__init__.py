"""Cleaning steps: each is one file here, Record -> Record | Drop.

To add one: its settings in `clean_config.py`, a file here, a line in `CLEANERS`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, ClassVar, Protocol

from wuxing.core.context import Context
from wuxing.core.record import Drop, Record
from wuxing.corpus.clean.config import CleanStep

CLEANERS = {
    "repair": "wuxing.corpus.clean.repair",
    "normalise": "wuxing.corpus.clean.normalise",
    "language": "wuxing.corpus.clean.language",
    "quality": "wuxing.corpus.clean.quality",
    "repetition": "wuxing.corpus.clean.repetition",
    "privacy": "wuxing.corpus.clean.privacy",
}


class Cleaner(Protocol):
    """One cleaning step.  Stateless but for `found`, so that shards of a corpus may be cleaned in any process."""

    dialogues: ClassVar[bool]
    """Whether it also makes sense for dialogues; otherwise they pass it untouched."""
    found: Counter[str]
    """What it met, for the card: kinds of private data, repairs."""

    def clean(self, record: Record) -> Record | Drop:
        """The cleaned record, or why it does not go on."""
        ...


@dataclass
class StepCount:
    """What one step did to the records that reached it."""

    step: str
    records: int = 0
    changed: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    found: Counter[str] = field(default_factory=Counter)

    def add(self, other: StepCount) -> None:
        """Add the count of another shard."""
        self.records += other.records
        self.changed += other.changed
        self.dropped += other.dropped
        self.found += other.found

    def to_json(self) -> dict[str, Any]:
        """For the card."""
        counts = {"step": self.step, "records": self.records, "changed": self.changed}
        return {**counts, "dropped": dict(sorted(self.dropped.items())), "found": dict(sorted(self.found.items()))}


class Cleaning:
    """The ordered steps of a recipe, and what each of them did."""

    def __init__(self, steps: Sequence[CleanStep], context: Context):
        self.cleaners = [_cleaner(step, context) for step in steps]
        self.counts = [StepCount(s.chosen, found=c.found) for s, c in zip(steps, self.cleaners, strict=True)]

    def clean(self, record: Record) -> Record | Drop:
        """Through all steps, up to the first that drops it."""
        for cleaner, count in zip(self.cleaners, self.counts, strict=True):
            if record.messages is not None and not cleaner.dialogues:
                continue
            count.records += 1
            cleaned = cleaner.clean(record)
            if isinstance(cleaned, Drop):
                count.dropped[cleaned.reason] += 1
                return cleaned
            count.changed += cleaned.text != record.text or cleaned.messages != record.messages
            record = cleaned
        return record


def _cleaner(step: CleanStep, context: Context) -> Cleaner:
    cleaner: Cleaner = import_module(CLEANERS[step.chosen]).build(step.settings, context)
    return cleaner
