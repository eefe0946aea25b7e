"""The data that a model learned from, and their licences: a walk up the records of the store."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wuxing.core.artifact import Artifact
from wuxing.core.error import UsageError
from wuxing.core.file import read_json
from wuxing.core.store import Store

GENERATED = "generated"
"""The licence of a task's problems: a program made them."""
UNKNOWN = "unknown"


@dataclass(frozen=True)
class Source:
    """One source of training data."""

    artifact: str
    name: str
    license: str

    def to_json(self) -> dict[str, str]:
        return {"artifact": self.artifact, "name": self.name, "license": self.license}


def ancestors(model: Artifact, home: Path) -> list[str]:
    """Ids of everything that the model stands on, itself first."""
    return [id for id, _ in _walk(model, home)]


def data_sources(model: Artifact, home: Path) -> list[Source]:
    """Every source behind the model, through corpora, tasks, tokens, tokenizers and the models it started from."""
    sources: list[Source] = []
    for id, artifact in _walk(model, home):
        if artifact is None:
            sources.append(Source(id, "removed from the store", UNKNOWN))
        elif (artifact.path / "card.json").is_file():
            card: dict[str, Any] = read_json(artifact.path / "card.json")
            for source in card.get("sources", []):
                sources.append(Source(id, str(source.get("name", "?")), str(source.get("license") or UNKNOWN)))
        elif artifact.kind == "task":
            sources.append(Source(id, artifact.name, GENERATED))
        elif artifact.kind == "corpus":
            sources.append(Source(id, artifact.name, UNKNOWN))
    return sources


def _walk(model: Artifact, home: Path) -> list[tuple[str, Artifact | None]]:
    store, found, queue = Store(home), {model.id: model}, [model]
    order: list[tuple[str, Artifact | None]] = [(model.id, model)]
    while queue:
        for id in queue.pop(0).parents.values():
            if id in found:
                continue
            try:
                parent = store.find(id)
            except UsageError:
                order.append((id, None))
                continue
            found[id] = parent
            order.append((id, parent))
            queue.append(parent)
    return order
