"""A cleaner that looks at pictures or sounds one by one."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from wuxing.core.record import Drop
from wuxing.corpus.clean.cleaner import Cleaned, Column, Notes

if TYPE_CHECKING:
    import pyarrow


@dataclass
class Look:
    """What one look at a value says."""

    drop: Drop | None = None
    data: bytes | None = None
    """New bytes; None when they stay."""
    measures: dict[str, float] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)


class MediaCleaner:
    """Subclasses give `column` and `look`."""

    column: ClassVar[Column]
    dialogues: ClassVar[bool] = False

    def __init__(self) -> None:
        self.found: Counter[str] = Counter()

    def look(self, data: bytes) -> Look:
        """What is to be said of one encoded file, and made of it."""
        raise NotImplementedError

    def clean(self, values: pyarrow.Array, notes: Notes) -> Cleaned:
        """The column with every value looked at."""
        import numpy as np
        import pyarrow as pa

        looks = [self.look(value.as_py()) for value in values]
        changed = {place: seen.data for place, seen in enumerate(looks) if seen.data is not None}
        if changed:
            values = pa.array([changed.get(place, value.as_py()) for place, value in enumerate(values)], values.type)
        measures = {name for seen in looks for name in seen.measures}
        said = {name for seen in looks for name in seen.notes}
        return Cleaned(
            values,
            {place: seen.drop for place, seen in enumerate(looks) if seen.drop is not None},
            {name: [seen.notes.get(name) for seen in looks] for name in sorted(said)},
            {name: np.array([seen.measures.get(name, np.nan) for seen in looks]) for name in sorted(measures)},
        )
