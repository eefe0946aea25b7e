"""Tokens on disk: per split a stream of ids in memory-mapped shards, an index of its documents, and what is taught.

The stream of a split is `<|endoftext|> document <|endoftext|> document <|endoftext|> ...`.  A shard `<split>/00000` is
a stretch of it: `.bin` the ids in little-endian uint16 or uint32, `.mask` one byte per id (absent when every id is
taught), `.parquet` one row per document, `.json` its counts and digests.  `train.rejected/` holds the worse replies of
preferences, one for each document of `train/` whose `pair` is set, in the same order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wuxing.core.error import WuxingError
from wuxing.core.file import read_json

DESCRIPTION = "tokens.json"
FORMAT = 2
"""Of the files; another one has another layout."""
REJECTED = ".rejected"
"""After the name of a split: the worse replies of its preferences."""


class Stream:
    """Files of numbers, one behind the other, read where they are asked for: `stream[5:9]` is an array."""

    def __init__(self, paths: Sequence[Path | None], sizes: Sequence[int], dtype: str):
        """A path that is None stands for ones."""
        self.dtype = np.dtype(dtype)
        self._paths = paths
        self._ends = np.cumsum(sizes, dtype=np.int64)
        self._open: dict[int, NDArray[Any]] = {}

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def __getitem__(self, key: slice) -> NDArray[Any]:
        start, stop, step = key.indices(len(self))
        assert step == 1, "a stream is read in stretches"
        parts = []
        shard = int(np.searchsorted(self._ends, start, side="right"))
        while start < stop:
            end = int(self._ends[shard])
            begin = int(self._ends[shard - 1]) if shard else 0
            last = min(stop, end)
            parts.append(self._part(shard, start - begin, last - begin))
            start, shard = last, shard + 1
        if len(parts) == 1:
            return parts[0]
        return np.concatenate([np.empty(0, self.dtype), *parts])

    def _part(self, shard: int, start: int, stop: int) -> NDArray[Any]:
        path = self._paths[shard]
        if path is None:
            return np.ones(stop - start, self.dtype)
        if shard not in self._open:
            self._open[shard] = np.memmap(path, dtype=self.dtype, mode="r")
        return np.asarray(self._open[shard][start:stop])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return self[0 : len(self)].astype(dtype or self.dtype)


class Names(Sequence[str]):
    """The ids of the records behind the documents; a shard's are read when one of them is asked for."""

    def __init__(self, paths: Sequence[Path], sizes: Sequence[int]):
        self._paths, self._ends = paths, np.cumsum(sizes, dtype=np.int64)
        self._shard, self._names = -1, None

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def __getitem__(self, number: Any) -> Any:
        import pyarrow.parquet as pq

        if not 0 <= number < len(self):
            raise IndexError(f"there is no document {number}")
        shard = int(np.searchsorted(self._ends, number, side="right"))
        if shard != self._shard:
            self._shard, self._names = shard, pq.read_table(self._paths[shard], columns=["id"])["id"]
        assert self._names is not None
        return self._names[number - (int(self._ends[shard - 1]) if shard else 0)].as_py()


