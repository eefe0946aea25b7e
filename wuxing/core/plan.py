"""The plan: for every step, the version to reuse or the reason for a new one.  Reads records, never data."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from wuxing.core.artifact import Artifact
from wuxing.core.context import Context
from wuxing.core.digest import digest_of
from wuxing.core.file import read_json
from wuxing.core.recipe import Recipe, Step
from wuxing.core.store import SLICE, Store, member_digest


@dataclass(frozen=True)
class Decision:
    """What a run would do with one step.

    `waits`: a parent is made anew first; should its content come out as before, this step's version is reused.
    """

    step: Step
    verdict: Literal["reuse", "new", "waits"]
    reason: str
    artifact: Artifact | None = None
    slice: dict[str, Any] | None = None
    continues: bool = False
    """Whether a killed attempt left a draft from which a new version goes on."""

    @property
    def fingerprint(self) -> str:
        return digest_of(self.slice)

    def to_json(self) -> dict[str, Any]:
        identity = self.artifact.id if self.artifact else f"{self.step.kind.kind}/{self.step.name}"
        return {"step": self.step.step, "verdict": self.verdict, "artifact": identity, "reason": self.reason}


def plan(recipe: Recipe, store: Store, context: Context, target: str | None = None) -> list[Decision]:
    """Decide every step that `target` needs (all without one), in the order in which a run takes them."""
    decided: dict[str, Decision] = {}
    for step in recipe.needed_for(target):
        decided[step.step] = decide(step, recipe, store, context, decided)
    return list(decided.values())


def decide(step: Step, recipe: Recipe, store: Store, context: Context, decided: Mapping[str, Decision]) -> Decision:
    """Decide one step whose parents in the recipe are decided."""
    earlier = store.versions(step.kind.kind, step.name)
    waiting = [
        parent.reference
        for parent in step.parents.values()
        if parent.reference in decided and decided[parent.reference].artifact is None
    ]
    if waiting:
        reason = f"after {', '.join(dict.fromkeys(waiting))}"
        if earlier:
            reason += f"; reuses v{earlier[-1].version} if what it reads comes out the same"
        return Decision(step, "waits", reason)
    parents = resolve_parents(step, store, {name: d.artifact for name, d in decided.items() if d.artifact})
    cut = slice_of(step, recipe, parents, context)
    fingerprint = digest_of(cut)
    same = [artifact for artifact in earlier if artifact.fingerprint == fingerprint]
    if same:
        reason = "same recipe, same parents" + ("; its evidence failed" if same[-1].failures else "")
        return Decision(step, "reuse", reason, same[-1], cut)
    continues = (store.home / step.kind.kind / step.name / f".partial-{fingerprint[:16]}").is_dir()
    reason = "nothing was made yet" if not earlier else f"because {_why(earlier[-1], cut)}"
    if continues and step.kind.resumable:
        reason += "; goes on where it was stopped"
    elif step.kind.resumable:
        reason += _left_unfinished(store, step, cut)
    return Decision(step, "new", reason, None, cut, continues)


def resolve_parents(step: Step, store: Store, made: Mapping[str, Artifact]) -> dict[str, Artifact]:
    """Role → artifact, from the recipe's own steps first, else from the store."""
    return {
        role: made[parent.reference] if parent.reference in made else store.find(parent.reference, parent.kinds)
        for role, parent in step.parents.items()
    }


def slice_of(step: Step, recipe: Recipe, parents: Mapping[str, Artifact], context: Context) -> dict[str, Any]:
    """All that decides a step's content; its digest is the fingerprint."""
    references = {
        role: member_digest(artifact, step.parents[role].members) for role, artifact in sorted(parents.items())
    }
    return {
        "kind": step.kind.kind,
        "code": step.kind.code,
        "content": step.kind.content(step.config),
        "parents": references,
        "inputs": dict(step.kind.inputs(step.config, context)),
        "seed": step_seed(recipe, step),
        "libraries": {name: importlib.metadata.version(name) for name in step.kind.libraries},
    }


def step_seed(recipe: Recipe, step: Step) -> int:
    """A step's own seed: from the recipe's seed and the artifact's name, below 2**48."""
    return int(digest_of([recipe.seed, step.kind.kind, step.name])[:12], 16)


def differences(old: Any, new: Any, path: str = "") -> list[str]:
    """`optimizer.lr 3e-4 → 1e-3` for every leaf that differs between two JSON values."""
    if isinstance(old, dict) and isinstance(new, dict):
        lines = []
        for key in sorted({*old, *new}):
            inner = f"{path}.{key}" if path else key
            if key not in old:
                lines.append(f"{inner} {_short(new[key])} was added")
            elif key not in new:
                lines.append(f"{inner} {_short(old[key])} was removed")
            else:
                lines += differences(old[key], new[key], inner)
        return lines
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        return [line for i, pair in enumerate(zip(old, new, strict=True)) for line in differences(*pair, f"{path}.{i}")]
    return [] if old == new else [f"{path} {_short(old)} → {_short(new)}"]


def _left_unfinished(store: Store, step: Step, cut: dict[str, Any]) -> str:
    """What was begun under this name with something else, and stays as it is."""
    for draft in reversed(store.drafts(step.kind.kind, step.name)):
        if (draft / SLICE).exists():
            changes = _changes(read_json(draft / SLICE), cut)
            return f"; one that was begun with other settings ({changes}) stays unfinished"
    return ""


def _why(newest: Artifact, cut: dict[str, Any]) -> str:
    return _changes(newest.record["slice"], cut, f"in v{newest.version}")


def _changes(old: dict[str, Any], cut: dict[str, Any], where: str = "then") -> str:
    lines = differences(old["content"], cut["content"])
    for role in sorted({*old["parents"], *cut["parents"]}):
        if old["parents"].get(role) != cut["parents"].get(role):
            lines.append(f"{role} has other content than {where}")
    lines += differences(old["inputs"], cut["inputs"])
    lines += differences(old["libraries"], cut["libraries"], "library")
    if old["code"] != cut["code"]:
        lines.append(f"the code of this kind is now at {cut['code']}, was at {old['code']}")
    if old["seed"] != cut["seed"]:
        lines.append("the seed differs")
    shown = "; ".join(lines[:3])
    return shown + (f" (and {len(lines) - 3} more)" if len(lines) > 3 else "")


def _short(value: Any) -> str:
    text = str(value)
    if isinstance(value, str) and len(text) == 64:
        return text[:12]
    return text if len(text) <= 60 else text[:57] + "..."
