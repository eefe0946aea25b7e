"""Which records of a corpus artifact are asked for, and a page of them at a time.

Files are read a batch at a time from where the page before ended; pictures and sounds are read only when one is opened.
"""

from __future__ import annotations

import hashlib
import heapq
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wuxing.core.error import UsageError, WuxingError, nearest
from wuxing.core.file import read_json
from wuxing.core.splits import SPLITS
from wuxing.corpus.browse.match import excerpt, matches, texts_of_row
from wuxing.corpus.lookup import batches, group_starts, row_count, rows_at, rows_with_ids

if TYPE_CHECKING:
    import pyarrow

VIEWS = ("kept", *SPLITS, "dropped", "changed", "all")
SCAN_ROWS = 40_000
"""Rows that one page may read; a search that found too little by then says where it goes on."""
LISTED = ("id", "source", "text", "messages", "label", "chosen", "rejected", "liked", "meta")
TWINS = ("duplicate", "near_duplicate")
TWINS_SHOWN = 50


@dataclass(frozen=True)
class Query:
    """What is looked for; everything that is given must hold."""

    view: str = "kept"
    """kept, one of the splits, dropped (samples with their content), changed (before and after), or all rows."""
    fate: str | None = None
    """Every row that ended so: `filtered:too_short`, or `filtered` for all reasons."""
    step: str | None = None
    """Of `changed`: the step, `privacy` or `5:privacy`."""
    grep: str | None = None
    """Text that occurs in the record or its id, without regard to case."""
    label: str | None = None
    language: str | None = None
    source: str | None = None
    min_length: int | None = None
    """Characters."""
    max_length: int | None = None


def view_of(split: str | None, dropped: bool, changed: bool) -> str:
    """The view that a command names; UsageError when it names two, or a split that is none."""
    named = [name for name in (split, "dropped" if dropped else None, "changed" if changed else None) if name]
    if len(named) > 1:
        raise UsageError("--split, --dropped and --changed exclude each other", f"Give only one of them, not {named}")
    if split is not None and split not in SPLITS:
        raise UsageError(f'"{split}" is no split of a corpus', nearest(split, SPLITS))
    return named[0] if named else "kept"


@dataclass(frozen=True)
class Page:
    """Some matches, and where to go on: None at the end."""

    entries: list[dict[str, Any]]
    next: str | None
    scanned: int


