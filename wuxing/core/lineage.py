"""Lineage: from an artifact up to what it was made of, and from two artifacts to what sets them apart."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from wuxing.core.artifact import Artifact
from wuxing.core.error import UsageError
from wuxing.core.file import read_json
from wuxing.core.plan import differences
from wuxing.core.store import Store


@dataclass(frozen=True)
class Node:
    """An artifact in the tree of what it stands on."""

    role: str
    id: str
    artifact: Artifact | None
    """None where the version was removed since."""
    parents: list[Node] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        return {"role": self.role, "id": self.id, "parents": [node.to_json() for node in self.parents]}

    def sources(self) -> list[dict[str, str]]:
        """Raw data at the roots of the tree: the artifact that read it, its name, its digest; each once."""
        found = {}
        if self.artifact:
            card = _card(self.artifact).get("sources", [])
            inputs = {} if card else self.artifact.record["slice"]["inputs"]
            raw = list(inputs.items())
            for source in card:
                answers = [f"answers of {release}" for release in source.get("releases", [])]
                names = answers or [source.get("package", source["name"])]
                raw += [(name, source.get("sha256", "")) for name in names]
            for name, digest in raw:
                found[name] = {"artifact": self.id, "name": name, "digest": digest}
        lower = {(item["artifact"], item["name"]): item for node in self.parents for item in node.sources()}
        return [*found.values(), *lower.values()]


def _card(artifact: Artifact) -> dict[str, Any]:
    """A corpus's card, which names its sources; empty for artifacts without one."""
    if "card.json" not in artifact.record["files"]:
        return {}
    card: dict[str, Any] = read_json(artifact.path / "card.json")
    return card


def ancestry(store: Store, artifact: Artifact, role: str = "") -> Node:
    """The whole tree above an artifact."""
    nodes = []
    for parent_role, parent in sorted(artifact.record["parents"].items()):
        try:
            found = store.find(parent["id"])
        except UsageError:
            nodes.append(Node(parent_role, parent["id"], None))
            continue
        nodes.append(ancestry(store, found, parent_role))
    return Node(role, artifact.id, artifact, nodes)


def difference(a: Artifact, b: Artifact) -> dict[str, list[str]]:
    """What sets two artifacts apart, by section: recipe, parents, libraries, code, figures, evidence, files."""
    left, right = a.record["slice"], b.record["slice"]
    files = sorted({*a.record["files"], *b.record["files"]})
    checks_a = {check.name: check.value for check in a.evidence.checks}
    checks_b = {check.name: check.value for check in b.evidence.checks}
    sections = {
        "recipe": differences(left["content"], right["content"]) + differences(left["seed"], right["seed"], "seed"),
        "parents": differences(a.parents, b.parents) + differences(left["inputs"], right["inputs"]),
        "libraries": differences(a.record["environment"]["packages"], b.record["environment"]["packages"]),
        "code": differences(left["code"], right["code"], "code")
        + differences(a.record["environment"]["commit"], b.record["environment"]["commit"], "commit"),
        "figures": differences(a.record["summary"], b.record["summary"]),
        "evidence": differences(checks_a, checks_b),
        "files": [
            name
            for name in files
            if _digest(a, name) != _digest(b, name) and name not in ("evidence.json", "summary.json")
        ],
    }
    return {section: lines for section, lines in sections.items() if lines}


def _digest(artifact: Artifact, name: str) -> str | None:
    entry = artifact.record["files"].get(name)
    return entry["sha256"] if entry else None
