"""Packing: which stretch of which document stands where in the rows that a model sees.  Planned once, and hashed.

Shapes: T tokens of a row.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from wuxing.core.digest import digest_of
from wuxing.core.error import WuxingError
from wuxing.data.tokens import TokenSet

IGNORED, PADDING = -100, -1


@dataclass(frozen=True)
class Row:
    """One row: ids, shifted labels, positions and document numbers, each of T int64."""

    tokens_T: NDArray[np.int64]
    labels_T: NDArray[np.int64]
    positions_T: NDArray[np.int64]
    documents_T: NDArray[np.int64]


class Packing(Protocol):
    """A fixed list of rows over one token set."""

    @property
    def digest(self) -> str:
        """Of the data and of every decision of the packing."""
        ...

    @property
    def rows(self) -> int: ...

    @property
    def losses(self) -> dict[str, float]:
        """Shares: `padding` (positions without a token), `truncated` (ids in no row); documents: `fully_masked`."""
        ...

    @property
    def fates(self) -> dict[str, int]:
        """Documents by what becomes of them: they sum to all documents."""
        ...

    def __getitem__(self, row: int) -> Row | tuple[Row, ...]:
        """The row; of preferences two, the better reply's first."""
        ...

    def describe(self, row: int) -> list[str]:
        """Ids of the records in a row."""
        ...

    def scores(self, by: str) -> NDArray[np.float64]:
        """A number for each row: the mean over its ids of their documents' `by`, "length" or a number of the meta."""
        ...


