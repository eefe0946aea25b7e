"""Single rows out of the files of a corpus, in bounded memory: by id, or spread evenly over a file."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow

BATCH_ROWS = 256
GROUPS_SAMPLED = 8


def batches(
    path: Path, columns: Sequence[str] | None = None, groups: Sequence[int] | None = None, size: int = BATCH_ROWS
) -> Iterator[tuple[int, pyarrow.RecordBatch]]:
    """(number of the first row, batch) over some row groups of a Parquet file, all of them unless given."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(path, pre_buffer=False) as file:
        starts = group_starts(file)
        there = None if columns is None else [name for name in columns if name in file.schema_arrow.names]
        for group in range(file.num_row_groups) if groups is None else groups:
            row = starts[group]
            for batch in file.iter_batches(size, row_groups=[group], columns=there, use_threads=False):
                yield row, batch
                row += batch.num_rows


def group_starts(file: Any) -> list[int]:
    """The number of the first row of each row group."""
    starts = [0]
    for group in range(file.num_row_groups):
        starts.append(starts[-1] + file.metadata.row_group(group).num_rows)
    return starts[:-1]


def row_count(path: Path) -> int:
    """Rows of a Parquet file, from its footer."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        return int(file.metadata.num_rows)


def rows_at(
    path: Path,
    wanted: Collection[int],
    columns: Sequence[str] | None = None,
    shape: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
) -> dict[int, dict[str, Any]]:
    """The rows with these numbers; only their row groups are read, a batch at a time.

    `shape` makes of each row what is to be held in memory, such as the size of a picture in place of its bytes.
    """
    import pyarrow.parquet as pq

    if not wanted:
        return {}
    with pq.ParquetFile(path) as file:
        starts = [*group_starts(file), file.metadata.num_rows]
    groups = [g for g in range(len(starts) - 1) if any(starts[g] <= row < starts[g + 1] for row in wanted)]
    found: dict[int, dict[str, Any]] = {}
    for first, batch in batches(path, columns, groups):
        mine = [row for row in wanted if first <= row < first + batch.num_rows]
        for row in mine:
            value = batch.slice(row - first, 1).to_pylist()[0]
            found[row] = shape(value) if shape else value
        if len(found) == len(set(wanted)):
            break
    return found


def rows_with_ids(path: Path, ids: Collection[str], columns: Sequence[str] | None = None) -> dict[str, dict[str, Any]]:
    """The rows with these ids.  Ids are read first; texts, pictures and sounds only of what was found."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if not ids:
        return {}
    asked = pa.array(sorted(set(ids)), pa.string())
    places: list[int] = []
    for first, batch in batches(path, ["id"], size=65536):
        hits = pc.indices_nonzero(pc.is_in(batch.column("id"), value_set=asked)).to_pylist()
        places += [first + place for place in hits]
    return {row["id"]: row for row in rows_at(path, places, columns).values()}


def spread_rows(
    path: Path,
    count: int,
    columns: Sequence[str] | None = None,
    shape: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
) -> list[dict[str, Any]]:
    """About `count` rows, evenly spread over a file's rows (over some of its row groups where it has many)."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        sizes = [file.metadata.row_group(g).num_rows for g in range(file.num_row_groups)]
        starts = group_starts(file)
    groups = _spread(len(sizes), GROUPS_SAMPLED)
    rows = [starts[g] + row for g in groups for row in range(sizes[g])]
    wanted = [rows[place] for place in _spread(len(rows), count)]
    found = rows_at(path, set(wanted), columns, shape)
    return [found[row] for row in wanted]


def _spread(whole: int, count: int) -> list[int]:
    """Up to `count` of the numbers below `whole`, at equal distances."""
    if whole <= count:
        return list(range(whole))
    return [(2 * place + 1) * whole // (2 * count) for place in range(count)]
