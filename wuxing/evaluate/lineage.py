"""Which data a model was trained on: a read-only walk over the records of the store."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from wuxing.core.artifact import Artifact
from wuxing.core.error import UsageError
from wuxing.core.file import read_json
from wuxing.core.store import Store

DATA = ("corpus", "task", "augmentation")
WALKED = ("model", "tokens")
"""Kinds whose parents may be training data."""
NO_DATA = "tokenizer"
"""The role through which no weight is shaped, whatever stands there: a tokenizer, or a model that lends its own."""


@dataclass
class Lineage:
    """The artifacts on whose `train` splits a model's weights depend, through every `start_from`."""

    model: str
    data: list[Artifact] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    """Ids of ancestors that are not in the store: what they hold is unknown."""

    @property
    def ids(self) -> list[str]:
        return [artifact.id for artifact in self.data]


def find_artifact(home: Path, id: str) -> Artifact | None:
    """The artifact `kind/name@vN` of a store, or None when it is not (or no longer) there."""
    try:
        return Store(home).find(id)
    except UsageError:
        return None


def trace(model: Artifact, home: Path, known: Iterable[Artifact] = ()) -> Lineage:
    """Walk from a model to its training data.  `known` artifacts are used as they are, others are read from `home`."""
    at_hand = {artifact.id: artifact for artifact in known}
    lineage, seen, queue = Lineage(model.id), {model.id}, [model]
    while queue:
        for id in _read_by(queue.pop()):
            if id in seen:
                continue
            seen.add(id)
            parent = at_hand.get(id) or find_artifact(home, id)
            if parent is None:
                lineage.missing.append(id)
            elif parent.kind in DATA:
                lineage.data.append(parent)
            else:
                queue.append(parent)
    lineage.data.sort(key=lambda artifact: artifact.id)
    return lineage


def _read_by(artifact: Artifact) -> Iterator[str]:
    """Ids of what may have shaped an artifact: its parents, and what a model's own account of its training names."""
    for role, id in artifact.parents.items():
        if role != NO_DATA and id.partition("/")[0] in (*DATA, *WALKED):
            yield id
    account = artifact.path / "training.json"
    if account.exists():
        for entry in read_json(account).get("lineage", {}).get("data", []):
            yield entry["id"]