@dataclass(frozen=True)
class Blocks:
    """The stream cut into stretches of T: for pretraining.  Every id but the very first is a label exactly once.

    An end-of-text stands before each document, begins its numbering, and is what its first id is predicted from.
    """

    data: TokenSet
    length: int
    mask: bool = True
    """Whether a token sees its own document only; otherwise the whole row before it."""

    @property
    def rows(self) -> int:
        return max(0, -(-(len(self.data.ids) - 1) // self.length))

    @cached_property
    def digest(self) -> str:
        more = {} if self.mask else {"mask": False}
        return digest_of({"packing": "blocks", "length": self.length, "data": self.data.digest, **more})

    @property
    def losses(self) -> dict[str, float]:
        padding = 1 - (len(self.data.ids) - 1) / max(1, self.rows * self.length)
        return {"padding": padding, "truncated": 0.0, "fully_masked": 0.0}

    @property
    def fates(self) -> dict[str, int]:
        masked = int(np.count_nonzero(self.data.taught == 0))
        return {"kept": len(self.data) - masked, "fully_masked": masked}

    def scores(self, by: str) -> NDArray[np.float64]:
        bounds = np.append(self.data.start, self.data.start[-1] + self.data.tokens[-1]) if len(self.data) else [0]
        sums = np.cumsum(np.append(0.0, score_of(self.data, by) * self.data.tokens))
        ends = np.minimum(np.arange(self.rows + 1) * self.length + 1, len(self.data.ids))
        return np.diff(np.interp(ends, bounds, sums)) / np.maximum(1, np.diff(ends))

    def __getitem__(self, row: int) -> Row:
        start = row * self.length
        ids, taught = self.data.labels(start, start + self.length + 1)
        inputs, labels = ids[:-1], np.where(taught[1:], ids[1:], IGNORED)
        begins = (inputs == self.data.end_of_text_id) & self.mask
        documents = np.cumsum(begins)
        places = np.arange(len(inputs))
        positions = places - np.maximum.accumulate(np.where(begins, places, 0))
        return padded(inputs, labels, positions, documents, self.length)

    def describe(self, row: int) -> list[str]:
        return self.data.documents_between(row * self.length, (row + 1) * self.length + 1)


@dataclass(frozen=True)
class Fit:
    """Whole documents put into rows of T by best fit: for conversations, and wherever documents must not be torn.

    A document goes into the fullest row that still has room, longest documents first (best-fit decreasing: at most
    11/9 of the optimal number of rows, Johnson 1974).  A text longer than a row is cut into several pieces, a dialogue
    is truncated, since what follows would lack its prompt.  Texts begin with an end-of-text, dialogues as when served.
    """

    data: TokenSet
    length: int
    mask: bool = True
    """Whether a token sees its own document only; otherwise the whole row before it."""

    @property
    def rows(self) -> int:
        return len(self._plan[1]) - 1

    @cached_property
    def digest(self) -> str:
        pieces, bounds, _ = self._plan
        plan = hashlib.sha256(pieces.tobytes() + bounds.tobytes()).hexdigest()
        more = {} if self.mask else {"mask": False}
        return digest_of({"packing": "fit", "length": self.length, "data": self.data.digest, "plan": plan, **more})

    @property
    def losses(self) -> dict[str, float]:
        pieces, _, masked = self._plan
        inputs = int(pieces[:, 1].sum())
        of_all = int(self.data.tokens[self.data.taught > 0].sum()) - int(self.data.dialogue.sum()) * 2
        return {
            "padding": 1 - inputs / max(1, self.rows * self.length),
            "truncated": max(0.0, 1 - inputs / max(1, of_all)),
            "fully_masked": float(masked),
        }

    @property
    def fates(self) -> dict[str, int]:
        pieces, _, masked = self._plan
        inputs = np.where(self.data.dialogue, self.data.tokens - 2, self.data.tokens)
        used = np.zeros(len(self.data), bool)
        used[pieces[:, 2]] = True
        long = used & (inputs > self.length)
        cut, truncated = (int(np.count_nonzero(long & which)) for which in (~self.data.dialogue, self.data.dialogue))
        kept = int(np.count_nonzero(used)) - cut - truncated
        return {"kept": kept, "cut": cut, "truncated": truncated, "fully_masked": masked}

    def scores(self, by: str) -> NDArray[np.float64]:
        pieces, bounds, _ = self._plan
        weighted = np.append(score_of(self.data, by)[pieces[:, 2]] * pieces[:, 1], 0.0)
        sizes = np.append(pieces[:, 1], 0)
        return np.add.reduceat(weighted, bounds[:-1]) / np.maximum(1, np.add.reduceat(sizes, bounds[:-1]))

    @cached_property
    def _plan(self) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
        """(start in the stream, number of inputs and document of each piece, bounds of each row in it, left out)."""
        pieces, masked = self._pieces()
        order, bounds = best_fit(pieces[:, 1], self.length)
        return pieces[order], bounds, masked

    def _pieces(self) -> tuple[NDArray[np.int64], int]:
        data, length = self.data, self.length
        inputs = np.where(data.dialogue, np.minimum(data.tokens - 2, length), data.tokens)
        learns = (data.first_taught > 0) & (data.first_taught <= inputs)
        used = ~data.dialogue | learns
        counts = np.where(used, -(-inputs // length), 0)
        document = np.repeat(np.arange(len(data)), counts)
        offset = (np.arange(len(document)) - np.repeat(np.cumsum(counts) - counts, counts)) * length
        start = np.where(data.dialogue, data.start, data.start - 1)[document] + offset
        size = np.minimum(length, inputs[document] - offset)
        return np.stack([start, size, document], axis=1).astype(np.int64), int(len(data) - np.count_nonzero(used))

    def __getitem__(self, row: int) -> Row:
        pieces, bounds, _ = self._plan
        parts: list[tuple[NDArray[np.int64], ...]] = []
        for number, (start, size, _) in enumerate(pieces[bounds[row] : bounds[row + 1]].tolist()):
            ids, taught = self.data.labels(start, start + size + 1)
            labels = np.where(taught[1:], ids[1:], IGNORED)
            parts.append((ids[:-1], labels, np.arange(size), np.full(size, number)))
        tokens, targets, positions, documents = (np.concatenate(column) for column in zip(*parts, strict=True))
        if not self.mask:
            positions, documents = np.arange(len(tokens)), np.zeros(len(tokens), np.int64)
        return padded(tokens, targets, positions, documents, self.length)

    def describe(self, row: int) -> list[str]:
        pieces, bounds, _ = self._plan
        return [self.data.names[number] for number in pieces[bounds[row] : bounds[row + 1], 2].tolist()]


def score_of(data: TokenSet, by: str) -> NDArray[np.float64]:
    """A number for each document.  Raises WuxingError when the tokens were made without it, or records lack it."""
    if by == "length":
        return data.tokens.astype(np.float64)
    if by not in data.scores:
        known = ", ".join(["length", *data.scores])
        raise WuxingError(f'the tokens hold no number "{by}" for a curriculum', f"They hold {known}")
    missing = int(np.count_nonzero(np.isnan(data.scores[by])))
    if missing:
        raise WuxingError(
            f'{missing} of {len(data)} records have no number "{by}" in their meta', "Order by another one"
        )
    return data.scores[by]


def best_fit(sizes: NDArray[np.int64], length: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Best-fit decreasing: (pieces in the order of their rows, bounds of the rows in it).  Sizes are 1 to `length`.

    Longest first, each into the row with the least room that is enough.  Pieces of one size are placed together: as
    long as any are left, the fullest fitting rows take as many as they have room for, which is what one by one does.
    """
    order = np.lexsort((np.arange(len(sizes)), -sizes))
    ordered = sizes[order]
    row_of = np.empty(len(sizes), np.int64)
    groups = [*np.flatnonzero(np.diff(ordered, prepend=-1)).tolist(), len(sizes)]
    open_rows: dict[int, list[NDArray[np.int64]]] = {}
    rooms, rows = 0, 0
    for first, last in pairwise(groups):
        size = int(ordered[first])
        while first < last:
            fitting = rooms >> size
            if fitting:
                room = size + (fitting & -fitting).bit_length() - 1
                waiting = np.concatenate(open_rows.pop(room))
                rooms &= ~(1 << room)
            else:
                room, fresh = length, -(-(last - first) // (length // size))
                waiting = np.arange(rows, rows + fresh)
                rows += fresh
            each = room // size
            taken = -(-(last - first) // each)
            chosen, left = waiting[:taken], waiting[taken:]
            placed = np.repeat(chosen, each)[: last - first]
            row_of[order[first : first + len(placed)]] = placed
            first += len(placed)
            full = len(placed) // each
            for rest, members in ((room, left), (room - each * size, chosen[:full])):
                _open(open_rows, rest, members)
            _open(open_rows, room - (len(placed) - full * each) * size, chosen[full:])
            rooms = sum(1 << room for room in open_rows)
    in_rows = np.lexsort((np.arange(len(sizes)), row_of))
    return in_rows, np.searchsorted(row_of[in_rows], np.arange(rows + 1))


def _open(open_rows: dict[int, list[NDArray[np.int64]]], room: int, members: NDArray[np.int64]) -> None:
    if room and len(members):
        open_rows.setdefault(room, []).append(members)


def pack(data: TokenSet, length: int, whole: bool | None = None, mask: bool = True) -> Packing:
    """Best fit when `whole` or when the data hold dialogues, else blocks.  Raises WuxingError when no row is left."""
    fit = data.has_dialogues if whole is None else whole
    packing: Packing = Fit(data, length, mask) if fit else Blocks(data, length, mask)
    if len(data) and not packing.rows:
        raise WuxingError(
            f"no label of the data is within the first {length} tokens of its document", "Raise length_tokens"
        )
    return packing


def padded(
    tokens: NDArray[np.int64],
    labels: NDArray[np.int64],
    positions: NDArray[np.int64],
    documents: NDArray[np.int64],
    length: int,
) -> Row:
    """A row filled up to `length` with places that hold no token."""
    missing = length - len(tokens)
    fills = ((tokens, 0), (labels, IGNORED), (positions, 0), (documents, PADDING))
    return Row(*(np.concatenate([values, np.full(missing, fill)]) if missing else values for values, fill in fills))
