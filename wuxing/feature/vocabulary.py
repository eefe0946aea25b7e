"""Which terms become features: exact counts over any number of records in bounded memory.

Counts that outgrow memory are written as sorted runs and merged, so that the result is that of one big table.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

TERMS_IN_MEMORY = 1_000_000
"""Some 150 MB of Python strings and counts."""
ROWS_PER_READ = 8192

Count = tuple[str, int, int]
"""A term, the records that hold it, and how often it stands in all of them."""


@dataclass(frozen=True)
class Vocabulary:
    """Terms in alphabetical order, each with its counts in the train split."""

    terms: list[str]
    in_records: NDArray[np.int64]
    counts: NDArray[np.int64]
    records: int
    """Records counted."""

    def index(self) -> dict[str, int]:
        """Term → its place."""
        return {term: place for place, term in enumerate(self.terms)}

    def save(self, path: Path) -> None:
        """Write `term, records, count` as Parquet; the number of records stands in its metadata."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        columns = {"term": pa.array(self.terms, pa.string()), "records": self.in_records, "count": self.counts}
        table = pa.table(columns).replace_schema_metadata({"records": str(self.records)})
        pq.write_table(table, path, compression="zstd")

    @classmethod
    def load(cls, path: Path) -> Vocabulary:
        """Read what `save` wrote."""
        import pyarrow.parquet as pq

        table = pq.read_table(path)
        columns = [table[name].to_numpy() for name in ("records", "count")]
        return cls(table["term"].to_pylist(), columns[0], columns[1], int(table.schema.metadata[b"records"]))


class Counting:
    """Counts terms record by record; `spill` is a directory for what outgrows `limit` terms in memory."""

    def __init__(self, spill: Path, limit: int = TERMS_IN_MEMORY):
        self.records = 0
        self._spill, self._limit = spill, limit
        self._in_records: Counter[str] = Counter()
        self._counts: Counter[str] = Counter()
        self._runs: list[Path] = []

    def add(self, terms: Sequence[str]) -> None:
        """One record's terms."""
        self.records += 1
        self._counts.update(terms)
        self._in_records.update(set(terms))
        if len(self._counts) > self._limit:
            self._write_run()

    def vocabulary(self, min_records: int, max_records: float, max_terms: int, min_count: int = 1) -> Vocabulary:
        """The terms within the bounds; where they are too many, those with the highest counts (ties: by alphabet)."""
        import numpy as np

        fitting = (c for c in self._all() if min_records <= c[1] <= max_records and c[2] >= min_count)
        kept = sorted(heapq.nsmallest(max_terms, fitting, key=lambda c: (-c[2], c[0])))
        for run in self._runs:
            run.unlink()
        return Vocabulary(
            [term for term, _, _ in kept],
            np.array([records for _, records, _ in kept], np.int64),
            np.array([count for _, _, count in kept], np.int64),
            self.records,
        )

    def _all(self) -> Iterator[Count]:
        memory = [(term, self._in_records[term], self._counts[term]) for term in sorted(self._counts)]
        if not self._runs:
            yield from memory
            return
        term, records, count = "", 0, 0
        for other, more_records, more in heapq.merge(*(_read_run(run) for run in self._runs), memory):
            if other != term and count:
                yield term, records, count
                records = count = 0
            term, records, count = other, records + more_records, count + more
        if count:
            yield term, records, count

    def _write_run(self) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        terms = sorted(self._counts)
        self._spill.mkdir(parents=True, exist_ok=True)
        path = self._spill / f"terms-{len(self._runs)}.parquet"
        columns = [pa.array(terms), [self._in_records[t] for t in terms], [self._counts[t] for t in terms]]
        pq.write_table(pa.table(columns, ["term", "records", "count"]), path, row_group_size=ROWS_PER_READ)
        self._runs.append(path)
        self._in_records.clear()
        self._counts.clear()


def _read_run(path: Path) -> Iterator[Count]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(ROWS_PER_READ):
            yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)


def count_terms(records: Iterable[Sequence[str]], spill: Path, limit: int = TERMS_IN_MEMORY) -> Counting:
    """Count all records."""
    counting = Counting(spill, limit)
    for terms in records:
        counting.add(terms)
    return counting
