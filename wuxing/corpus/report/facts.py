"""What the data report tells of, read from the files of one corpus artifact."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wuxing.core.digest import digest_of_file
from wuxing.core.evidence import Check, Evidence
from wuxing.core.file import read_json
from wuxing.core.splits import SPLITS
from wuxing.corpus.lookup import batches, rows_with_ids, spread_rows
from wuxing.corpus.preview import outline, picture, seconds_of, size_of
from wuxing.page.block import Figure
from wuxing.page.number import format_count, format_share

DROPPED_SHOWN = 4
CHANGED_SHOWN = 3
KEPT_SHOWN = 4
MEDIA = ("id", "image", "audio", "label")
MEDIA_SHOWN = 16
MEDIA_MEASURED = 240
CLUSTERS_SHOWN = 6
MEMBERS_SHOWN = 2

Row = dict[str, Any]


@dataclass
class Facts:
    """One corpus: its statistics, card and evidence, and samples of its records."""

    id: str
    digest: str
    """SHA-256 of `statistics.json`: which corpus this is, whatever version it becomes."""
    statistics: dict[str, Any]
    card: dict[str, Any]
    checks: list[Check]
    dropped: dict[str, list[Row]] = field(default_factory=dict)
    """Fate → some of its records, as `dropped.parquet` keeps them."""
    changed: dict[str, list[Row]] = field(default_factory=dict)
    """Step (`2:privacy`) → some of what it changed."""
    kept: dict[str, list[Row]] = field(default_factory=dict)
    """Split → some of its records."""
    measured_media: dict[str, list[Row]] = field(default_factory=dict)
    """Split → sizes of some of its pictures, lengths of some of its sounds."""
    contamination: list[dict[str, Any]] = field(default_factory=list)
    """What each decontamination step found: items of evaluation sets, and the records that gave them away."""
    twins: dict[str, Row] = field(default_factory=dict)
    """Id → record, of the largest clusters of duplicates."""

    # ------------------------------------------------------------------------------------------------ figures
    def at(self, *path: str | int) -> Any:
        """A value of `statistics.json`."""
        value: Any = self.statistics
        for part in path:
            value = value[part]
        return value

    def place(self, *path: str | int) -> str:
        """Where a value stands: `corpus/x statistics.json#/splits/train/records` (a JSON pointer)."""
        return f"{self.id} {pointer('statistics.json', *path)}"

    def count(self, *path: str | int) -> Figure:
        """A count of `statistics.json`, with its place."""
        value = self.at(*path)
        return Figure(format_count(value), self.place(*path), float(value))

    def share(self, part: tuple[str | int, ...], whole: tuple[str | int, ...] = ("rows",)) -> Figure:
        """One count as a share of another."""
        above, below = self.at(*part), self.at(*whole)
        source = f"{self.place(*part)} ÷ #{'/'.join(['', *map(_escaped, whole)])}"
        return Figure(format_share(above, below), source, above / below if below else 0.0)

    def measured(self, text: str, value: float, *path: str | int) -> Figure:
        """A figure of `statistics.json` that is printed in its own way."""
        return Figure(text, self.place(*path), value)

    @property
    def fates(self) -> list[str]:
        """All fates: kept, then the losses from the largest."""
        lost = [fate for fate in self.at("fates") if fate != "kept"]
        return ["kept", *lost] if "kept" in self.at("fates") else lost

    @property
    def splits(self) -> list[str]:
        """The splits that hold records."""
        return [split for split in SPLITS if self.at("splits", split, "records")]

    @property
    def is_media(self) -> bool:
        """Whether it holds pictures or sounds."""
        return any(self.at("splits", split, kind) for split in SPLITS for kind in ("images", "audio"))


def pointer(file: str, *path: str | int) -> str:
    """`file#/a/b`: a JSON pointer (RFC 6901)."""
    return f"{file}#{'/'.join(['', *map(_escaped, path)])}"


def _escaped(part: str | int) -> str:
    return str(part).replace("~", "~0").replace("/", "~1")


def collect(directory: Path, id: str, evidence: Evidence) -> Facts:
    """Read the facts; texts, pictures and sounds only of the few records that will be shown."""
    facts = Facts(
        id=id,
        digest=digest_of_file(directory / "statistics.json"),
        statistics=read_json(directory / "statistics.json"),
        card=read_json(directory / "card.json"),
        checks=list(evidence.checks),
    )
    facts.dropped = _grouped(directory / "dropped.parquet", "fate")
    facts.changed = _grouped(directory / "changed.parquet", "step")
    for split in facts.splits:
        path = directory / f"{split}.parquet"
        if facts.is_media:
            facts.kept[split] = spread_rows(path, MEDIA_SHOWN, MEDIA, _seen)
            facts.measured_media[split] = spread_rows(path, MEDIA_MEASURED, MEDIA, _measured)
        else:
            facts.kept[split] = spread_rows(path, KEPT_SHOWN)
    facts.contamination = [read_json(path) for path in sorted(directory.glob("contamination*.json"))]
    facts.twins = _twins(directory, facts)
    return facts


def _seen(row: Row) -> Row:
    """A picture or a sound as small as it will be shown."""
    shown = {"id": row["id"], "label": row.get("label")}
    if row.get("image"):
        return {**shown, "picture": picture(row["image"])}
    return {**shown, "outline": outline(row["audio"]) if row.get("audio") else None}


def _measured(row: Row) -> Row:
    shown = {"id": row["id"], "label": row.get("label")}
    if row.get("image"):
        return {**shown, "size": size_of(row["image"])}
    return {**shown, "seconds": seconds_of(row["audio"]) if row.get("audio") else None}


def _grouped(path: Path, column: str) -> dict[str, list[Row]]:
    """The rows of a file of samples by one of their columns, in file order."""
    found: dict[str, list[Row]] = {}
    if path.is_file():
        for _, batch in batches(path, size=32):
            for row in batch.to_pylist():
                if row.get("image") or row.get("audio"):
                    row |= {"image": None, "audio": None, **_seen(row)}
                found.setdefault(row[column], []).append(row)
    return found


def _twins(directory: Path, facts: Facts) -> dict[str, Row]:
    """The records of the largest clusters: the kept one from its split, dropped ones where a sample of them is kept."""
    ids = set()
    for kind in ("exact", "near"):
        for cluster in facts.at("duplicates", kind)["largest"][:CLUSTERS_SHOWN]:
            ids |= {cluster["id"], *cluster["members"]}
    found = {row["id"]: row for rows in facts.dropped.values() for row in rows if row["id"] in ids}
    for split in facts.splits:
        path = directory / f"{split}.parquet"
        for id, row in rows_with_ids(path, ids - set(found)).items():
            found[id] = _seen(row) if row.get("image") or row.get("audio") else row
    return found


def meta_of(row: Row) -> dict[str, Any]:
    """The facts that a record carries."""
    meta: dict[str, Any] = json.loads(row.get("meta") or "{}")
    return meta
