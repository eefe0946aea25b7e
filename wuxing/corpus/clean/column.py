"""Records as columns, and what one cleaning step does to them.

Each record lives in one view: documents, turns of dialogues, images or sounds.  A view is a compact Arrow column of
the values that are still there, and the record that each of them belongs to; a step sees nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from wuxing.core.record import Drop, Record

if TYPE_CHECKING:
    import numpy as np
    import pyarrow
    from numpy.typing import NDArray

DOCUMENTS, TURNS, IMAGES, SOUNDS = range(4)
"""The views."""


@dataclass
class View:
    """The values of one kind that are still there."""

    values: pyarrow.Array
    owners: NDArray[np.int64]
    """The record that each value belongs to, rising."""


@dataclass
class Columns:
    """Some records of one corpus on their way through the cleaning steps."""

    ids: list[str]
    sources: list[str]
    views: dict[int, View]
    rest: dict[str, list[Any]] = field(default_factory=dict)
    """Fields that no step changes (label, liked), for records that have them; roles of turns."""
    meta: list[dict[str, Any]] | None = None
    """The records' own facts; None: none has any."""
    said: dict[str, list[Any]] = field(default_factory=dict)
    """What the steps noted, by name: one value per record."""
    step: NDArray[np.int16] = field(init=False)
    """The step that dropped each record; -1 while it goes on."""
    changed: NDArray[np.uint64] = field(init=False)
    """The steps that changed each record, one bit each."""
    drops: dict[int, Drop] = field(default_factory=dict)
    measures: dict[tuple[int, str], NDArray[np.float32]] = field(default_factory=dict)
    """(step, name) → a value for each record that reached the step, NaN for others."""

    def __post_init__(self) -> None:
        import numpy as np

        self.step = np.full(len(self.ids), -1, np.int16)
        self.changed = np.zeros(len(self.ids), np.uint64)

    def __len__(self) -> int:
        return len(self.ids)

    @classmethod
    def of_texts(cls, source: str, ids: list[str], texts: pyarrow.Array, meta: list[dict[str, Any]] | None) -> Columns:
        """Plain documents, without a detour over records."""
        import numpy as np

        return cls(ids, [source] * len(ids), {DOCUMENTS: View(texts, np.arange(len(ids)))}, meta=meta)

    @classmethod
    def of(cls, records: Sequence[Record]) -> Columns:
        """Records of any kind."""
        import numpy as np
        import pyarrow as pa

        texts: list[list[Any]] = [[], [], [], []]
        owners: list[list[int]] = [[], [], [], []]
        for number, record in enumerate(records):
            if record.messages is not None:
                said = [m["content"] for m in record.messages]
                said += [reply for reply in (record.chosen, record.rejected) if reply is not None]
                texts[TURNS] += said
                owners[TURNS] += [number] * len(said)
                continue
            for view, value in ((DOCUMENTS, record.text), (IMAGES, record.image), (SOUNDS, record.audio)):
                if value is not None:
                    texts[view].append(value)
                    owners[view].append(number)
        types = (pa.string(), pa.string(), pa.binary(), pa.binary())
        views = {
            view: View(_array(values, kind), np.array(mine, np.int64))
            for view, (values, kind, mine) in enumerate(zip(texts, types, owners, strict=True))
            if values
        }
        rest = {
            name: [getattr(record, name) for record in records]
            for name in ("messages", "label", "chosen", "rejected", "liked")
            if any(getattr(record, name) is not None for record in records)
        }
        meta = [record.meta for record in records] if any(record.meta for record in records) else None
        return cls([r.id for r in records], [r.source for r in records], views, rest, meta)

    # ------------------------------------------------------------------------------------------------ steps
    def kinds(self) -> NDArray[np.int8]:
        """The view of each record before any was dropped; call it before the first step."""
        import numpy as np

        found = np.zeros(len(self), np.int8)
        for view, values in self.views.items():
            found[values.owners] = view
        return found

    def notes(self, view: View) -> Mapping[str, Sequence[Any]]:
        """What is known of the records of a view's values, by name."""
        return _Notes(self, view)

    def drop(self, number: int, found: Mapping[int, Drop]) -> None:
        """These records leave at a step."""
        import numpy as np

        self.drops |= found
        self.step[list(found)] = number
        for view in self.views.values():
            left = self.step[view.owners] < 0
            if not left.all():
                view.values = _filtered(view.values, left)
                view.owners = view.owners[left]
        self.changed[list(found)] &= ~(np.uint64(1) << np.uint64(number))

    def say(self, name: str, owners: NDArray[np.int64], values: Sequence[Any]) -> None:
        """Note a fact of records."""
        column = self.said.setdefault(name, [None] * len(self))
        for owner, value in zip(owners.tolist(), values, strict=True):
            if value is not None:
                column[owner] = value

    def measure(self, number: int, name: str, owners: NDArray[np.int64], values: NDArray[np.float64]) -> None:
        """Keep a statistic of values; of a dialogue's turns the mean."""
        import numpy as np

        column = self.measures.setdefault((number, name), np.full(len(self), np.nan, np.float32))
        known = ~np.isnan(values)
        sums = np.bincount(owners[known], values[known], len(self))
        counts = np.bincount(owners[known], minlength=len(self))
        there = counts > 0
        column[there] = (sums[there] / counts[there]).astype(np.float32)

    # ------------------------------------------------------------------------------------------------ the end
    def kept(self) -> NDArray[np.int64]:
        """The records that no step dropped."""
        import numpy as np

        return np.flatnonzero(self.step < 0)

    def meta_of(self, number: int) -> dict[str, Any]:
        """All that is known of a record."""
        own = self.meta[number] if self.meta else {}
        said = {name: column[number] for name, column in self.said.items() if column[number] is not None}
        return {**own, **said} if said else own

    def records(self) -> Iterator[tuple[int, Record]]:
        """The records that are left, and their numbers."""
        values = {view: dict(_grouped(held)) for view, held in self.views.items()}
        for number in self.kept().tolist():
            fields = {name: column[number] for name, column in self.rest.items()}
            if number in values.get(TURNS, {}):
                _put_turns(fields, values[TURNS][number])
            for view, name in ((DOCUMENTS, "text"), (IMAGES, "image"), (SOUNDS, "audio")):
                if number in values.get(view, {}):
                    fields[name] = values[view][number][0]
            yield number, Record(self.ids[number], self.sources[number], meta=self.meta_of(number), **fields)


