"""What a finished corpus holds, seen in one pass over its files: sizes, languages, labels, private data, equal content.

Made on columns; keys go to partitions on disk, so memory does not grow with the corpus.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from wuxing.core.splits import SPLITS, records_of, split_path
from wuxing.corpus.engine.equal import Partitions
from wuxing.corpus.engine.histogram import Histogram
from wuxing.corpus.engine.statistics import LABELS, ranked
from wuxing.corpus.fingerprint import KEY_BYTES, content_key, media_key, split_key
from wuxing.corpus.residue import MAY_BE_PRIVATE, private_findings
from wuxing.text.key import keys, scripts

if TYPE_CHECKING:
    import numpy as np
    import pyarrow
    from numpy.typing import NDArray

ROWS_AT_ONCE = 1024
SAMPLED_DOCUMENTS = 1000
_LANGUAGE = r'"language": "(?P<language>[^"\\]+)"'


class _Split:
    """Counts of one split."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.sources: Counter[str] = Counter()
        self.languages: Counter[str] = Counter()
        self.labels: Counter[str] = Counter()
        self.lengths = Histogram()

    def to_json(self) -> dict[str, Any]:
        """As `statistics.json` has it."""
        names = ("records", "documents", "dialogues", "images", "audio", "characters", "bytes")
        labels = ranked(self.labels)
        shown = dict(list(labels.items())[:LABELS])
        if len(labels) > LABELS:
            shown[""] = sum(labels.values()) - sum(shown.values())
        return {
            **{name: self.counts[name] for name in names},
            "sources": ranked(self.sources),
            "languages": ranked(self.languages),
            "labels": shown,
            "lengths": self.lengths.to_json(),
        }


class _Chosen:
    """The documents whose keys are least: a uniform sample, whatever the order."""

    def __init__(self, most: int):
        import numpy as np
        import pyarrow as pa

        self.most = most
        self.keys = np.empty(0, np.uint64)
        self.numbers = np.empty(0, np.int64)
        self.texts = pa.array([], pa.string())

    def offer(self, keys: NDArray[np.uint64], numbers: NDArray[np.int64], texts: pyarrow.Array) -> None:
        """Some documents, with their numbers in the order of the pass."""
        import numpy as np
        import pyarrow as pa

        bound = self.keys[-1] if len(self.keys) >= self.most else np.uint64((1 << 64) - 1)
        among = np.flatnonzero(keys <= bound)
        if not len(among):
            return
        keys = np.concatenate([self.keys, keys[among]])
        least = np.argsort(keys, kind="stable")[: self.most]
        self.keys, self.numbers = keys[least], np.concatenate([self.numbers, numbers[among]])[least]
        self.texts = pa.concat_arrays([self.texts, texts.take(pa.array(among))]).take(pa.array(least))


