"""The ledger: one SQLite index over all records, rebuilt from the files whenever they and it disagree.

The signed directories are the truth.  The index only answers questions that would need all of them at once: what
exists, who has this parent, how large is everything.  Delete it at any time.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from wuxing.core.artifact import Artifact
from wuxing.core.lease import lock
from wuxing.core.store import Store

_SCHEMA = """
CREATE TABLE IF NOT EXISTS artifact (
    id TEXT PRIMARY KEY, kind TEXT, name TEXT, version INTEGER, path TEXT, stamp INTEGER, created TEXT,
    content TEXT, fingerprint TEXT, bytes INTEGER, seconds REAL, failures INTEGER, summary TEXT);
CREATE TABLE IF NOT EXISTS parent (child TEXT, role TEXT, parent TEXT);
CREATE INDEX IF NOT EXISTS parent_of ON parent (parent);
"""


@dataclass(frozen=True)
class Row:
    """One artifact as the index knows it."""

    id: str
    kind: str
    name: str
    version: int
    created: str
    bytes: int
    seconds: float
    failures: int
    summary: str


class Ledger:
    """The index of one home; every question first takes in what is new on disk."""

    def __init__(self, store: Store):
        self.store = store
        self.path = store.home / "ledger.sqlite"

    def rows(self, kind: str | None = None, name: str | None = None) -> list[Row]:
        """All artifacts, oldest first; of one kind or name where given."""
        with self._open() as database:
            found = database.execute(
                "SELECT id, kind, name, version, created, bytes, seconds, failures, summary FROM artifact "
                "WHERE (?1 IS NULL OR kind = ?1) AND (?2 IS NULL OR name = ?2) ORDER BY created, id",
                (kind, name),
            ).fetchall()
        return [Row(*row) for row in found]

    def children(self, artifact_id: str) -> list[tuple[str, str]]:
        """(role, id) of everything made directly from an artifact."""
        with self._open() as database:
            query = "SELECT role, child FROM parent WHERE parent = ? ORDER BY child, role"
            return [(role, child) for role, child in database.execute(query, (artifact_id,)).fetchall()]

    def descendants(self, artifact_id: str) -> list[str]:
        """Ids of everything that stands on an artifact, at any distance."""
        found: dict[str, None] = {}
        queue = [artifact_id]
        while queue:
            for _, child in self.children(queue.pop(0)):
                if child not in found:
                    found[child] = None
                    queue.append(child)
        return list(found)

    def _open(self) -> closing[sqlite3.Connection]:
        self.store.home.mkdir(parents=True, exist_ok=True)
        with lock(self.path.with_suffix(".lock")):
            try:
                database = self._connected()
                self._take_in(database)
            except sqlite3.DatabaseError:
                for path in (self.path, self.path.with_suffix(".sqlite-wal"), self.path.with_suffix(".sqlite-shm")):
                    path.unlink(missing_ok=True)
                database = self._connected()
                self._take_in(database)
        return closing(database)

    def _connected(self) -> sqlite3.Connection:
        database = sqlite3.connect(self.path, timeout=30)
        database.execute("PRAGMA journal_mode=WAL")
        database.executescript(_SCHEMA)
        return database

    def _take_in(self, database: sqlite3.Connection) -> None:
        known = dict(database.execute("SELECT path, stamp FROM artifact").fetchall())
        found = {str(path): path.stat().st_mtime_ns for path in self._records()}
        with database:
            for path in set(known) - {p for p, stamp in found.items() if known.get(p) == stamp}:
                (identity,) = database.execute("SELECT id FROM artifact WHERE path = ?", (path,)).fetchone()
                database.execute("DELETE FROM artifact WHERE id = ?", (identity,))
                database.execute("DELETE FROM parent WHERE child = ?", (identity,))
            for path, stamp in found.items():
                if known.get(path) != stamp:
                    self._insert(database, self.store.load(Path(path).parent), path, stamp)

    def _records(self) -> Iterator[Path]:
        for kind, name in self.store.names():
            yield from (self.store.home / kind / name).glob("v*/record.json")

    @staticmethod
    def _insert(database: sqlite3.Connection, artifact: Artifact, path: str, stamp: int) -> None:
        record = artifact.record
        size = sum(entry["bytes"] for entry in record["files"].values())
        values = (
            *(artifact.id, artifact.kind, artifact.name, artifact.version, path, stamp, record["created"]),
            *(artifact.content, artifact.fingerprint, size, record["seconds"], len(record["failures"])),
            json.dumps(record["summary"], ensure_ascii=False),
        )
        database.execute(f"INSERT OR REPLACE INTO artifact VALUES ({','.join('?' * len(values))})", values)
        database.executemany(
            "INSERT INTO parent VALUES (?, ?, ?)",
            [(artifact.id, role, parent) for role, parent in artifact.parents.items()],
        )
