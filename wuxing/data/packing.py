"""Packing: which stretch of which document stands where in the rows that a model sees.  Planned once, and hashed.

Shapes: T tokens of a row.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
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

    def __getitem__(self, row: int) -> Row: ...

    def describe(self, row: int) -> list[str]:
        """Ids of the records in a row."""
        ...


@dataclass(frozen=True)
class Blocks:
    """The stream cut into stretches of T: for pretraining.  Every id but the very first is a label exactly once.

    An end-of-text stands before each document, begins its numbering, and is what its first id is predicted from.
    """

    data: TokenSet
    length: int

    @property
    def rows(self) -> int:
        return max(0, -(-(len(self.data.ids) - 1) // self.length))

    @cached_property
    def digest(self) -> str:
        return digest_of({"packing": "blocks", "length": self.length, "data": self.data.digest})

    @property
    def losses(self) -> dict[str, float]:
        padding = 1 - (len(self.data.ids) - 1) / max(1, self.rows * self.length)
        return {"padding": padding, "truncated": 0.0, "fully_masked": 0.0}

    def __getitem__(self, row: int) -> Row:
        start = row * self.length
        ids, taught = self.data.labels(start, start + self.length + 1)
        inputs, labels = ids[:-1], np.where(taught[1:], ids[1:], IGNORED)
        begins = inputs == self.data.end_of_text_id
        documents = np.cumsum(begins)
        places = np.arange(len(inputs))
        positions = places - np.maximum.accumulate(np.where(begins, places, 0))
        return _padded(inputs, labels, positions, documents, self.length)

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

    @property
    def rows(self) -> int:
        return len(self._plan[1]) - 1

    @cached_property
    def digest(self) -> str:
        pieces, bounds, _ = self._plan
        plan = hashlib.sha256(pieces.tobytes() + bounds.tobytes()).hexdigest()
        return digest_of({"packing": "fit", "length": self.length, "data": self.data.digest, "plan": plan})

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

    @cached_property
    def _plan(self) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
        """(start in the stream and number of inputs of each piece, bounds of each row in it, documents left out)."""
        pieces, masked = self._pieces()
        order = sorted(range(len(pieces)), key=lambda number: (-pieces[number][1], number))
        rows: list[list[int]] = []
        room: list[list[int]] = [[] for _ in range(self.length + 1)]
        open_rooms = 0
        for number in order:
            size = pieces[number][1]
            fitting = open_rooms >> size
            if fitting:
                left = size + (fitting & -fitting).bit_length() - 1
                row = room[left].pop()
                if not room[left]:
                    open_rooms &= ~(1 << left)
            else:
                left, row = self.length, len(rows)
                rows.append([])
            rows[row].append(number)
            room[left - size].append(row)
            open_rooms |= 1 << (left - size)
        table = np.array([pieces[number] for row in rows for number in row], dtype=np.int64).reshape(-1, 2)
        return table, np.cumsum([0, *map(len, rows)]), masked

    def _pieces(self) -> tuple[list[tuple[int, int]], int]:
        pieces, masked = [], 0
        for start, tokens, dialogue in zip(
            self.data.start.tolist(), self.data.tokens.tolist(), self.data.dialogue.tolist(), strict=True
        ):
            if dialogue:
                size = min(tokens - 2, self.length)
                if size > 0 and bool(self.data.labels(start + 1, start + 1 + size)[1].any()):
                    pieces.append((start, size))
                else:
                    masked += 1
                continue
            for offset in range(0, tokens, self.length):
                pieces.append((start - 1 + offset, min(self.length, tokens - offset)))
        return pieces, masked

    def __getitem__(self, row: int) -> Row:
        pieces, bounds, _ = self._plan
        parts: list[tuple[NDArray[np.int64], ...]] = []
        for number, (start, size) in enumerate(pieces[bounds[row] : bounds[row + 1]].tolist()):
            ids, taught = self.data.labels(start, start + size + 1)
            labels = np.where(taught[1:], ids[1:], IGNORED)
            parts.append((ids[:-1], labels, np.arange(size), np.full(size, number)))
        tokens, targets, positions, documents = (np.concatenate(column) for column in zip(*parts, strict=True))
        return _padded(tokens, targets, positions, documents, self.length)

    def describe(self, row: int) -> list[str]:
        pieces, bounds, _ = self._plan
        stretches = pieces[bounds[row] : bounds[row + 1]].tolist()
        return [name for start, size in stretches for name in self.data.documents_between(start + 1, start + size + 1)]


def pack(data: TokenSet, length: int, whole: bool | None = None) -> Packing:
    """Best fit when `whole` or when the data hold dialogues, else blocks.  Raises WuxingError when no row is left."""
    fit = data.has_dialogues if whole is None else whole
    packing: Packing = Fit(data, length) if fit else Blocks(data, length)
    if len(data) and not packing.rows:
        raise WuxingError(
            f"no label of the data is within the first {length} tokens of its document", "Raise length_tokens"
        )
    return packing


def _padded(
    tokens: NDArray[np.int64],
    labels: NDArray[np.int64],
    positions: NDArray[np.int64],
    documents: NDArray[np.int64],
    length: int,
) -> Row:
    missing = length - len(tokens)
    fills = ((tokens, 0), (labels, IGNORED), (positions, 0), (documents, PADDING))
    return Row(*(np.concatenate([values, np.full(missing, fill)]) if missing else values for values, fill in fills))