@dataclass
class Corpus:
    """The files of a corpus (or task) artifact."""

    directory: Path
    id: str
    _counts: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not (self.directory / "train.parquet").is_file():
            raise UsageError(
                f"{self.id} holds no records to browse", "Give a corpus or a task, such as corpus/articles"
            )

    # ------------------------------------------------------------------------------------------------- overview
    def overview(self) -> dict[str, Any]:
        """What there is to choose from: views, fates, labels, languages, steps, sources."""
        statistics = self.statistics
        splits = statistics.get("splits", {})

        def merged(name: str) -> dict[str, int]:
            totals: dict[str, int] = {}
            for split in splits.values():
                for key, count in split.get(name, {}).items():
                    totals[key] = totals.get(key, 0) + count
            totals.pop("", None)
            return dict(sorted(totals.items(), key=lambda item: (-item[1], item[0]))[:100])

        return {
            "id": self.id,
            "views": {view: self.size(view) for view in VIEWS if self._files(Query(view))},
            "fates": self.fates,
            "labels": merged("labels"),
            "languages": merged("languages"),
            "sources": merged("sources"),
            "steps": [f"{step['number']}:{step['step']}" for step in statistics.get("steps", [])],
        }

    @cached_property
    def statistics(self) -> dict[str, Any]:
        path = self.directory / "statistics.json"
        return dict(read_json(path)) if path.is_file() else {}

    @cached_property
    def fates(self) -> dict[str, int]:
        """Rows by fate."""
        path = self.directory / "fates.json"
        return dict(read_json(path)["counts"]) if path.is_file() else {}

    def size(self, view: str) -> int:
        """Rows of a view."""
        if view not in self._counts:
            self._counts[view] = sum(row_count(self.directory / name) for name in self._files(Query(view)))
        return self._counts[view]

    def _files(self, query: Query) -> list[str]:
        if query.view not in VIEWS:
            raise UsageError(f'"{query.view}" is no part of a corpus', nearest(query.view, VIEWS))
        names = {"kept": list(SPLITS), "all": ["fates"]}.get(query.view, [query.view])
        return [f"{name}.parquet" for name in names if (self.directory / f"{name}.parquet").is_file()]

    # -------------------------------------------------------------------------------------------------- finding
    def find(self, query: Query, cursor: str | None = None, limit: int = 50, scan_rows: int = SCAN_ROWS) -> Page:
        """Up to `limit` matches from `cursor` on, in the order of the files."""
        found: list[dict[str, Any]] = []
        scanned = 0
        for place, rows, hits in self._scan(query, self._start(cursor)):
            for row, entry in hits:
                if len(found) == limit:
                    return Page(found, f"{place}:{row}", scanned)
                found.append(entry)
            scanned += rows[1] - rows[0]
            if scanned >= scan_rows:
                return Page(found, self._after(query, place, rows[1]), scanned)
        return Page(found, None, scanned)

    def each(self, query: Query) -> Iterator[dict[str, Any]]:
        """All matches, one after the other."""
        for _, _, hits in self._scan(query, (0, 0)):
            yield from (entry for _, entry in hits)

    def sample(self, query: Query, count: int, seed: int) -> list[dict[str, Any]]:
        """A uniform sample of the matches that depends on nothing but the seed and their ids."""

        def key(id: str) -> int:
            return int.from_bytes(hashlib.sha256(f"{seed}/{id}".encode()).digest()[:8], "big")

        numbered = ((key(entry["id"]), place, entry) for place, entry in enumerate(self.each(query)))
        return [entry for *_, entry in heapq.nsmallest(count, numbered)]

    def _start(self, cursor: str | None) -> tuple[int, int]:
        file, _, row = (cursor or "0:0").partition(":")
        if not (file.isascii() and file.isdigit() and row.isascii() and row.isdigit() and len(cursor or "") < 30):
            raise UsageError(f'"{cursor}" is no place to go on from', 'Give the "next" of the page before')
        return int(file), int(row)

    def _after(self, query: Query, place: int, row: int) -> str | None:
        names = self._read_files(query)
        if row < row_count(self.directory / names[place]):
            return f"{place}:{row}"
        return f"{place + 1}:0" if place + 1 < len(names) else None

    def _read_files(self, query: Query) -> list[str]:
        if query.fate and query.fate != "kept" and query.view in ("kept", "dropped", "all"):
            return self._files(replace(query, view="all"))
        names = self._files(query)
        if not names:
            raise WuxingError(f"{self.id} keeps no {query.view} records", "Make it anew with this version of wuxing")
        return names

    def _scan(
        self, query: Query, start: tuple[int, int]
    ) -> Iterator[tuple[int, tuple[int, int], Iterator[tuple[int, dict[str, Any]]]]]:
        """(file, rows looked at, matches with their row numbers) for each batch."""
        if query.fate:
            self._check_fate(query.fate)
        for place, name in enumerate(self._read_files(query)):
            if place < start[0]:
                continue
            first_row = start[1] if place == start[0] else 0
            path = self.directory / name
            for row, batch in self._batches(path, first_row):
                skip = max(0, first_row - row)
                part = batch.slice(skip)
                rows = (row + skip, row + batch.num_rows)
                yield place, rows, self._matches(query, name.removesuffix(".parquet"), part, row + skip)

    def _batches(self, path: Path, first_row: int) -> Iterator[tuple[int, pyarrow.RecordBatch]]:
        import pyarrow.parquet as pq

        with pq.ParquetFile(path) as file:
            starts = [*group_starts(file), file.metadata.num_rows]
            names = file.schema_arrow.names
        groups = [group for group in range(len(starts) - 1) if starts[group + 1] > first_row]
        columns = [name for name in names if name not in ("image", "audio")]
        for row, batch in batches(path, columns, groups, size=1024):
            if row + batch.num_rows > first_row:
                yield row, batch

    def _matches(
        self, query: Query, file: str, batch: pyarrow.RecordBatch, first: int
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        import pyarrow as pa

        places = matches(query, batch)
        for place, row in zip(places, batch.take(pa.array(places, pa.int64())).to_pylist(), strict=True):
            where = f"{file}:{first + place}"
            if file == "fates":
                sample = self._samples.get(row["id"])
                where = "" if sample is None else f"dropped:{sample}"
                if sample is not None:
                    row |= rows_at(self.directory / "dropped.parquet", [sample], ("text",))[sample]
                if query.grep and not any(
                    query.grep.lower() in text.lower() for text in (*texts_of_row(row), row["id"])
                ):
                    continue
            yield first + place, {**excerpt(row, file, self.kind_of(file), query.grep), "place": where}

    def kind_of(self, file: str) -> str:
        """`image` or `audio` for files whose rows have neither text nor messages, by the columns' own statistics."""
        if file not in self._kinds:
            self._kinds[file] = _media_kind(self.directory / f"{file}.parquet")
        return self._kinds[file]

    @cached_property
    def _kinds(self) -> dict[str, str]:
        return {}

    @cached_property
    def _samples(self) -> dict[str, int]:
        """Id → row of the dropped records whose content is kept: a bounded number for each fate."""
        path = self.directory / "dropped.parquet"
        if not path.is_file():
            return {}
        return {id: row + n for row, b in batches(path, ["id"]) for n, id in enumerate(b.column("id").to_pylist())}

    def _check_fate(self, fate: str) -> None:
        known = {*self.fates, *(name.partition(":")[0] for name in self.fates), "kept"}
        if fate not in known:
            raise UsageError(f'no row of {self.id} ended as "{fate}"', nearest(fate, sorted(known)))

    # --------------------------------------------------------------------------------------------------- opening
    def record(self, id: str) -> dict[str, Any] | None:
        """All that is known of one raw row: fate, content, what steps changed, its twins; None when there is none."""
        fates = self.directory / "fates.parquet"
        fate = rows_with_ids(fates, [id]).get(id) if fates.is_file() else None
        found: dict[str, Any] = {"id": id, "fate": fate["fate"] if fate else "kept", "split": None}
        found["detail"] = (fate["detail"] or "") if fate else ""
        content = None
        if found["fate"] == "kept":
            for split in SPLITS:
                row, content = _row_of(self.directory / f"{split}.parquet", id)
                if content is not None:
                    found |= {"split": split, "place": f"{split}:{row}"}
                    break
        elif id in self._samples:
            found["place"] = f"dropped:{self._samples[id]}"
            content = rows_at(self.directory / "dropped.parquet", [self._samples[id]])[self._samples[id]]
        if fate is None and content is None:
            return None
        found |= _opened(content or {})
        found["changes"] = self._changes(id)
        found["twins"] = self._twins(id, found["fate"], found["detail"]) if fate else []
        return found

    def media(self, place: str) -> bytes | None:
        """The picture or sound at a place such as `train:12`, as entries name it; None where there is none."""
        found = self.media_of([place])
        return found.get(place)

    def media_of(self, places: Iterable[str]) -> dict[str, bytes]:
        """Pictures and sounds by place; each file is gone through once."""
        rows: dict[str, list[int]] = {}
        for place in places:
            file, _, number = place.partition(":")
            if file in (*SPLITS, "dropped") and number.isascii() and number.isdigit() and len(number) < 16:
                rows.setdefault(file, []).append(int(number))
        found: dict[str, bytes] = {}
        for file, wanted in rows.items():
            path = self.directory / f"{file}.parquet"
            if path.is_file():
                for row, value in rows_at(path, wanted, ("id", "image", "audio")).items():
                    data = value.get("image") or value.get("audio")
                    if data:
                        found[f"{file}:{row}"] = data
        return found

    def _changes(self, id: str) -> list[dict[str, str]]:
        path = self.directory / "changed.parquet"
        if not path.is_file():
            return []
        rows = (row for _, batch in batches(path) for row in batch.to_pylist() if row["id"] == id)
        return [{name: row[name] or "" for name in ("step", "before", "after")} for row in rows]

    def _twins(self, id: str, fate: str, detail: str) -> list[dict[str, str]]:
        """The other members of its cluster, the kept one first."""
        import pyarrow.compute as pc

        kept = detail if fate in TWINS else id
        twins = [] if kept == id else [{"id": kept, "fate": "kept"}]
        for _, batch in batches(self.directory / "fates.parquet", size=65536):
            hits = batch.filter(pc.equal(batch.column("detail"), kept)).to_pylist()
            twins += [
                {"id": row["id"], "fate": row["fate"]} for row in hits if row["fate"] in TWINS and row["id"] != id
            ]
            if len(twins) >= TWINS_SHOWN:
                break
        return twins[:TWINS_SHOWN]


def _row_of(path: Path, id: str) -> tuple[int, dict[str, Any] | None]:
    """The number and the content of the row with this id."""
    import pyarrow.compute as pc

    for first, batch in batches(path, ["id"], size=65536):
        place = pc.index(batch.column("id"), id).as_py()
        if place >= 0:
            return first + place, rows_at(path, [first + place])[first + place]
    return -1, None


def _opened(row: dict[str, Any]) -> dict[str, Any]:
    """The whole content of a row as JSON values; of pictures and sounds only that they are there."""
    names = ("source", "text", "messages", "label", "chosen", "rejected", "liked")
    found = {name: row.get(name) for name in names}
    media = next((name for name in ("image", "audio") if row.get(name)), None)
    meta = row.get("meta")
    return {**found, "media": media, "meta": json.loads(meta) if meta else {}}


def _media_kind(path: Path) -> str:
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        names = file.schema_arrow.names
        for name in ("image", "audio"):
            if name in names and file.metadata.num_row_groups:
                group = file.metadata.row_group(0)
                column = next(c for c in map(group.column, range(group.num_columns)) if c.path_in_schema == name)
                if column.statistics is not None and column.statistics.null_count < group.num_rows:
                    return name
    return ""
