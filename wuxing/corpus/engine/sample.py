"""Samples of what was dropped and changed: for each fate or step those whose ids have the least hash.

Such a sample is uniform, and the same however the work was cut: the least of a whole are among the least of its parts.
"""

from __future__ import annotations

import hashlib
from bisect import insort
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from wuxing.core.record import Drop
from wuxing.corpus.clean.column import DOCUMENTS, IMAGES, SOUNDS, TURNS, Columns, View

if TYPE_CHECKING:
    import numpy as np
    import pyarrow
    from numpy.typing import NDArray

SAMPLE_CHARACTERS = 2000
SAMPLE_BYTES = 1 << 20
BEFORE_CHARACTERS = 200
"""What is shown before the first difference that a step made."""


class Sample(NamedTuple):
    """One record, and what became of it."""

    rank: int
    id: str
    group: str
    """A fate, or `2:normalise`: the number and name of a step."""
    detail: str
    text: str
    """What was dropped; what stood there before a step."""
    after: str | None = None
    """What a step made of it; None for what was dropped."""
    image: bytes | None = None
    audio: bytes | None = None


def rank(id: str) -> int:
    """A record's place in any choice of samples."""
    return int.from_bytes(hashlib.blake2b(id.encode(errors="surrogatepass"), digest_size=7).digest(), "big")


class Samples:
    """The samples of some records; a cleaning's `Watch`."""

    def __init__(self, most: int, names: list[str], redact: Callable[[str], str], prefix: str = "filtered:"):
        self.most, self.redact = most, redact
        self._names, self._prefix = names, prefix
        self._best: dict[tuple[str, bool], list[Sample]] = {}
        self._ranks: tuple[object, dict[int, int]] = (None, {})

    def offer(self, sample: Sample) -> None:
        """Keep it if it is among the least of its group."""
        best = self._best.setdefault((sample.group, sample.after is None), [])
        insort(best, sample, key=lambda held: (held.rank, held.id))
        del best[self.most :]

    def wants(self, group: str, at: int, dropped: bool) -> bool:
        """Whether a sample of this rank would be kept."""
        best = self._best.get((group, dropped), [])
        return len(best) < self.most or at <= best[-1].rank

    def all(self) -> list[Sample]:
        """Every group's samples, in a stable order."""
        return [sample for key in sorted(self._best) for sample in self._best[key]]

    # ------------------------------------------------------------------------------------------------ watching
    def unread(self, id: str, group: str, detail: str) -> None:
        """A row that never became a record."""
        if self.most and self.wants(group, rank(id), True):
            self.offer(Sample(rank(id), id, group, self.redact(detail), ""))

    def dropped(self, columns: Columns, number: int, view: View, drops: Mapping[int, Drop]) -> None:
        """Some values of a view leave."""
        for place, drop in drops.items():
            owner, group = int(view.owners[place]), self._prefix + drop.reason
            at = self._rank(columns, owner)
            if self.most and self.wants(group, at, True):
                text, image, audio = self._shown(columns, view, place)
                self.offer(Sample(at, columns.ids[owner], group, self.redact(drop.detail), text, None, image, audio))

    def changed(self, columns: Columns, number: int, view: View, new: pyarrow.Array, places: NDArray[np.int64]) -> None:
        """Some values of a view become others."""
        import pyarrow as pa

        group = f"{number}:{self._names[number]}"
        if not self.most or not pa.types.is_string(view.values.type):
            return
        for place in places.tolist():
            owner = int(view.owners[place])
            at = self._rank(columns, owner)
            if self.wants(group, at, False):
                before, after = around(view.values[place].as_py(), new[place].as_py())
                self.offer(Sample(at, columns.ids[owner], group, "", self.redact(before), self.redact(after)))

    def _rank(self, columns: Columns, owner: int) -> int:
        """The rank of a record; remembered while its columns are cleaned."""
        if self._ranks[0] is not columns:
            self._ranks = (columns, {})
        known = self._ranks[1]
        if owner not in known:
            known[owner] = rank(columns.ids[owner])
        return known[owner]

    def _shown(self, columns: Columns, view: View, place: int) -> tuple[str, bytes | None, bytes | None]:
        """A record as a sample shows it: whole turns of a dialogue, bytes that are not too many."""
        import numpy as np

        owner = view.owners[place]
        if view is columns.views.get(TURNS):
            turns = [view.values[int(n)].as_py() for n in np.flatnonzero(view.owners == owner)]
            roles = [turn["role"] for turn in columns.rest["messages"][owner]]
            said = (f"{role}: {text}" for role, text in zip([*roles, "chosen", "rejected"], turns, strict=False))
            return self.redact("\n".join(said)[:SAMPLE_CHARACTERS]), None, None
        value = view.values[place].as_py()
        if view is columns.views.get(DOCUMENTS):
            return self.redact(value[:SAMPLE_CHARACTERS]), None, None
        held = value if len(value) <= SAMPLE_BYTES else None
        assert view is columns.views.get(IMAGES) or view is columns.views.get(SOUNDS)
        return ("", held, None) if view is columns.views.get(IMAGES) else ("", None, held)


def around(before: str, after: str) -> tuple[str, str]:
    """Two texts, cut to what stands around their first difference."""
    least = min(len(before), len(after))
    low, high = 0, least  # the length of the common beginning, by halves: slices compare faster than characters
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if before[:middle] == after[:middle] else (low, middle - 1)
    start = max(0, low - BEFORE_CHARACTERS)
    cut = slice(start, start + SAMPLE_CHARACTERS // 2)
    mark = "… " if start else ""
    return mark + before[cut], mark + after[cut]


def samples_table(samples: list[Sample]) -> pyarrow.Table:
    """Samples as Arrow, for a shard."""
    import pyarrow as pa

    columns: dict[str, list[Any]] = {name: [getattr(s, name) for s in samples] for name in Sample._fields}
    return pa.table(columns, schema=samples_schema())


def samples_schema() -> pyarrow.Schema:
    """The columns of a `Sample`."""
    import pyarrow as pa

    kinds = {"rank": pa.int64(), "image": pa.binary(), "audio": pa.binary()}
    return pa.schema([(name, kinds.get(name, pa.string())) for name in Sample._fields])
