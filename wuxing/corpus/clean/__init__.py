"""Cleaning steps: each is one file here (`cleaner.py` says what a step is).

To add one: its settings in a config file here, a field of `CleanStep`, a file here, a line in `CLEANERS`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from wuxing.core.context import Context
from wuxing.core.record import Drop, Record
from wuxing.corpus.clean.cleaner import Cleaned, Cleaner, FactCleaner
from wuxing.corpus.clean.column import DOCUMENTS, IMAGES, SOUNDS, TURNS, Columns, View
from wuxing.corpus.clean.config import CleanStep

if TYPE_CHECKING:
    import numpy as np
    import pyarrow
    from numpy.typing import NDArray

CLEANERS = {
    "repair": "wuxing.corpus.clean.repair",
    "normalise": "wuxing.corpus.clean.normalise",
    "language": "wuxing.corpus.clean.language",
    "quality": "wuxing.corpus.clean.quality",
    "repetition": "wuxing.corpus.clean.repetition",
    "fineweb": "wuxing.corpus.clean.fineweb",
    "c4": "wuxing.corpus.clean.c4",
    "privacy": "wuxing.corpus.clean.privacy",
    "placeholder": "wuxing.corpus.clean.missing",
    "boilerplate": "wuxing.corpus.clean.boilerplate",
    "chinese": "wuxing.corpus.clean.chinese",
    "classify": "wuxing.corpus.clean.classify",
    "perplexity": "wuxing.corpus.clean.perplexity",
    "toxicity": "wuxing.corpus.clean.toxicity",
    "decontaminate": "wuxing.corpus.clean.decontaminate",
    "image": "wuxing.corpus.clean.image",
    "standardise_image": "wuxing.corpus.clean.image_form",
    "audio": "wuxing.corpus.clean.audio",
    "voice": "wuxing.corpus.clean.voice",
    "standardise_audio": "wuxing.corpus.clean.audio_form",
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


class Watch(Protocol):
    """Looks on while steps work, for samples of what they did."""

    def dropped(self, columns: Columns, number: int, view: View, drops: Mapping[int, Drop]) -> None:
        """The values at these positions of the view leave; it still holds them."""
        ...

    def changed(self, columns: Columns, number: int, view: View, new: pyarrow.Array, places: NDArray[np.int64]) -> None:
        """The values at these positions of the view become those of `new`."""
        ...


class Cleaning:
    """The ordered steps of a recipe, and what each of them did."""

    def __init__(self, steps: Sequence[CleanStep], context: Context, fitted: Path | None = None):
        self.cleaners = [_cleaner(step, context, fitted_directory(fitted, n)) for n, step in enumerate(steps)]
        self.counts = [StepCount(s.chosen, found=c.found) for s, c in zip(steps, self.cleaners, strict=True)]

    def run(self, columns: Columns, watch: Watch | None = None) -> None:
        """All steps on the columns, in place; a record goes as far as the first step that drops it."""
        for number, (cleaner, count) in enumerate(zip(self.cleaners, self.counts, strict=True)):
            _apply(cleaner, number, count, columns, watch)

    def clean(self, records: Sequence[Record]) -> list[Record | Drop]:
        """Each record through all steps, up to the first that drops it."""
        columns = Columns.of(records)
        self.run(columns)
        return _ended(columns)


def views_of(cleaner: Cleaner) -> tuple[int, ...]:
    """The views that a step looks at."""
    if cleaner.column == "text":
        return (DOCUMENTS, TURNS) if cleaner.dialogues else (DOCUMENTS,)
    return (IMAGES,) if cleaner.column == "image" else (SOUNDS,)


def _apply(cleaner: Cleaner, number: int, count: StepCount, columns: Columns, watch: Watch | None) -> None:
    """One step on the records that are still there, in place."""
    if isinstance(cleaner, FactCleaner):
        _apply_to_facts(cleaner, columns)
    for kind in views_of(cleaner):
        view = columns.views.get(kind)
        if view is None or not len(view.owners):
            continue
        count.records += _distinct(view.owners)
        cleaned = cleaner.clean(view.values, columns.notes(view))
        leaving = {int(view.owners[place]): drop for place, drop in sorted(cleaned.dropped.items(), reverse=True)}
        if leaving and watch:
            watch.dropped(columns, number, view, cleaned.dropped)
        for name, values in cleaned.measures.items():
            columns.measure(number, name, view.owners, values)
        for name, said in cleaned.notes.items():
            columns.say(name, view.owners, said)
        if cleaned.values is not view.values:
            count.changed += _change(cleaned, number, columns, view, leaving, watch)
        if leaving:
            columns.drop(number, leaving)
            count.dropped.update(drop.reason for drop in leaving.values())


def _apply_to_facts(cleaner: FactCleaner, columns: Columns) -> None:
    """A step on what is kept beside pictures and sounds: they have no text of which it could be a part."""
    for kind in (IMAGES, SOUNDS):
        view = columns.views.get(kind)
        if view is not None and len(view.owners):
            for name, said in cleaner.clean_facts(columns.notes(view)).items():
                columns.say(name, view.owners, said)


def _change(
    cleaned: Cleaned, number: int, columns: Columns, view: View, leaving: Mapping[int, Drop], watch: Watch | None
) -> int:
    """Put a step's new values into their view; returns how many records that stay it changed."""
    import numpy as np
    import pyarrow.compute as pc

    places = np.flatnonzero(pc.not_equal(cleaned.values, view.values).to_numpy(zero_copy_only=False))
    if leaving:
        places = places[~np.isin(view.owners[places], list(leaving))]
    if watch and len(places):
        watch.changed(columns, number, view, cleaned.values, places)
    view.values = cleaned.values
    columns.changed[view.owners[places]] |= np.uint64(1) << np.uint64(number)
    return _distinct(view.owners[places])


def _distinct(owners: NDArray[np.int64]) -> int:
    """How many records rising owners name."""
    return int((owners[1:] != owners[:-1]).sum()) + 1 if len(owners) else 0


def _ended(columns: Columns) -> list[Record | Drop]:
    kept = dict(columns.records())
    return [kept[number] if number in kept else columns.drops[number] for number in range(len(columns))]


def apply(cleaner: Cleaner, records: Sequence[Record | Drop]) -> list[Record | Drop]:
    """What one step makes of records; those that left before stay as they are."""
    here = [record for record in records if isinstance(record, Record)]
    columns = Columns.of(here)
    _apply(cleaner, 0, StepCount(""), columns, None)
    ended = iter(_ended(columns))
    return [next(ended) if isinstance(record, Record) else record for record in records]


def fitted_directory(fitted: Path | None, step: int) -> Path | None:
    """Where a step that learnt something before the cleaning finds it."""
    return None if fitted is None else fitted / str(step)


def _cleaner(step: CleanStep, context: Context, fitted: Path | None) -> Cleaner:
    cleaner: Cleaner = import_module(CLEANERS[step.chosen]).build(step.settings, context, fitted)
    return cleaner
