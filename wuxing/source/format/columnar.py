"""Parquet and Arrow IPC (files and streams, as Hugging Face writes both), batch by batch."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, BinaryIO

from wuxing.core.record import Drop
from wuxing.source.config import SourceConfig
from wuxing.source.format.image import class_names, named
from wuxing.source.row import Value, short
from wuxing.source.stream import TooLarge, head_of, whole

if TYPE_CHECKING:
    import pyarrow
    import pyarrow.parquet

ROWS_PER_BATCH = 1024
BATCH_BYTES = 16 << 20
LARGEST_RATIO = 2000
"""A column chunk that claims to unpack to more than so many times its size, and more than `free_bytes`, is a bomb."""


def read_parquet(stream: BinaryIO, source: SourceConfig) -> Iterator[Value]:
    yield from read_row_groups(stream, 0, None, source)


def read_row_groups(stream: BinaryIO, start: int, stop: int | None, source: SourceConfig) -> Iterator[Value]:
    """The rows of the row groups from `start` to `stop`, numbered from 0."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        file = pq.ParquetFile(_seekable(stream, source), buffer_size=1 << 20, pre_buffer=False)
        names = class_names(file.schema_arrow)
        groups = range(start, file.num_row_groups if stop is None else stop)
        for group in groups:
            if bomb := _bomb(file.metadata, group, source):
                rows = max(0, file.metadata.row_group(group).num_rows)
                yield number, Drop("unpack_limit", f"{bomb}; {rows} rows are not read")
                number += rows
                continue
            size = _batch_rows(file.metadata, group)
            for batch in file.iter_batches(batch_size=size, row_groups=[group], use_threads=False):
                for value in _rows(batch, names):
                    yield number, value
                    number += 1
    except TooLarge as error:
        yield number, Drop("too_large", short(error))
    except (pa.ArrowException, ValueError, OverflowError, MemoryError) as error:
        yield number, Drop("broken_parquet", short(error))


def _batch_rows(about: pyarrow.parquet.FileMetaData, group: int) -> int:
    """Rows whose values, all together, stay a few megabytes."""
    of_group = about.row_group(group)
    each = of_group.total_byte_size // max(1, of_group.num_rows)
    return max(1, min(ROWS_PER_BATCH, BATCH_BYTES // max(1, each)))


def _bomb(about: pyarrow.parquet.FileMetaData, group: int, source: SourceConfig) -> str | None:
    of_group = about.row_group(group)
    for number in range(of_group.num_columns):
        column = of_group.column(number)
        unpacked, packed = column.total_uncompressed_size, max(1, column.total_compressed_size)
        if unpacked > max(source.limits.free_bytes, LARGEST_RATIO * packed):
            return f"column {column.path_in_schema} would unpack from {packed} to {unpacked} bytes"
    return None


def _rows(batch: pyarrow.RecordBatch, names: dict[str, list[str]]) -> Iterator[Any]:
    """The rows of a batch; one by one where one holds what Python cannot (a date beyond year 9999, ...)."""
    batch.validate(full=True)  # what a damaged file claims about its buffers is not believed
    try:
        rows: list[Any] = batch.to_pylist()
    except (ValueError, OverflowError):
        for number in range(batch.num_rows):
            try:
                rows = batch.slice(number, 1).to_pylist()
            except (ValueError, OverflowError) as error:
                rows = [Drop("broken_value", short(error))]
            yield named(rows[0], names) if names and isinstance(rows[0], dict) else rows[0]
        return
    yield from (named(row, names) for row in rows) if names else rows


def read_arrow(stream: BinaryIO, source: SourceConfig) -> Iterator[Value]:
    """The rows of an Arrow IPC file or stream.  Hugging Face's `.arrow` files are streams."""
    import pyarrow as pa

    head, stream = head_of(stream, 8)
    number = 0
    try:
        for batch, names in _batches(head, stream, source):
            for start in range(0, batch.num_rows, ROWS_PER_BATCH):
                for value in _rows(batch.slice(start, ROWS_PER_BATCH), names):
                    yield number, value
                    number += 1
    except TooLarge as error:
        yield number, Drop("too_large", short(error))
    except (pa.ArrowException, ValueError, OverflowError, MemoryError, EOFError) as error:
        yield number, Drop("broken_arrow", short(error))


def _batches(
    head: bytes, stream: BinaryIO, source: SourceConfig
) -> Iterator[tuple[pyarrow.RecordBatch, dict[str, list[str]]]]:
    import pyarrow as pa

    if head.startswith(b"ARROW1"):
        file = pa.ipc.open_file(_seekable(stream, source))
        names = class_names(file.schema)
        for number in range(file.num_record_batches):
            yield file.get_batch(number), names
        return
    if not head:
        return
    watched = _Ending(stream)
    batches = pa.ipc.open_stream(watched)
    names = class_names(batches.schema)
    for batch in batches:
        yield batch, names
    if not watched.last.endswith(bytes(4)):
        raise ValueError("no mark of its end: it may have been cut short")


class _Ending:
    """Remembers the last bytes read: Arrow takes a stream that was cut between two batches for a whole one."""

    closed = False

    def __init__(self, stream: BinaryIO):
        self._stream, self.last = stream, b""

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return False

    def read(self, count: int = -1) -> bytes:
        data = self._stream.read(count)
        self.last = (self.last + data[-8:])[-8:]
        return data

    def close(self) -> None:
        self.closed = True


def _seekable(stream: BinaryIO, source: SourceConfig) -> Any:
    """A stream that can go back: itself, or its content."""
    return stream if stream.seekable() else io.BytesIO(whole(stream, source.limits))
