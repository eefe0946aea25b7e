"""Features on disk: one Parquet file per split, a row per record, a column per transform.

A dense part is a list of fixed length; a sparse one a struct of `indices` (of its columns) and `values`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from scipy import sparse

from wuxing.core.error import WuxingError, nearest
from wuxing.core.file import read_json
from wuxing.core.splits import SPLITS
from wuxing.feature.transform import Rows, Transform, load_transform, side_by_side

if TYPE_CHECKING:
    from types import TracebackType

    from wuxing.feature.fitted import Matrix

ROWS_PER_GROUP = 4096


def matrix_path(directory: Path, split: str) -> Path:
    """The file of one split's features."""
    return directory / "matrix" / f"{split}.parquet"


def schema_of(transform: Transform) -> pa.Schema:
    """id, label, then each part."""
    fields = [("id", pa.string()), ("label", pa.string())]
    for part in transform.parts:
        kind = pa.struct([("indices", pa.list_(pa.int32())), ("values", pa.list_(pa.float32()))])
        fields.append((part.label, kind if part.fitted.sparse else pa.list_(pa.float32(), len(part.fitted.names))))
    return pa.schema(fields)


class MatrixWriter:
    """Writes rows in groups of `ROWS_PER_GROUP`, however they were cut."""

    def __init__(self, path: Path, schema: pa.Schema):
        path.parent.mkdir(parents=True, exist_ok=True)
        self.rows = 0
        self._schema = schema
        self._waiting: list[pa.RecordBatch] = []
        self._count = 0
        self._writer = pq.ParquetWriter(path, schema, compression="zstd")

    def write(self, rows: Rows) -> None:
        """Add rows."""
        columns = [pa.array(rows.ids, pa.string()), pa.array(rows.labels, pa.string())]
        columns += [
            _column(block, field.type) for block, field in zip(rows.blocks, list(self._schema)[2:], strict=True)
        ]
        self._waiting.append(pa.record_batch(columns, schema=self._schema))
        self._count += len(rows.ids)
        self.rows += len(rows.ids)
        if self._count >= ROWS_PER_GROUP:
            self._flush(last=False)

    def _flush(self, last: bool) -> None:
        table = pa.Table.from_batches(self._waiting, schema=self._schema)
        start = 0
        while len(table) - start >= ROWS_PER_GROUP or (last and start < len(table)):
            self._writer.write_table(table.slice(start, ROWS_PER_GROUP).combine_chunks())
            start += ROWS_PER_GROUP
        rest = table.slice(start) if start < len(table) else table.slice(0, 0)
        self._waiting, self._count = rest.to_batches(), len(rest)

    def __enter__(self) -> MatrixWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if kind is None:
            self._flush(last=True)
        self._writer.close()


def _column(block: Matrix, kind: pa.DataType) -> pa.Array:
    if isinstance(block, sparse.csr_array):
        block.sort_indices()
        offsets = pa.array(block.indptr.astype(np.int32))
        parts = [
            pa.ListArray.from_arrays(offsets, pa.array(block.indices.astype(np.int32))),
            pa.ListArray.from_arrays(offsets, pa.array(block.data.astype(np.float32))),
        ]
        return pa.StructArray.from_arrays(parts, fields=list(kind))
    flat = pa.array(np.ascontiguousarray(block, np.float32).ravel())
    return pa.FixedSizeListArray.from_arrays(flat, block.shape[1]).cast(kind)


def _block(column: pa.Array, features: int) -> Matrix:
    if pa.types.is_struct(column.type):
        indices, values = (column.field(name) for name in ("indices", "values"))
        starts = np.asarray(indices.offsets)
        shape = (len(column), features)
        return sparse.csr_array(
            (np.asarray(values.flatten()), np.asarray(indices.flatten()), starts - starts[0]), shape=shape
        )
    return np.asarray(column.flatten()).reshape(len(column), features)


@dataclass(frozen=True)
class Features:
    """A stored `features` artifact: matrices, names, reference statistics, and the transform that made them."""

    directory: Path

    @cached_property
    def transform(self) -> Transform:
        """The fitted transform."""
        return load_transform(self.directory)

    @cached_property
    def names(self) -> list[str]:
        """What each column is."""
        return self.transform.names

    @cached_property
    def reference(self) -> dict[str, Any]:
        """Statistics of each feature over the train split (`reference.json`)."""
        found: dict[str, Any] = read_json(self.directory / "reference.json")
        return found

    def blocks(self, split: str) -> Iterator[Rows]:
        """The rows of a split, some at a time, each with its parts."""
        if split not in SPLITS:
            raise WuxingError(f'"{split}" is no split', nearest(split, SPLITS))
        sizes = [len(part.fitted.names) for part in self.transform.parts]
        with pq.ParquetFile(matrix_path(self.directory, split)) as file:
            for batch in file.iter_batches(ROWS_PER_GROUP):
                parts = [_block(column, size) for column, size in zip(batch.columns[2:], sizes, strict=True)]
                yield Rows(batch.column(0).to_pylist(), batch.column(1).to_pylist(), parts, [])

    def matrix(self, split: str) -> Matrix:
        """All features of a split: float32, dense or scipy.sparse.csr_array; rows as in `ids`."""
        blocks = [side_by_side(rows.blocks) for rows in self.blocks(split)]
        if not blocks:
            empty = (0, len(self.names))
            return sparse.csr_array(empty, dtype=np.float32) if self.transform.sparse else np.zeros(empty, np.float32)
        return stacked(blocks)

    def ids(self, split: str) -> list[str]:
        """The records of the rows."""
        return [str(id) for id in pq.read_table(matrix_path(self.directory, split), columns=["id"])["id"].to_pylist()]

    def classes(self, split: str) -> list[str | None]:
        """The labels of the rows."""
        table = pq.read_table(matrix_path(self.directory, split), columns=["label"])
        labels: list[str | None] = table["label"].to_pylist()
        return labels

    def values(self, split: str, name: str) -> list[float]:
        """One feature of all records of a split: what a drift detector compares with the same feature of new ones."""
        if name not in self.names:
            raise WuxingError(f'there is no feature "{name}"', nearest(name, self.names).partition("Known:")[0] or None)
        place = self.names.index(name)
        found: list[float] = []
        for rows in self.blocks(split):
            column = side_by_side(rows.blocks)[:, [place]]
            dense = column.toarray() if isinstance(column, sparse.csr_array) else column
            found += dense.ravel().tolist()
        return found


def stacked(blocks: Sequence[Matrix]) -> Matrix:
    """Blocks of rows as one matrix."""
    if isinstance(blocks[0], sparse.csr_array):
        return sparse.csr_array(sparse.vstack(blocks, format="csr"))
    return np.concatenate(blocks)