class _Notes(Mapping[str, Sequence[Any]]):
    """Facts by name, gathered when they are asked for."""

    def __init__(self, columns: Columns, view: View):
        self._columns, self._owners = columns, view.owners

    def _names(self) -> dict[str, None]:
        names = dict.fromkeys(name for meta in self._columns.meta or () for name in meta)
        return names | dict.fromkeys(self._columns.said)

    def __getitem__(self, name: str) -> Sequence[Any]:
        said, meta = self._columns.said.get(name), self._columns.meta
        if said is None and (meta is None or not any(name in facts for facts in meta)):
            raise KeyError(name)
        own = [meta[owner].get(name) if meta else None for owner in self._owners.tolist()]
        if said is None:
            return own
        return [mine if said[owner] is None else said[owner] for owner, mine in zip(self._owners, own, strict=True)]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names())

    def __len__(self) -> int:
        return len(self._names())


def _array(values: list[Any], kind: pyarrow.DataType) -> pyarrow.Array:
    import pyarrow as pa

    return pa.array(values, kind)


def _filtered(values: pyarrow.Array, mask: NDArray[np.bool_]) -> pyarrow.Array:
    import pyarrow as pa

    return values.filter(pa.array(mask))


def _grouped(view: View) -> Iterator[tuple[int, list[Any]]]:
    """Each record of a view with its values."""
    found: dict[int, list[Any]] = {}
    for owner, value in zip(view.owners.tolist(), view.values.to_pylist(), strict=True):
        found.setdefault(owner, []).append(value)
    yield from found.items()


def _put_turns(fields: dict[str, Any], texts: list[str]) -> None:
    """The cleaned texts back into the turns and replies that they came from."""
    places = iter(texts)
    fields["messages"] = [{"role": turn["role"], "content": next(places)} for turn in fields["messages"]]
    for name in ("chosen", "rejected"):
        if fields.get(name) is not None:
            fields[name] = next(places)
