"""Substring duplicates: runs of at least `length` tokens that stood before, in an earlier text or earlier in the same.

Which tokens go (Lee et al. 2021, "Deduplicating training data makes language models better", whose length is 50): those
inside any run of `length` tokens that is equal to a run which starts earlier; case and punctuation make no difference.

How they are found, with bounded memory: of each text a few fingerprints are chosen by winnowing (Schleimer, Wilkerson
and Aiken 2003), so that equal runs of `length` tokens share one.  Keys of 8 bytes go to files by their leading bits and
are sorted file by file; only around fingerprints that occur twice are the runs themselves looked at, by 128 bits each,
in the same way.  Every pass reads the texts in order; nothing of them stays in memory.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import pyarrow
    from numpy.typing import NDArray

FILES = 128
"""Into so many files keys are divided; one of them is sorted at a time."""
MAX_ROUNDS = 4
MIN_LEFT_TOKENS = 10
CLOSING = ".,;:!?…)]}%”’»。，、；：！？）】》」』〉·"
"""Signs that belong to the words before them."""

Texts = Callable[[], Iterable["pyarrow.Array"]]
"""Each call reads the same texts in the same order from their beginning; null: a record without text."""


@dataclass(frozen=True)
class Spans:
    """Stretches of texts, in rising order: from the first byte of a token to the end of another."""

    record: NDArray[np.int64]
    start: NDArray[np.int64]
    """In bytes of UTF-8 from the text's beginning."""
    stop: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.record)

    def of(self, first: int, count: int) -> Iterator[tuple[int, list[tuple[int, int]]]]:
        """The texts with spans among `count` from number `first` on: place among them, their spans."""
        import numpy as np

        low, high = np.searchsorted(self.record, [first, first + count])
        found: dict[int, list[tuple[int, int]]] = {}
        columns = (self.record[low:high], self.start[low:high], self.stop[low:high])
        for record, start, stop in zip(*(column.tolist() for column in columns), strict=True):
            found.setdefault(record - first, []).append((start, stop))
        yield from found.items()


@dataclass(frozen=True)
class Cuts:
    """What is to be cut, round by round: cutting joins what stood apart, which may be a repeated run again."""

    rounds: list[Spans]

    def apply(self, texts: pyarrow.Array, first: int) -> pyarrow.Array:
        """The texts, the first of them number `first`, without their spans; the same object if they have none."""
        for spans in self.rounds:
            texts = cut(texts, spans, first)
        return texts

    def records(self) -> NDArray[np.int64]:
        """The numbers of the texts that lose something."""
        import numpy as np

        return np.unique(np.concatenate([np.empty(0, np.int64), *(spans.record for spans in self.rounds)]))


def find_cuts(texts: Texts, length: int, directory: Path) -> Cuts:
    """All spans to cut, in as many rounds as it takes (at most four), working in `directory`."""
    rounds: list[Spans] = []
    for number in range(MAX_ROUNDS):
        spans = find_spans(lambda: _cut_all(texts(), rounds), length, directory / f"round-{number}")
        if not len(spans):
            break
        rounds.append(spans)
    return Cuts(rounds)


def _cut_all(texts: Iterable[pyarrow.Array], rounds: list[Spans]) -> Iterator[pyarrow.Array]:
    first = 0
    for array in texts:
        yield Cuts(rounds).apply(array, first)
        first += len(array)


def find_spans(texts: Texts, length: int, directory: Path) -> Spans:
    """The spans of one round: exact, up to an accident of 128 bits.  `directory` is emptied and used for files."""
    assert length >= 2, "one token alone is no substring"
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    repeated = _repeated_fingerprints(texts, length, directory)
    spans = _spans(texts, length, repeated, directory) if repeated is not None else _none()
    for path in directory.iterdir():
        path.unlink()
    return spans


def cut(texts: pyarrow.Array, spans: Spans, first: int) -> pyarrow.Array:
    """The texts without their spans, and without the punctuation that closes these."""
    import pyarrow as pa

    changed = {place: without(texts[place].as_py(), mine) for place, mine in spans.of(first, len(texts))}
    if not changed:
        return texts
    values = texts.to_pylist()
    for place, text in changed.items():
        values[place] = text
    return pa.array(values, texts.type)


def too_little(texts: pyarrow.Array, least: int = MIN_LEFT_TOKENS) -> NDArray[np.bool_]:
    """The texts of which too little is left to be kept: `substring_duplicate`."""
    import pyarrow.compute as pc

    from wuxing.text.token import tokens

    found: NDArray[np.bool_] = tokens(pc.fill_null(texts, "")).counts < least
    return found


