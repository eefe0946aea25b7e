"""One shard of tokens: some row groups of a split, encoded and written whole or not at all.

A shard depends on its rows, the tokenizer and nothing else, so any worker may make it, and a killed run makes only
those that are missing.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from wuxing.core.digest import digest_of_file
from wuxing.core.file import read_json, sync, write_json
from wuxing.core.splits import ROWS_PER_GROUP
from wuxing.data.tokens import REJECTED
from wuxing.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    import pyarrow
    import pyarrow.parquet as pq

    from wuxing.data.earlier import Earlier

ROWS_AT_ONCE = 1024
ROUND_TRIPS = 100
"""Documents of each shard that are decoded again and compared."""
INDEX = ("id", "tokens", "taught", "first_taught", "bytes", "dialogue", "pair", "liked", "content")
COLUMNS = ("id", "text", "messages", "chosen", "rejected", "liked")


@dataclass(frozen=True)
class Task:
    """What a worker needs to make one shard."""

    source: Path
    """The Parquet file of the split."""
    groups: tuple[int, int]
    """From which row group up to which."""
    directory: Path
    """Of the draft."""
    split: str
    number: int
    scores: tuple[str, ...] = ()

    def stem(self, rejected: bool = False) -> Path:
        """Where its files are, without their ends."""
        return self.directory / (self.split + REJECTED * rejected) / f"{self.number:05d}"


@dataclass
class Document:
    """One document on its way to the disk."""

    id: str
    ids: NDArray[np.uint32]
    taught: NDArray[np.bool_] | None
    """None: text, all of which is taught."""
    size: int
    """Bytes of the text that is taught."""
    content: bytes
    pair: bool = False
    liked: int = -1
    scores: tuple[float, ...] = ()


class TokenWriter:
    """Writes one shard, document after document; memory does not grow with their number."""

    def __init__(self, stem: Path, vocab_size: int, end_of_text_id: int, leads: bool, scores: Sequence[str] = ()):
        """`leads`: an end-of-text stands before its first document, since no shard before it ends with one."""
        self.dtype, self.end, self.stem, self.scores = dtype_of(vocab_size), end_of_text_id, stem, tuple(scores)
        stem.parent.mkdir(parents=True, exist_ok=True)
        self._columns: dict[str, list[Any]] = {name: [] for name in (*INDEX, *(f"score.{name}" for name in scores))}
        self.ids, self.largest, self.all_taught = 0, end_of_text_id, True
        self._sums = dict.fromkeys(("documents", "tokens", "taught", "bytes", "fully_masked"), 0)
        self._index = _index_of(self._draft(".parquet"), scores)
        self._ids = open(self._draft(".bin"), "wb")  # noqa: SIM115
        self._mask = open(self._draft(".mask"), "wb")  # noqa: SIM115
        self.leads = leads
        if leads:
            self._put(np.array([end_of_text_id], np.uint32), np.zeros(1, bool))

    def _draft(self, end: str) -> Path:
        return self.stem.with_name(f".{self.stem.name}{end}.draft")

    def write(self, documents: Sequence[Document]) -> None:
        """Add documents."""
        end, no_end = np.array([self.end], np.uint32), np.zeros(1, bool)
        ids: list[NDArray[np.uint32]] = []
        masks: list[NDArray[np.bool_]] = []
        for document in documents:
            taught, size = document.taught, len(document.ids) + 1
            ids += [document.ids, end]
            if taught is None:
                masks.append(np.ones(size, bool))
                learnt, first = size, 1 if size > 1 else -1
            else:
                masks += [taught, no_end]
                places = np.flatnonzero(taught[1:])
                learnt, first = int(np.count_nonzero(taught)), int(places[0]) + 1 if len(places) else -1
                self.all_taught = False
            row = (document.id, size, learnt, first, document.size, taught is not None, document.pair, document.liked)
            for column, value in zip(self._columns.values(), (*row, document.content, *document.scores), strict=True):
                column.append(value)
        if len(self._columns["id"]) >= ROWS_PER_GROUP:
            self._flush()
        if ids:
            whole = np.concatenate(ids)
            self.largest = max(self.largest, int(whole.max()))
            self._put(whole, np.concatenate(masks))

    def _put(self, ids: NDArray[np.uint32], mask: NDArray[np.bool_]) -> None:
        self._ids.write(ids.astype(self.dtype).tobytes())
        self._mask.write(mask.astype(np.uint8).tobytes())
        self.ids += len(ids)

    def _flush(self) -> None:
        """Move the rows of the index to its file."""
        import pyarrow as pa

        taught = self._columns["taught"]
        for name in ("tokens", "taught", "bytes"):
            self._sums[name] += sum(self._columns[name])
        self._sums["documents"] += len(taught)
        self._sums["fully_masked"] += sum(count == 0 for count in taught)
        arrays = [
            pa.array(values, kind)
            for values, kind in zip(self._columns.values(), self._index.schema.types, strict=True)
        ]
        self._index.write_table(pa.table(arrays, schema=self._index.schema))
        for column in self._columns.values():
            column.clear()

    def finish(self) -> dict[str, Any]:
        """Write the index and give the files their names; returns counts and digests."""
        self._flush()
        self.close()
        ends = [".bin", *([] if self.all_taught else [".mask"]), ".parquet"]
        digests = {}
        for end in ends:
            sync(self._draft(end))
            digests[end] = digest_of_file(self._draft(end))
            os.replace(self._draft(end), self.stem.with_suffix(end))
        self._draft(".mask").unlink(missing_ok=True)
        sync(self.stem.parent)
        return {
            "number": int(self.stem.name),
            "leads": self.leads,
            "ids": self.ids,
            **self._sums,
            "largest": self.largest,
            "masked": not self.all_taught,
            "digests": digests,
        }

    def close(self) -> None:
        """Close the files."""
        self._ids.close()
        self._mask.close()
        self._index.close()


def _index_of(path: Path, scores: Sequence[str]) -> pq.ParquetWriter:
    import pyarrow as pa
    import pyarrow.parquet as pq

    long, flag = pa.int64(), pa.bool_()
    types = [pa.string(), long, long, long, long, flag, flag, pa.int8(), pa.binary(16)]
    fields = [*zip(INDEX, types, strict=True), *((f"score.{name}", pa.float64()) for name in scores)]
    return pq.ParquetWriter(path, pa.schema(fields), compression="zstd")


def dtype_of(vocab_size: int) -> str:
    """The numbers on disk: two bytes each where the vocabulary allows."""
    return "<u2" if vocab_size <= 1 << 16 else "<u4"


def finished(task: Task) -> dict[str, Any] | None:
    """The note of a shard that an earlier attempt wrote whole; None when a byte of it is missing."""
    path = task.stem().with_suffix(".json")
    if not path.is_file():
        return None
    note: dict[str, Any] = read_json(path)
    for stem, counts in ((task.stem(), note["counts"]), (task.stem(rejected=True), note["rejected"])):
        for end, digest in (counts or {}).get("digests", {}).items():
            file = stem.with_suffix(end)
            if not file.is_file() or digest_of_file(file) != digest:
                return None
    return note


def make_shard(task: Task, tokenizer: Tokenizer, earlier: Earlier | None) -> dict[str, Any]:
    """Encode and write one shard; the note is written last, and returned."""
    known = finished(task)
    if known is not None:
        return known
    size, end = tokenizer.vocab_size, tokenizer.end_of_text_id
    writer = TokenWriter(task.stem(), size, end, task.number == 0, task.scores)
    other: TokenWriter | None = None
    unequal: list[str] = []
    rows = reused = without = checked = 0
    try:
        for batch in _batches(task):
            rows += batch.num_rows
            made = _Encoding(batch, tokenizer, earlier, task)
            documents, rejected = made.documents()
            texts = [document for document in documents if document.taught is None][: ROUND_TRIPS - checked]
            checked += len(texts)
            unequal += made.unequal(texts)
            writer.write(documents)
            if rejected:
                other = other or TokenWriter(task.stem(True), size, end, True)
                other.write(rejected)
            reused, without = reused + made.reused, without + made.without
        note = {
            "rows": rows,
            "no_text": without,
            "counts": writer.finish(),
            "rejected": other.finish() if other else None,
            "unequal": unequal,
        }
    finally:
        writer.close()
        if other:
            other.close()
    write_json(task.stem().with_suffix(".json"), note)
    return {**note, "reused": reused}


def _batches(task: Task) -> Iterator[pyarrow.RecordBatch]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(task.source) as file:
        names = [*COLUMNS, "meta"] if task.scores else list(COLUMNS)
        columns = [name for name in names if name in file.schema_arrow.names]
        groups = list(range(*task.groups))
        if groups:
            yield from file.iter_batches(batch_size=ROWS_AT_ONCE, row_groups=groups, columns=columns)


class _Encoding:
    """The documents of one batch of rows: texts as one array, dialogues as their pieces; known ones are copied."""

    def __init__(self, batch: pyarrow.RecordBatch, tokenizer: Tokenizer, earlier: Earlier | None, task: Task):
        self.tokenizer, self.earlier, self.task = tokenizer, earlier, task
        names = set(batch.schema.names)
        rows = batch.num_rows
        self.columns: dict[str, list[Any]] = {
            name: batch[name].to_pylist() if name in names else [None] * rows for name in (*COLUMNS, "meta")
        }
        self.without = 0
        self.reused = 0

    def unequal(self, documents: Sequence[Document]) -> list[str]:
        """The names of documents whose ids decode to another text than theirs."""
        texts = dict(zip(self.columns["id"], self.columns["text"], strict=True))
        return [
            one.id
            for one in documents
            if self.tokenizer.decode(one.ids.tolist(), skip_special=False) != self.tokenizer.normal(texts[one.id])
        ]

    def documents(self) -> tuple[list[Document], list[Document]]:
        """Each record's document, in order, and those of the rejected replies."""
        told: list[tuple[int, Any]] = []
        for row, (text, messages) in enumerate(zip(self.columns["text"], self.columns["messages"], strict=True)):
            chosen, rejected = self.columns["chosen"][row], self.columns["rejected"][row]
            if text is not None:
                told.append((row, text))
            elif messages is not None and chosen is not None:
                told += [(row, [*messages, _reply(chosen)]), (row, [*messages, _reply(rejected or "")])]
            elif messages is not None:
                told.append((row, messages))
            else:
                self.without += 1
        made = iter(zip(told, self._encoded([content for _, content in told]), strict=True))
        better, worse = [], []
        for (row, _), (ids, taught, size, content) in made:
            document = self._document(row, ids, taught, size, content)
            better.append(document)
            if self.columns["chosen"][row] is not None and taught is not None:
                document.pair = True
                worse.append(self._document(row, *next(made)[1]))
                worse[-1].scores = ()
        return better, worse

    def _document(
        self, row: int, ids: NDArray[np.uint32], taught: NDArray[np.bool_] | None, size: int, content: bytes
    ) -> Document:
        liked = self.columns["liked"][row]
        scores: tuple[float, ...] = ()
        if self.task.scores:
            meta = json.loads(self.columns["meta"][row])
            scores = tuple(_number(meta.get(name)) for name in self.task.scores)
        flag = -1 if liked is None else int(liked)
        return Document(self.columns["id"][row], ids, taught, size, content, liked=flag, scores=scores)

    def _encoded(self, told: list[Any]) -> list[tuple[NDArray[np.uint32], NDArray[np.bool_] | None, int, bytes]]:
        raw = [content_of(content) for content in told]
        found: list[Any] = self.earlier.find(raw) if self.earlier else [None] * len(told)
        self.reused += sum(one is not None for one in found)
        new = [number for number, one in enumerate(found) if one is None]
        texts = [number for number in new if isinstance(told[number], str)]
        ids, ends = self.tokenizer.encode_flat([told[number] for number in texts])
        starts = [0, *ends[:-1].tolist()] if len(ends) else []
        for number, start, end in zip(texts, starts, ends.tolist(), strict=True):
            found[number] = (ids[start:end], None, len(told[number].encode()))
        talks = [number for number in new if not isinstance(told[number], str)]
        for number, (spoken, taught) in zip(
            talks, self.tokenizer.encode_dialogues([told[number] for number in talks]), strict=True
        ):
            found[number] = (spoken, taught, len(self.tokenizer.bytes_of(spoken[taught].tolist())))
        return [(*one, content) for one, content in zip(found, raw, strict=True)]


def content_of(told: str | list[dict[str, str]]) -> bytes:
    """16 bytes that stand for a text or a dialogue."""
    text = told if isinstance(told, str) else json.dumps([[m["role"], m["content"]] for m in told])
    return hashlib.blake2b(text.encode(), digest_size=16, person=b"text" if isinstance(told, str) else b"talk").digest()


def _reply(content: str) -> dict[str, str]:
    return {"role": "assistant", "content": content}


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else float("nan")
