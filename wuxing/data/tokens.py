"""Tokens on disk: one memory-mapped stream of ids per split, an index of its documents, and which ids are taught.

`<split>.bin` is `<|endoftext|> document <|endoftext|> document <|endoftext|> ...` in little-endian uint16 or uint32,
`<split>.mask` one byte per id (absent when every id is taught), `<split>.documents.parquet` one row per document:
id, start, tokens (its end-of-text included), taught, bytes (of the text it stands for), dialogue.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wuxing.core.digest import digest_of, digest_of_file
from wuxing.core.error import WuxingError
from wuxing.core.file import read_json

DESCRIPTION = "tokens.json"


@dataclass(frozen=True)
class TokenSet:
    """One split of a tokens artifact, opened without reading it."""

    ids: NDArray[Any]
    mask: NDArray[np.uint8] | None
    names: Sequence[str]
    start: NDArray[np.int64]
    tokens: NDArray[np.int64]
    taught: NDArray[np.int64]
    dialogue: NDArray[np.bool_]
    bytes: int
    end_of_text_id: int
    vocab_size: int
    digest: str
    """Digest of the split's files: what the sample plan is keyed on."""

    def __len__(self) -> int:
        """Documents."""
        return len(self.start)

    @cached_property
    def has_dialogues(self) -> bool:
        return bool(self.dialogue.any())

    def labels(self, start: int, stop: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """(ids, whether each is taught) of a stretch of the stream."""
        ids = np.asarray(self.ids[start:stop], dtype=np.int64)
        taught = np.ones(len(ids), bool) if self.mask is None else np.asarray(self.mask[start:stop], dtype=bool)
        return ids, taught

    def documents_between(self, start: int, stop: int) -> list[str]:
        """Ids of the records that have a token in [start, stop)."""
        first = int(np.searchsorted(self.start, start, side="right")) - 1
        last = int(np.searchsorted(self.start, stop, side="left"))
        return [self.names[number] for number in range(max(first, 0), last)]


def open_tokens(directory: Path, split: str) -> TokenSet:
    """Open one split of a tokens artifact.  Raises WuxingError when it is not there."""
    import pyarrow.parquet as pq

    if not (directory / DESCRIPTION).exists():
        raise WuxingError(f"{directory} holds no tokens", "Give a tokens artifact")
    description = read_json(directory / DESCRIPTION)
    if split not in description["splits"]:
        raise WuxingError(f"{directory} has no tokens of {split}", f"It has {', '.join(description['splits'])}")
    counts = description["splits"][split]
    table = pq.read_table(directory / f"{split}.documents.parquet")
    mask = directory / f"{split}.mask"
    column = {name: table[name].to_numpy() for name in ("start", "tokens", "taught", "dialogue")}
    return TokenSet(
        ids=np.memmap(directory / f"{split}.bin", dtype=description["dtype"], mode="r"),
        mask=np.memmap(mask, dtype=np.uint8, mode="r") if mask.exists() else None,
        names=table["id"].to_pylist(),
        start=column["start"],
        tokens=column["tokens"],
        taught=column["taught"],
        dialogue=column["dialogue"],
        bytes=counts["bytes"],
        end_of_text_id=description["end_of_text_id"],
        vocab_size=description["vocab_size"],
        digest=counts["digest"],
    )


class TokenWriter:
    """Writes one split, document after document; memory does not grow with the text."""

    def __init__(self, directory: Path, split: str, vocab_size: int, end_of_text_id: int):
        self.dtype = "<u2" if vocab_size <= 1 << 16 else "<u4"
        self.directory, self.split, self.vocab_size, self.end = directory, split, vocab_size, end_of_text_id
        self.place, self.all_taught, self.largest = 1, True, end_of_text_id
        self.columns: dict[str, list[Any]] = {
            name: [] for name in ("id", "start", "tokens", "taught", "bytes", "dialogue")
        }
        self._ids = open(directory / f"{split}.bin", "wb")  # noqa: SIM115
        self._mask = open(directory / f"{split}.mask", "wb")  # noqa: SIM115
        self._put([end_of_text_id], [False])

    def write(self, id: str, ids: list[int], taught: list[bool] | None, size: int) -> None:
        """Add a document of `size` bytes: text when `taught` is None (all of it is taught), a dialogue otherwise."""
        mask = [True] * (len(ids) + 1) if taught is None else [*taught, False]
        self._put([*ids, self.end], mask)
        self.all_taught = self.all_taught and all(mask)
        self.largest = max(self.largest, *ids) if ids else self.largest
        row = (id, self.place, len(ids) + 1, sum(mask), size, taught is not None)
        for column, value in zip(self.columns.values(), row, strict=True):
            column.append(value)
        self.place += len(ids) + 1

    def _put(self, ids: list[int], mask: list[bool]) -> None:
        self._ids.write(np.asarray(ids, dtype=self.dtype).tobytes())
        self._mask.write(np.asarray(mask, dtype=np.uint8).tobytes())

    def finish(self) -> dict[str, Any]:
        """Write the index; returns the counts of the split and its digest."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        types = (pa.string(), pa.int64(), pa.int64(), pa.int64(), pa.int64(), pa.bool_())
        arrays = [pa.array(values, kind) for values, kind in zip(self.columns.values(), types, strict=True)]
        pq.write_table(
            pa.table(arrays, names=list(self.columns)),
            self.directory / f"{self.split}.documents.parquet",
            compression="zstd",
        )
        if self.all_taught:
            (self.directory / f"{self.split}.mask").unlink()
        files = [f"{self.split}{end}" for end in (".bin", ".mask", ".documents.parquet")]
        paths = [self.directory / name for name in files]
        return {
            "documents": len(self.columns["id"]),
            "tokens": int(sum(self.columns["tokens"])),
            "taught": int(sum(self.columns["taught"])),
            "bytes": int(sum(self.columns["bytes"])),
            "fully_masked": sum(taught == 0 for taught in self.columns["taught"]),
            "digest": digest_of({path.name: digest_of_file(path) for path in paths if path.exists()}),
        }

    def __enter__(self) -> TokenWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._ids.close()
        self._mask.close()
