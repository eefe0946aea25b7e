"""What a cleaning step is: a column of values in, the column cleaned, and a reason for each value that leaves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, runtime_checkable

from wuxing.core.record import Drop

if TYPE_CHECKING:
    import numpy as np
    import pyarrow
    from numpy.typing import NDArray

Column = Literal["text", "image", "audio"]
Notes = Mapping[str, Sequence[Any]]
"""Facts about the values of a column, one each; None where there is nothing to say."""


@dataclass
class Cleaned:
    """What a step made of a column."""

    values: pyarrow.Array
    """As many as came in, of the same type; the very same object when nothing changed."""
    dropped: dict[int, Drop] = field(default_factory=dict)
    """Position → why that value does not go on."""
    notes: dict[str, Sequence[Any]] = field(default_factory=dict)
    """Facts to keep in the records' meta: `{"language": ["en", None]}`."""
    measures: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    """Statistics for the data report's histograms: one per value, NaN where there is none."""


class Cleaner(Protocol):
    """One cleaning step.  Stateless but for `found`: a column may be cut anywhere and cleaned in any process."""

    column: ClassVar[Column]
    """What it looks at; records without it pass untouched."""
    dialogues: ClassVar[bool]
    """Of text: whether it also makes sense for the turns of dialogues, each of them one value."""
    found: Counter[str]
    """What it met, for the card: kinds of private data, repairs."""

    def clean(self, values: pyarrow.Array, notes: Notes) -> Cleaned:
        """The cleaned column.  `values` has no nulls; `notes` holds what earlier steps said of the same values."""
        ...


@runtime_checkable
class FactCleaner(Protocol):
    """A step that also cleans the facts kept beside a record, whatever the record is."""

    def clean_facts(self, notes: Notes) -> dict[str, Sequence[Any]]:
        """The columns of facts that change, cleaned."""
        ...


def changed_texts(values: pyarrow.Array, change: Callable[[str], str], where: Sequence[int] | None = None) -> Cleaned:
    """A text column with `change` applied to the values at `where` (all of them when None), one by one.

    A text of which nothing is left leaves as `empty`.
    """
    import pyarrow as pa

    places = range(len(values)) if where is None else where
    new: dict[int, str] = {}
    dropped: dict[int, Drop] = {}
    for place in places:
        old = values[place].as_py()
        text = change(old)
        if not text:
            dropped[place] = Drop("empty", "nothing but space")
        elif text != old:
            new[place] = text
    if not new:
        return Cleaned(values, dropped)
    texts = values.to_pylist()
    for place, text in new.items():
        texts[place] = text
    return Cleaned(pa.array(texts, values.type), dropped)
