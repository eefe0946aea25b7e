"""Cleaning steps: each is one file here (`cleaner.py` says what a step is).

To add one: its settings in a config file here, a field of `CleanStep`, a file here, a line in `CLEANERS`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import Any

from wuxing.core.context import Context
from wuxing.core.record import Drop, Record
from wuxing.corpus.clean.cleaner import Cleaned, Cleaner
from wuxing.corpus.clean.config import CleanStep

CLEANERS = {
    "repair": "wuxing.corpus.clean.repair",
    "normalise": "wuxing.corpus.clean.normalise",
    "language": "wuxing.corpus.clean.language",
    "quality": "wuxing.corpus.clean.quality",
    "repetition": "wuxing.corpus.clean.repetition",
    "privacy": "wuxing.corpus.clean.privacy",
}


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

    def __init__(self, steps: Sequence[CleanStep], context: Context, fitted: Path | None = None):
        self.cleaners = [_cleaner(step, context, fitted_directory(fitted, n)) for n, step in enumerate(steps)]
        self.counts = [StepCount(s.chosen, found=c.found) for s, c in zip(steps, self.cleaners, strict=True)]

    def clean(self, records: Sequence[Record]) -> list[Record | Drop]:
        """Each record through all steps, up to the first that drops it."""
        ended: list[Record | Drop] = list(records)
        for cleaner, count in zip(self.cleaners, self.counts, strict=True):
            _apply(cleaner, count, ended)
        return ended


def _apply(cleaner: Cleaner, count: StepCount, ended: list[Record | Drop]) -> None:
    """One step on the records that are still there, in place."""
    import pyarrow as pa

    values: list[Any] = []
    owners: list[tuple[int, int]] = []
    for place, record in enumerate(ended):
        if isinstance(record, Drop):
            continue
        if cleaner.column != "text" or record.messages is None:
            value = getattr(record, cleaner.column)
            if value is not None:
                values.append(value)
                owners.append((place, -1))
        elif cleaner.dialogues:
            values += [message["content"] for message in record.messages]
            owners += [(place, turn) for turn in range(len(record.messages))]
    before = [ended[place] for place, _ in owners]
    notes: dict[str, list[Any]] = {}
    for name in {n for record in before if isinstance(record, Record) for n in record.meta}:
        notes[name] = [record.meta.get(name) for record in before if isinstance(record, Record)]
    column = pa.array(values, pa.string() if cleaner.column == "text" else pa.binary())
    cleaned = cleaner.clean(column, notes)
    _write_back(cleaner, cleaned, column, owners, ended)
    touched = dict(zip((place for place, _ in owners), before, strict=True))
    count.records += len(touched)
    for place, old in touched.items():
        new = ended[place]
        if isinstance(new, Drop):
            count.dropped[new.reason] += 1
        elif isinstance(old, Record):
            count.changed += new.text != old.text or new.messages != old.messages or new.image != old.image


def _write_back(
    cleaner: Cleaner, cleaned: Cleaned, column: Any, owners: list[tuple[int, int]], ended: list[Record | Drop]
) -> None:
    same = cleaned.values is column
    for number, (place, turn) in enumerate(owners):
        record = ended[place]
        if isinstance(record, Drop):
            continue
        if number in cleaned.dropped:
            ended[place] = cleaned.dropped[number]
            continue
        if not same:
            value = cleaned.values[number].as_py()
            if turn < 0:
                record = replace(record, **{cleaner.column: value})
            else:
                assert record.messages is not None
                messages = list(record.messages)
                messages[turn] = {"role": messages[turn]["role"], "content": value}
                record = replace(record, messages=messages)
        said = {name: values[number] for name, values in cleaned.notes.items() if values[number] is not None}
        ended[place] = replace(record, meta={**record.meta, **said}) if said else record


def apply(cleaner: Cleaner, records: Sequence[Record | Drop]) -> list[Record | Drop]:
    """What one step makes of records; those that left before stay as they are."""
    ended = list(records)
    _apply(cleaner, StepCount(""), ended)
    return ended


def fitted_directory(fitted: Path | None, step: int) -> Path | None:
    """Where a step that learnt something before the cleaning finds it."""
    return None if fitted is None else fitted / str(step)


def _cleaner(step: CleanStep, context: Context, fitted: Path | None) -> Cleaner:
    cleaner: Cleaner = import_module(CLEANERS[step.chosen]).build(step.settings, context, fitted)
    return cleaner