class Seen:
    """Notes of one pass over the splits; a context, because it keeps keys in files until it is left."""

    def __init__(self, directory: Path, one_in: int = 1):
        import pyarrow.parquet as pq

        self.directory = directory
        self.one_in = one_in
        """Of the texts that can hold private data, one in so many is searched for them."""
        self.may_be_private = 0
        """Texts that can hold private data."""
        self.splits = {split: _Split() for split in SPLITS}
        self.private: Counter[str] = Counter()
        self.total = sum(pq.read_metadata(split_path(directory, split)).num_rows for split in SPLITS)
        self.chosen = [_Chosen(SAMPLED_DOCUMENTS // 2) for _ in range(2)]
        """Documents for a closer look: of the train split, and of those held out."""
        self._files = ExitStack()

    def __enter__(self) -> Seen:
        import tempfile

        work = Path(self._files.enter_context(tempfile.TemporaryDirectory(prefix=".check-", dir=self.directory)))
        self._contents = Partitions(work, "contents", KEY_BYTES, self.total)
        self._openings = Partitions(work, "openings", KEY_BYTES, self.total)
        self._files.enter_context(self._contents)
        self._files.enter_context(self._openings)
        self._look()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._files.close()

    def _look(self) -> None:
        import numpy as np
        import pyarrow.compute as pc

        number = documents = 0
        for place, split in enumerate(SPLITS):
            for batch in batches(self.directory, split):
                self._count(self.splits[split], batch)
                self._find_private(batch)
                numbers = np.arange(number, number + batch.num_rows) * len(SPLITS) + place
                contents, openings = _keys(batch)
                self._contents.add(contents, numbers)
                self._openings.add(openings, numbers)
                texts = batch.column("text")
                own = contents[pc.is_valid(texts).to_numpy(zero_copy_only=False), :8].copy().view(np.uint64).ravel()
                self.chosen[place > 0].offer(own, np.arange(documents, documents + len(own)), texts.drop_null())
                number, documents = number + batch.num_rows, documents + len(own)

    def sample(self) -> tuple[NDArray[np.int64], pyarrow.Array]:
        """Some documents: their numbers among all documents in the order of the splits, rising, and their texts."""
        import numpy as np
        import pyarrow as pa

        numbers = np.concatenate([chosen.numbers for chosen in self.chosen])
        order = np.argsort(numbers)
        return numbers[order], pa.concat_arrays([chosen.texts for chosen in self.chosen]).take(pa.array(order))

    def _count(self, split: _Split, batch: pyarrow.RecordBatch) -> None:
        import numpy as np
        import pyarrow.compute as pc

        lengths = np.zeros(batch.num_rows, np.int64)
        for name, values in (("documents", batch.column("text")), ("dialogues", batch.column("messages"))):
            split.counts[name] += len(values) - values.null_count
        texts, owners = texts_of(batch)
        sizes = pc.utf8_length(texts).to_numpy(zero_copy_only=False)
        np.add.at(lengths, owners, sizes)
        split.counts["records"] += batch.num_rows
        split.counts["characters"] += int(sizes.sum())
        split.counts["bytes"] += pc.sum(pc.binary_length(texts)).as_py() or 0
        for name, column in (("images", "image"), ("audio", "audio")):
            held = pc.binary_length(batch.column(column)).drop_null().to_numpy(zero_copy_only=False)
            split.counts[name] += len(held)
            split.counts["bytes"] += int(held.sum())
            lengths[pc.is_valid(batch.column(column)).to_numpy(zero_copy_only=False)] = held
        split.lengths.add(lengths)
        split.sources.update(_value_counts(batch.column("source")))
        split.labels.update(_value_counts(batch.column("label").drop_null()))
        split.languages.update(languages_of(batch))

    def _find_private(self, batch: pyarrow.RecordBatch) -> None:
        """Texts that can hold private data at all are looked at one by one; so are the texts of their meta."""
        import pyarrow.compute as pc

        for column in (*said(batch), batch.column("label").drop_null()):
            for text in self._taken(column.filter(pc.match_substring_regex(column, MAY_BE_PRIVATE))):
                self.private += private_findings(text)
        meta = batch.column("meta")
        for text in self._taken(meta.filter(pc.match_substring_regex(meta, MAY_BE_PRIVATE))):
            for value in strings_in(json.loads(text)):
                self.private += private_findings(value)

    def _taken(self, texts: pyarrow.Array) -> list[str]:
        """Those that are looked at: all, or one in `one_in`, whatever the cut into batches."""
        first = -self.may_be_private % self.one_in
        self.may_be_private += len(texts)
        return [texts[place].as_py() for place in range(first, len(texts), self.one_in)]

    def equal(self) -> tuple[int, list[tuple[int, int]]]:
        """How many records have content that stood before; and some pairs that meet across a split, as numbers of
        records in the order of the splits, by content or by first question."""
        import numpy as np

        again, crossing = 0, []
        for partitions in (self._contents, self._openings):
            for values, numbers in partitions.read():
                if not len(numbers):
                    continue
                halves = np.ascontiguousarray(values).view(np.uint64).reshape(-1, 2)
                order = np.lexsort((halves[:, 1], halves[:, 0]))
                halves, numbers = halves[order], numbers[order]
                same = (halves[1:] == halves[:-1]).all(axis=1)
                again += int(same.sum()) if partitions is self._contents else 0
                apart = same & (numbers[1:] % len(SPLITS) != numbers[:-1] % len(SPLITS))
                for place in np.flatnonzero(apart)[:1000].tolist():
                    crossing.append((int(numbers[place]) // len(SPLITS), int(numbers[place + 1]) // len(SPLITS)))
        return again, list(dict.fromkeys(crossing))

    def to_json(self) -> dict[str, Any]:
        """The part of `statistics.json` that is about the finished files."""
        splits = {name: split.to_json() for name, split in self.splits.items()}
        return {"splits": splits, "private": dict(sorted(self.private.items()))}


def batches(directory: Path, split: str, columns: list[str] | None = None) -> Iterator[pyarrow.RecordBatch]:
    """The rows of a split, some at a time."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(split_path(directory, split), pre_buffer=False) as file:  # or it reads ahead to the end
        yield from file.iter_batches(ROWS_AT_ONCE, columns=columns, use_threads=False)


def said(batch: pyarrow.RecordBatch) -> list[pyarrow.Array]:
    """Every text of the records, in columns of their own."""
    turns = batch.column("messages").flatten()
    columns = [batch.column("text"), turns.field("content"), batch.column("chosen"), batch.column("rejected")]
    return [column.drop_null() for column in columns]


def texts_of(batch: pyarrow.RecordBatch) -> tuple[pyarrow.Array, NDArray[np.int64]]:
    """The text of each document and each turn of the dialogues, and the row that it belongs to."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    text, messages = batch.column("text"), batch.column("messages")
    documents = np.flatnonzero(pc.is_valid(text).to_numpy(zero_copy_only=False))
    turns = pc.list_parent_indices(messages).to_numpy(zero_copy_only=False)
    texts = pa.concat_arrays([text.drop_null(), messages.flatten().field("content")])
    return texts, np.concatenate([documents, turns]).astype(np.int64)


def whole_texts(batch: pyarrow.RecordBatch) -> pyarrow.Array:
    """One text per record: a document's, or a dialogue's turns joined by a space; empty for others."""
    import pyarrow as pa
    import pyarrow.compute as pc

    text, messages = batch.column("text"), batch.column("messages")
    if messages.null_count == len(messages):
        return pc.fill_null(text, "")
    offsets = np_offsets(messages)
    content = pa.ListArray.from_arrays(offsets, messages.flatten().field("content"))
    return pc.fill_null(pc.coalesce(text, pc.binary_join(content, " ")), "")


def np_offsets(messages: pyarrow.Array) -> pyarrow.Array:
    """Where each list of a (perhaps sliced) column begins in its flattened values."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    lengths = pc.fill_null(pc.list_value_length(messages), 0).to_numpy(zero_copy_only=False)
    return pa.array(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32))


def languages_of(batch: pyarrow.RecordBatch) -> Counter[str]:
    """The language that a step noted of each record, or the script of its text."""
    import pyarrow.compute as pc

    noted = pc.struct_field(pc.extract_regex(batch.column("meta"), _LANGUAGE), "language")
    found = _value_counts(noted.drop_null())
    if noted.null_count:
        found.update(scripts(whole_texts(batch).filter(pc.is_null(noted))))
    return found


def strings_in(value: Any) -> Iterator[str]:
    """Every text of a JSON value, at any depth."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from strings_in(item)


def _value_counts(column: pyarrow.Array) -> Counter[str]:
    return Counter({item["values"]: item["counts"] for item in column.value_counts().to_pylist()})


def _keys(batch: pyarrow.RecordBatch) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Content key and split key of each record."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    contents = np.empty((batch.num_rows, KEY_BYTES), np.uint8)
    openings = contents.copy()
    documents = pc.is_valid(batch.column("text")).to_numpy(zero_copy_only=False)
    contents[documents] = openings[documents] = keys(batch.column("text").drop_null(), b"document")
    for name in ("image", "audio"):
        for row in np.flatnonzero(pc.is_valid(batch.column(name)).to_numpy(zero_copy_only=False)).tolist():
            key = media_key(batch.column(name)[row].as_py(), name.encode())
            contents[row] = openings[row] = np.frombuffer(key, np.uint8)
    talks = np.flatnonzero(pc.is_valid(batch.column("messages")).to_numpy(zero_copy_only=False))
    for row, record in zip(talks.tolist(), records_of(batch.take(pa.array(talks))), strict=True):
        contents[row] = np.frombuffer(content_key(record), np.uint8)
        openings[row] = np.frombuffer(split_key(record), np.uint8)
    return contents, openings
