"""The run: makes what the plan calls new, signs it, refuses what lacks evidence.  Killed at any instant, run again."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wuxing.core.alias import current_user
from wuxing.core.artifact import Artifact
from wuxing.core.context import Context
from wuxing.core.environment import environment
from wuxing.core.error import RefusedError, WuxingError, disk_trouble
from wuxing.core.exchange import now
from wuxing.core.file import append_line, write_json
from wuxing.core.plan import Decision, decide, resolve_parents, step_seed
from wuxing.core.recipe import Recipe, Step
from wuxing.core.store import SLICE, Store


@dataclass(frozen=True)
class Made:
    """One step's outcome."""

    step: str
    artifact: Artifact
    reused: bool
    seconds: float
    reason: str

    def to_json(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "artifact": self.artifact.id,
            "reused": self.reused,
            "seconds": round(self.seconds, 2),
            "reason": self.reason,
            "summary": self.artifact.record["summary"],
            "failures": self.artifact.failures,
        }


@dataclass
class Outcome:
    """What a run did, step by step, and what it refused to start."""

    made: list[Made] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    promoted: list[str] = field(default_factory=list)

    def artifact(self, step: str) -> Artifact:
        """The artifact that a step ended with; KeyError when it was refused."""
        return {made.step: made.artifact for made in self.made}[step]

    @property
    def refusal(self) -> RefusedError | None:
        """The error that ends a run whose evidence said no."""
        failed = [
            f"{made.artifact.id} failed its evidence: {'; '.join(made.artifact.failures)}"
            for made in self.made
            if made.artifact.failures
        ]
        if not failed and not self.refused:
            return None
        text = ". ".join(failed) or "a step was refused"
        if self.refused:
            text += f". Not started: {', '.join(self.refused)}"
        return RefusedError(text, 'Mend the recipe or the data; or go on with --accept "reason", which is recorded')


def run(
    recipe: Recipe,
    store: Store,
    context: Context,
    target: str | None = None,
    accept: str | None = None,
    begin: Callable[[Decision], None] = lambda decision: None,
    end: Callable[[Made], None] = lambda made: None,
) -> Outcome:
    """Make every step that `target` needs.  Steps that read a failed artifact are not started; others are.

    `begin` hears each decision before its step, `end` what came of it.
    """
    outcome = Outcome()
    decided: dict[str, Decision] = {}
    log = store.home / "runs" / f"{now()[:10]}.jsonl"
    with context.stop.listening():
        for step in recipe.needed_for(target):
            context.stop.leave("finished steps are in the store")
            if _stands_on_failed(step, outcome, store):
                outcome.refused.append(step.step)
                continue
            decision = decide(step, recipe, store, context, decided)
            begin(decision)
            started = time.monotonic()
            artifact = decision.artifact or _make(decision, recipe, store, context, outcome)
            if artifact.failures and accept:
                artifact = store.accept(artifact, accept, current_user())
            made = Made(step.step, artifact, decision.artifact is not None, time.monotonic() - started, decision.reason)
            outcome.made.append(made)
            decided[step.step] = Decision(step, decision.verdict, decision.reason, artifact, decision.slice)
            append_line(log, {"time": now(), "recipe": recipe.name, **made.to_json()})
            end(made)
            _promote(artifact, store, outcome, accept)
    return outcome


def _stands_on_failed(step: Step, outcome: Outcome, store: Store) -> bool:
    failed = {made.step for made in outcome.made if made.artifact.failures} | set(outcome.refused)
    if any(parent.reference in failed for parent in step.parents.values()):
        return True
    inside = {made.step for made in outcome.made}
    for parent in step.parents.values():
        if parent.reference not in inside:
            store.require_evidence(store.find(parent.reference, parent.kinds), step.step)
    return False


def _make(decision: Decision, recipe: Recipe, store: Store, context: Context, outcome: Outcome) -> Artifact:
    step, cut = decision.step, decision.slice
    assert cut is not None
    parents = resolve_parents(step, store, {made.step: made.artifact for made in outcome.made})
    for parent in parents.values():
        store.require_whole(parent)
    kind, seed, started = step.kind, step_seed(recipe, step), time.monotonic()
    with (
        _explained(step, store),
        store.making(kind.kind, step.name, decision.fingerprint, seed, kind.resumable) as draft,
    ):
        write_json(draft.path / SLICE, cut)
        kind.make(step.config, parents, draft, context)
        record = {
            "step": step.step,
            "recipe": {"name": recipe.name, "source": recipe.source},
            "config": step.config.model_dump(mode="json"),
            "slice": cut,
            "parents": _parents(step, parents),
            "created": now(),
            "seconds": round(time.monotonic() - started, 3),
            "environment": environment(),
            "failures": draft.evidence.failures(kind.required),
        }
        return store.sign(draft, record, kind.volatile)


def _parents(step: Step, parents: Mapping[str, Artifact]) -> dict[str, Any]:
    return {
        role: {"id": artifact.id, "content": artifact.content, "members": list(step.parents[role].members)}
        for role, artifact in parents.items()
    }


def _promote(artifact: Artifact, store: Store, outcome: Outcome, accept: str | None) -> None:
    wish = artifact.record["summary"].get("promote")
    if not wish or artifact.failures or store.aliases.was_promoted(artifact, wish["alias"]):
        return
    store.aliases.promote(artifact, wish["alias"], f"accepted: {accept}" if accept else "its gate passed")
    outcome.promoted.append(f"{artifact.name}@{wish['alias']} -> {artifact.id}")


@contextmanager
def _explained(step: Step, store: Store) -> Iterator[None]:
    """Turn what the machine says (disk full, out of memory) into one line with its remedy."""
    try:
        yield
    except OSError as error:
        trouble = disk_trouble(error)
        if not trouble:
            raise
        disk = os.statvfs(_place(store))
        if error.errno == errno.ENOSPC and disk.f_files and not disk.f_favail:
            trouble = "the disk has no room for another file (its inodes are used up)"
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        free = "Free space there (wuxing prune shows what can go)" if full else "Mend that"
        raise WuxingError(
            f"{trouble} while making {step.kind.kind}/{step.name}; nothing was lost",
            f"{free}, then type the same command again: {_place(store)}",
        ) from error
    except MemoryError as error:
        raise WuxingError(
            f"memory ran out while making {step.kind.kind}/{step.name}; nothing was lost",
            "Close other programs, or choose a smaller size or batch in the recipe",
        ) from error


def _place(store: Store) -> Path:
    return store.home.resolve()
