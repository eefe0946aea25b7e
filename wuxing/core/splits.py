"""The files of a corpus: `train.parquet`, `validation.parquet`, `test.parquet`, one record a row.

Tasks have the same layout, so both can be trained on.  Written files are byte-identical for equal records.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from wuxing.core.error import WuxingError, nearest
from wuxing.core.record import Record

if TYPE_CHECKING:
    import numpy as np
    import pyarrow
    from numpy.typing import NDArray

SPLITS = ("train", "validation", "test")
ROWS_PER_GROUP = 8192
BYTES_PER_GROUP = 16 << 20
"""Of text, images and sounds: a row group of long books or pictures has fewer rows."""
PLAIN_FIELDS = tuple(field.name for field in fields(Record) if field.name != "meta")
"""Fields of a record that are columns as they are."""


def corpus_schema() -> pyarrow.Schema:
    """The fields of a record, one column each; meta is a JSON object."""
    import pyarrow as pa

    message = pa.struct([("role", pa.string()), ("content", pa.string())])
    return pa.schema(
        [
            ("id", pa.string()),
            ("source", pa.string()),
            ("text", pa.string()),
            ("messages", pa.list_(message)),
            ("image", pa.binary()),
            ("audio", pa.binary()),
            ("label", pa.string()),
            ("chosen", pa.string()),
            ("rejected", pa.string()),
            ("liked", pa.bool_()),
            ("meta", pa.string()),
        ]
    )


def record_batch(records: Sequence[Record]) -> pyarrow.RecordBatch:
    """Records as one Arrow batch of the corpus schema."""
    import pyarrow as pa

    columns = {name: [getattr(record, name) for record in records] for name in PLAIN_FIELDS}
    columns["meta"] = [json.dumps(r.meta, ensure_ascii=False, sort_keys=True) for r in records]
    schema = corpus_schema()
    return pa.record_batch([pa.array(columns[f.name], f.type) for f in schema], schema=schema)


def records_of(batch: pyarrow.RecordBatch | pyarrow.Table) -> Iterator[Record]:
    """The records of an Arrow batch or table of the corpus schema."""
    for row in batch.to_pylist():
        yield Record(**{name: row.get(name) for name in PLAIN_FIELDS}, meta=json.loads(row["meta"]))


def split_path(directory: Path, split: str) -> Path:
    """The file of one split; WuxingError when `directory` holds none of that name."""
    if split not in SPLITS:
        raise WuxingError(f'"{split}" is no split of a corpus', nearest(split, SPLITS))
    path = directory / f"{split}.parquet"
    if not path.is_file():
        raise WuxingError(f"{directory} has no {split}.parquet", "Give the directory of a corpus or task artifact")
    return path


def read_table(directory: Path, split: str, columns: list[str] | None = None) -> pyarrow.Table:
    """One split as an Arrow table: all columns, or only `columns`."""
    import pyarrow.parquet as pq

    return pq.read_table(split_path(directory, split), columns=columns)


def read_records(directory: Path, split: str) -> Iterator[Record]:
    """The records of one split in file order, a row group at a time."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(split_path(directory, split)) as file:
        for batch in file.iter_batches(batch_size=ROWS_PER_GROUP):
            yield from records_of(batch)


def write_records(directory: Path, split: str, records: Iterable[Record]) -> int:
    """Write one split (an empty one too: the file is always there); returns the number of rows."""
    rows = iter(records)
    with SplitWriter(directory / f"{split}.parquet", corpus_schema()) as writer:
        while group := list(islice(rows, ROWS_PER_GROUP)):
            writer.write(record_batch(group))
        return writer.rows


class SplitWriter:
    """Writes Arrow batches into one Parquet file; equal rows give equal bytes however they were cut into batches."""

    def __init__(self, path: Path, schema: pyarrow.Schema):
        import pyarrow.parquet as pq

        self.rows = 0
        self._schema = schema
        self._waiting: list[pyarrow.RecordBatch] = []
        self._waiting_rows = self._waiting_bytes = 0
        few_values = [name for name in ("source", "label", "fate", "step") if name in schema.names]
        self._writer = pq.ParquetWriter(
            path, schema, compression="zstd", compression_level=2, use_dictionary=few_values or False
        )

    def write(self, batch: pyarrow.RecordBatch) -> None:
        """Add rows; a row group goes to the file when it is full."""
        self._waiting.append(batch)
        self._waiting_rows += batch.num_rows
        self._waiting_bytes += int(_row_bytes(batch).sum())
        self.rows += batch.num_rows
        if self._waiting_rows >= ROWS_PER_GROUP or self._waiting_bytes >= BYTES_PER_GROUP:
            self._flush(last=False)

    def _flush(self, last: bool) -> None:
        import numpy as np
        import pyarrow as pa

        table = pa.Table.from_batches(self._waiting, schema=self._schema)
        ends = np.cumsum(np.concatenate([_row_bytes(batch) for batch in self._waiting] or [np.zeros(0, np.int64)]))
        start = 0
        while start < table.num_rows:
            before = int(ends[start - 1]) if start else 0
            full = int(np.searchsorted(ends, before + BYTES_PER_GROUP)) + 1  # the row that fills it goes in
            stop = min(full, start + ROWS_PER_GROUP)
            if stop > table.num_rows:
                if not last:
                    break
                stop = table.num_rows
            group = table.slice(start, stop - start).combine_chunks()
            self._writer.write_table(group, row_group_size=ROWS_PER_GROUP)
            start = stop
        self._waiting = table.slice(start).to_batches() if start < table.num_rows else []
        self._waiting_rows = table.num_rows - start
        self._waiting_bytes = int(ends[-1]) - (int(ends[start - 1]) if start else 0) if self._waiting else 0

    def __enter__(self) -> SplitWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if kind is None:
            self._flush(last=True)
        self._writer.close()


def _row_bytes(batch: pyarrow.RecordBatch) -> NDArray[np.int64]:
    """Bytes of text, images and sounds in each row."""
    import numpy as np
    import pyarrow.compute as pc

    sizes = np.zeros(batch.num_rows, np.int64)
    for name in ("text", "image", "audio"):
        if name in batch.schema.names and batch.column(name).null_count < batch.num_rows:
            sizes += pc.fill_null(pc.binary_length(batch.column(name)), 0).to_numpy(zero_copy_only=False)
    return sizes