@dataclass(frozen=True)
class TokenSet:
    """One split of a tokens artifact, opened without reading it."""

    ids: Stream
    mask: Stream | None
    names: Sequence[str]
    start: NDArray[np.int64]
    tokens: NDArray[np.int64]
    """Ids of each document, its end-of-text included."""
    taught: NDArray[np.int64]
    first_taught: NDArray[np.int64]
    """Place in the document, from 1, of its first id that is taught; -1 where there is none."""
    dialogue: NDArray[np.bool_]
    pair: NDArray[np.bool_]
    """Whether the document is the better reply of a preference."""
    liked: NDArray[np.int8]
    """1 liked, 0 not liked, -1 nobody said."""
    bytes: int
    end_of_text_id: int
    vocab_size: int
    digest: str
    """Digest of the split's files: what the sample plan is keyed on."""
    scores: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    """Numbers of the records' meta, by name; NaN where a record has none."""

    def __len__(self) -> int:
        """Documents."""
        return len(self.start)

    @cached_property
    def has_dialogues(self) -> bool:
        return bool(self.dialogue.any())

    def labels(self, start: int, stop: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """(ids, whether each is taught) of a stretch of the stream."""
        ids = self.ids[start:stop].astype(np.int64)
        taught = np.ones(len(ids), bool) if self.mask is None else self.mask[start:stop].astype(bool)
        return ids, taught

    def documents_between(self, start: int, stop: int) -> list[str]:
        """Ids of the records that have a token in [start, stop)."""
        first = int(np.searchsorted(self.start, start, side="right")) - 1
        last = int(np.searchsorted(self.start, stop, side="left"))
        return [self.names[number] for number in range(max(first, 0), last)]


def describe(directory: Path) -> dict[str, Any]:
    """What `tokens.json` says.  Raises WuxingError where there is none, or one of another format."""
    if not (directory / DESCRIPTION).exists():
        raise WuxingError(f"{directory} holds no tokens", "Give a tokens artifact")
    description: dict[str, Any] = read_json(directory / DESCRIPTION)
    if description.get("format") != FORMAT:
        raise WuxingError(f"{directory} was written by another version of Wuxing", "Make it anew: wuxing run RECIPE")
    return description


def open_tokens(directory: Path, split: str) -> TokenSet:
    """Open one split of a tokens artifact.  Raises WuxingError when it is not there."""
    description = describe(directory)
    if split not in description["splits"]:
        raise WuxingError(f"{directory} has no tokens of {split}", f"It has {', '.join(description['splits'])}")
    counts = description["splits"][split]
    shards = counts["shards"]
    stems = [directory / split / f"{shard['number']:05d}" for shard in shards]
    sizes = [shard["ids"] for shard in shards]
    masks = [stem.with_suffix(".mask") if shard["masked"] else None for stem, shard in zip(stems, shards, strict=True)]
    scores = tuple(description.get("scores", ()))
    column = _columns([stem.with_suffix(".parquet") for stem in stems], scores)
    return TokenSet(
        ids=Stream([stem.with_suffix(".bin") for stem in stems], sizes, description["dtype"]),
        mask=Stream(masks, sizes, "u1") if any(masks) else None,
        names=Names([stem.with_suffix(".parquet") for stem in stems], [shard["documents"] for shard in shards]),
        start=_starts(shards, column["tokens"]),
        tokens=column["tokens"],
        taught=column["taught"],
        first_taught=column["first_taught"],
        dialogue=column["dialogue"].astype(bool),
        pair=column["pair"].astype(bool),
        liked=column["liked"].astype(np.int8),
        bytes=counts["bytes"],
        end_of_text_id=description["end_of_text_id"],
        vocab_size=description["vocab_size"],
        digest=counts["digest"],
        scores={name: column[f"score.{name}"] for name in scores},
    )


def _starts(shards: Sequence[dict[str, Any]], tokens: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where each document begins: behind all before it and the ends-of-text that lead shards."""
    leads = np.cumsum([shard["leads"] for shard in shards], dtype=np.int64)
    before = np.repeat(leads, [shard["documents"] for shard in shards])
    starts: NDArray[np.int64] = np.cumsum(tokens) - tokens + before
    return starts


def _columns(paths: Sequence[Path], scores: Sequence[str]) -> dict[str, NDArray[Any]]:
    import pyarrow.parquet as pq

    names = ["tokens", "taught", "first_taught", "dialogue", "pair", "liked", *(f"score.{name}" for name in scores)]
    tables = [pq.read_table(path, columns=names) for path in paths]
    empty = np.empty(0, np.int64)
    return {name: np.concatenate([empty, *(table[name].to_numpy() for table in tables)]) for name in names} | {
        name: np.concatenate([empty, *(table[name].to_numpy() for table in tables)]).astype(np.int64)
        for name in ("tokens", "taught", "first_taught")
    }