def residue(texts: Texts, length: int, sample: int = 200, most_bytes: int = 20 << 20) -> tuple[int, int]:
    """(runs looked at, how many of them occur more than once), by plain strings: shares no code with the search.

    The runs of `sample` texts, evenly spread, are looked for in all texts, up to `most_bytes` of them.
    """
    from collections import Counter

    from wuxing.text.shingle import tokens_of

    chosen, every, read = [], 0, 0
    for array in texts():
        every += len(array)
        read += array.nbytes
        if read > most_bytes:
            break
    step = max(1, every // sample)
    for number, text in enumerate(_strings(texts(), every)):
        if number % step == 0:
            chosen.append(text)
    wanted: Counter[str] = Counter(dict.fromkeys((run for text in chosen for run in _runs(tokens_of(text), length)), 0))
    for text in _strings(texts(), every):
        for run in _runs(tokens_of(text), length):
            if run in wanted:
                wanted[run] += 1
    return len(wanted), sum(count > 1 for count in wanted.values())


def _strings(texts: Iterable[pyarrow.Array], count: int) -> Iterator[str]:
    for array in texts:
        for text in array.to_pylist()[:count]:
            yield text or ""
        count -= len(array)
        if count <= 0:
            return


def _runs(words: list[str], length: int) -> Iterator[str]:
    for start in range(len(words) - length + 1):
        yield "\x1f".join(words[start : start + length])


# ---------------------------------------------------------------------------------------------------- the search
def _repeated_fingerprints(texts: Texts, length: int, directory: Path) -> NDArray[np.bool_] | None:
    """For each fingerprint, in the order of the texts, whether another has the same hash; None where none has."""
    with _Keys(directory, "fingerprint", 1) as keys:
        for array in texts():
            _, hashes, _ = _fingerprints(array, length)
            keys.add([hashes])
    return keys.repeated(first_too=True)


def _spans(texts: Texts, length: int, repeated: NDArray[np.bool_], directory: Path) -> Spans:
    import numpy as np

    places, at, record = directory / "places", 0, 0
    with _Keys(directory, "run", 2) as keys, places.open("wb") as out:
        for array in texts():
            tokens, hashes, grams = _fingerprints(array, length)
            near = grams[repeated[at : at + len(hashes)]]
            at += len(hashes)
            if len(near):
                starts = _around(near, tokens.counts, tokens.ends, length)
                keys.add(list(_window_hashes(tokens.hashes, starts, length)))
                owner = np.searchsorted(tokens.ends, starts, side="right")
                columns = (record + owner, tokens.starts[starts], tokens.stops[starts + length - 1], starts)
                np.stack([column.astype(np.int64) for column in columns], axis=1).tofile(out)
            record += len(array)
    later = keys.repeated(first_too=False)
    if later is None:
        return _none()
    rows = np.memmap(places, np.int64, "r").reshape(-1, 4)
    return _merged(rows, later)


def _fingerprints(texts: pyarrow.Array, length: int) -> tuple[Any, NDArray[np.uint64], NDArray[np.int64]]:
    """The tokens of texts, their fingerprints, and the first token of each fingerprint."""
    import numpy as np
    import pyarrow.compute as pc

    from wuxing.text.token import runs, tokens, whole_runs, winnow

    found = tokens(pc.fill_null(texts, "") if texts.null_count else texts)
    width = length // 2
    inside = np.flatnonzero(whole_runs(found.ends, width))
    grams = runs(found.hashes, width)[inside]
    ends = np.cumsum(np.maximum(0, found.counts - width + 1))
    chosen = winnow(grams, ends, length - width + 1)
    return found, grams[chosen], inside[chosen]


def _around(
    near: NDArray[np.int64], counts: NDArray[np.int64], ends: NDArray[np.int64], length: int
) -> NDArray[np.int64]:
    """The first tokens of all runs of `length` tokens that hold one of these fingerprints."""
    import numpy as np

    width = length // 2
    owner = np.searchsorted(ends, near, side="right")
    low = np.maximum(near - (length - width), ends[owner] - counts[owner])
    high = np.minimum(near, ends[owner] - length)
    steps = np.zeros(int(ends[-1]) + 1, np.int64)
    some = low <= high
    np.add.at(steps, low[some], 1)
    np.add.at(steps, high[some] + 1, -1)
    return np.flatnonzero(np.cumsum(steps) > 0)


def _window_hashes(hashes: NDArray[np.uint64], starts: NDArray[np.int64], length: int) -> Iterator[NDArray[np.uint64]]:
    """Two 64-bit hashes of the runs of `length` tokens at `starts`."""
    from wuxing.text.token import runs

    for factor in (0x9E3779B97F4A7C15, 0xD1342543DE82EF95):
        yield runs(hashes, length, factor)[starts]


def _merged(rows: NDArray[np.int64], later: NDArray[np.bool_], piece: int = 1 << 20) -> Spans:
    """Runs that overlap or touch, as one span; read piece by piece."""
    import numpy as np

    out: list[NDArray[np.int64]] = [np.empty((0, 3), np.int64)]
    for begin in range(0, len(rows), piece):
        part = rows[begin : begin + piece][later[begin : begin + piece]]
        if not len(part):
            continue
        fresh = np.ones(len(part), bool)
        fresh[1:] = (part[1:, 0] != part[:-1, 0]) | (part[1:, 1] > part[:-1, 2])
        first = np.flatnonzero(fresh)
        last = np.append(first[1:], len(part)) - 1
        spans = np.stack([part[first, 0], part[first, 1], part[last, 2]], axis=1)
        before = out[-1]
        if len(before) and before[-1, 0] == spans[0, 0] and spans[0, 1] <= before[-1, 2]:
            before[-1, 2] = max(before[-1, 2], spans[0, 2])
            spans = spans[1:]
        out.append(spans)
    whole = np.concatenate(out)
    return Spans(whole[:, 0].copy(), whole[:, 1].copy(), whole[:, 2].copy())


def _none() -> Spans:
    import numpy as np

    return Spans(*(np.empty(0, np.int64) for _ in range(3)))


def without(text: str, spans: list[tuple[int, int]]) -> str:
    """A text without its spans; what closed them goes too, and no empty lines gape where they stood."""
    from wuxing.text.shingle import TOKEN

    raw, at = text.encode(), 0
    left = ""
    for start, stop in [*spans, (len(raw), len(raw))]:
        piece = raw[at:start].decode()
        if at:
            piece = piece.lstrip(CLOSING)
        if TOKEN.search(piece):
            left = _joined(left, piece) if at else piece
        at = stop
    return left.rstrip() if spans[-1][1] == len(raw.rstrip()) or not TOKEN.search(piece) else left


def _joined(left: str, right: str) -> str:
    """Two pieces of a text, with the widest gap of those at their ends."""
    if not left:
        return right.lstrip()
    body, rest = left.rstrip(), right.lstrip()
    space = left[len(body) :] + right[: len(right) - len(rest)]
    gap = "\n\n" if space.count("\n") > 1 else "\n" if "\n" in space else " " if space else ""
    return body + gap + rest


class _Keys:
    """Keys of one or two 64-bit numbers on disk, in the order in which they came and by their leading bits."""

    def __init__(self, directory: Path, name: str, width: int):
        self.directory, self.name, self.width = directory, name, width
        self.count = 0
        self._files = ExitStack()

    def __enter__(self) -> _Keys:
        paths = [self.directory / f"{self.name}-{number}" for number in range(FILES)]
        self._out = [self._files.enter_context(path.open("wb")) for path in paths]
        self.paths = paths
        return self

    def __exit__(self, *error: object) -> None:
        self._files.close()

    def add(self, columns: list[NDArray[np.uint64]]) -> None:
        """Append keys: each column one number of all of them."""
        import numpy as np

        size = len(columns[0])
        own = np.arange(self.count, self.count + size, dtype=np.uint64)
        rows = np.stack([*columns, own], axis=1)
        file = (columns[0] >> np.uint64(57)).astype(np.int64)
        order = np.argsort(file, kind="stable")
        bounds = np.searchsorted(file[order], np.arange(FILES + 1))
        rows = rows[order]
        for number in np.unique(file).tolist():
            rows[bounds[number] : bounds[number + 1]].tofile(self._out[number])
        self.count += size

    def repeated(self, first_too: bool) -> NDArray[np.bool_] | None:
        """For each key in the order of coming whether it occurs again (`first_too`) or came before; None: none does."""
        import numpy as np

        if not self.count:
            return None
        flags = np.memmap(self.directory / f"{self.name}-flags", bool, "w+", shape=(self.count,))
        found = False
        for path in self.paths:
            rows = np.fromfile(path, np.uint64).reshape(-1, self.width + 1)
            path.unlink()
            order = np.lexsort([rows[:, column] for column in reversed(range(self.width + 1))])
            rows = rows[order]
            same = (rows[1:, : self.width] == rows[:-1, : self.width]).all(axis=1)
            places = rows[1:, -1][same]
            flags[places] = True
            if first_too:
                flags[rows[:-1, -1][same]] = True
            found = found or bool(len(places))
        return flags if found else None
