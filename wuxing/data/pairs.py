"""Preferences: the better and the worse reply to one prompt, each a row of its own, always in the same batch."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wuxing.core.digest import digest_of
from wuxing.core.error import WuxingError
from wuxing.data.packing import IGNORED, Row, padded, score_of
from wuxing.data.tokens import REJECTED, TokenSet, describe, open_tokens


@dataclass(frozen=True)
class Pairs:
    """One pair is one row of the plan and two rows of the batch: the better reply, then the worse one.

    A dialogue longer than `length` is truncated.  A pair of which one side has no label left is left out and counted.
    """

    better: TokenSet
    worse: TokenSet
    length: int

    @cached_property
    def _pairs(self) -> NDArray[np.int64]:
        """(document of the better reply, of the worse one) of each pair that can teach."""
        first = np.flatnonzero(self.better.pair)
        assert len(first) == len(self.worse), "each pair has two sides"
        second = np.arange(len(self.worse))
        both = _learns(self.better, first, self.length) & _learns(self.worse, second, self.length)
        return np.stack([first[both], second[both]], axis=1)

    @property
    def rows(self) -> int:
        return len(self._pairs)

    @cached_property
    def digest(self) -> str:
        data = [self.better.digest, self.worse.digest]
        return digest_of({"packing": "pairs", "length": self.length, "data": data})

    @property
    def losses(self) -> dict[str, float]:
        sides = ((self.better, self._pairs[:, 0]), (self.worse, self._pairs[:, 1]))
        inputs = np.concatenate([data.tokens[documents] - 2 for data, documents in sides])
        kept = np.minimum(inputs, self.length)
        return {
            "padding": 1 - int(kept.sum()) / max(1, 2 * self.rows * self.length),
            "truncated": 1 - int(kept.sum()) / max(1, int(inputs.sum())),
            "fully_masked": float(self.fates["fully_masked"]),
        }

    @property
    def fates(self) -> dict[str, int]:
        first, second = self._pairs.T
        long = (self.better.tokens[first] - 2 > self.length) | (self.worse.tokens[second] - 2 > self.length)
        truncated, pairs = int(np.count_nonzero(long)), len(self.worse)
        others = len(self.better) - pairs
        kept = self.rows - truncated
        return {"kept": kept, "truncated": truncated, "fully_masked": pairs - self.rows, "no_pair": others}

    def scores(self, by: str) -> NDArray[np.float64]:
        """`by` of the better reply."""
        return score_of(self.better, by)[self._pairs[:, 0]]

    def __getitem__(self, row: int) -> tuple[Row, Row]:
        first, second = self._pairs[row].tolist()
        return self._row(self.better, first), self._row(self.worse, second)

    def _row(self, data: TokenSet, document: int) -> Row:
        start, size = int(data.start[document]), int(min(data.tokens[document] - 2, self.length))
        ids, taught = data.labels(start, start + size + 1)
        labels = np.where(taught[1:], ids[1:], IGNORED)
        return padded(ids[:-1], labels, np.arange(size), np.zeros(size, np.int64), self.length)

    def describe(self, row: int) -> list[str]:
        return [self.better.names[int(self._pairs[row, 0])]]


def open_pairs(directory: Path, split: str, length: int) -> Pairs:
    """The preferences of a tokens artifact.  Raises WuxingError when it holds none."""
    if split + REJECTED not in describe(directory)["splits"]:
        raise WuxingError(f"{directory} holds no preferences ({split})", "Its records need chosen and rejected")
    return Pairs(open_tokens(directory, split), open_tokens(directory, split + REJECTED), length)


def _learns(data: TokenSet, documents: NDArray[np.int64], length: int) -> NDArray[np.bool_]:
    first = data.first_taught[documents]
    learns: NDArray[np.bool_] = (first > 0) & (first <= np.minimum(data.tokens[documents] - 2, length))
    return learns
