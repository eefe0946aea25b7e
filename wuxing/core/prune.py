"""Pruning: what may go, and never what an alias, a newest version, or the lineage of either needs."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from wuxing.core.artifact import Artifact
from wuxing.core.error import WuxingError
from wuxing.core.exchange import now
from wuxing.core.file import append_line
from wuxing.core.lease import lease
from wuxing.core.store import Store


@dataclass(frozen=True)
class Prunable:
    """One directory that nothing needs any more."""

    path: Path
    what: str
    bytes: int
    artifact: Artifact | None = None


def prunable(store: Store, keep: int = 1) -> list[Prunable]:
    """Versions beyond the newest `keep` of each name that no alias and no kept lineage needs; drafts of dead runs."""
    everything = {artifact.id: artifact for artifact in store.all()}
    needed = {*store.aliases.current().values()}
    for kind, name in store.names():
        needed |= {artifact.id for artifact in store.versions(kind, name)[-keep:]}
    queue = list(needed)
    while queue:
        artifact = everything.get(queue.pop())
        new = set(artifact.parents.values()) - needed if artifact else set()
        needed |= new
        queue += new
    spare = [
        Prunable(
            artifact.path, f"{artifact.id} (not needed by an alias or a kept version)", _size(artifact.path), artifact
        )
        for artifact in everything.values()
        if artifact.id not in needed
    ]
    return spare + _dead_drafts(store)


def prune(store: Store, items: list[Prunable]) -> int:
    """Remove them; returns the bytes freed.  A version number is never given out again."""
    freed = 0
    for item in items:
        directory = item.path.parent
        with lease(directory / ".lease", f"{directory.parent.name}/{directory.name}"):
            if item.artifact:
                line = {"version": item.artifact.version, "fingerprint": item.artifact.fingerprint, "time": now()}
                append_line(directory / ".pruned.jsonl", line)
            going = directory / f".partial-going-{item.path.name}"
            item.path.replace(going)
            shutil.rmtree(going)
        freed += item.bytes
    return freed


def _dead_drafts(store: Store) -> list[Prunable]:
    found = []
    for kind, name in store.names():
        for path in sorted((store.home / kind / name).glob(".partial-*")):
            try:
                with lease(path.parent / ".lease", f"{kind}/{name}"):
                    found.append(Prunable(path, f"draft of {kind}/{name} from a stopped run", _size(path)))
            except WuxingError:
                continue  # a living process is writing it
    return found


def _size(path: Path) -> int:
    return sum(p.stat().st_size for p in path.rglob("*") if p.is_file())
