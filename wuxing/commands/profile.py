"""The verb `profile`: which model's steps to look at, and how the answer is shown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wuxing.core.amount import bytes_text

if TYPE_CHECKING:
    from wuxing.core.artifact import Artifact
    from wuxing.core.context import Context
    from wuxing.core.store import Store
    from wuxing.train.watch.profile import Profile

RECIPES = (".yaml", ".yml")


@dataclass(frozen=True)
class Target:
    """A model to be profiled: one that a recipe describes, or one that the store holds."""

    name: str
    config: Any
    parents: Mapping[str, Artifact]
    seed: int
    directory: Path | None
    """Of a trained model, with what its run decided."""


def of_store(store: Store, name: str) -> Target:
    """A trained model, with the parents it had."""
    from wuxing.train.save.replay import recorded_config

    model = store.find(name, ["model"])
    parents = {role: store.find(said["id"]) for role, said in model.record["parents"].items()}
    return Target(model.id, recorded_config(model), parents, int(model.record["slice"]["seed"]), model.path)


def of_recipe(recipe: Path, step: str | None, store: Store, context: Context) -> Target:
    """A model that a recipe describes; what it stands on must be made.  Raises WuxingError where it is not."""
    from wuxing.commands.kinds import all_kinds
    from wuxing.core.error import UsageError, WuxingError
    from wuxing.core.plan import plan, resolve_parents, step_seed
    from wuxing.core.recipe import load_recipe

    loaded = load_recipe(recipe, all_kinds())
    models = [name for name, one in loaded.steps.items() if one.kind.kind == "model"]
    if step is None and len(models) != 1:
        raise UsageError(f"{recipe} trains {len(models)} models", f"Name one of them: {', '.join(models)}")
    step = step or models[0]
    if step not in models:
        raise UsageError(f'{recipe} has no model called "{step}"', f"It has {', '.join(models)}")
    decided = {d.step.step: d for d in plan(loaded, store, context, step)}
    own = loaded.steps[step]
    waiting = [
        p.reference for p in own.parents.values() if p.reference in decided and not decided[p.reference].artifact
    ]
    if waiting:
        raise WuxingError(f"{step} stands on {waiting[0]}, which is not made yet", f"wuxing run {recipe} {waiting[0]}")
    parents = resolve_parents(own, store, {name: d.artifact for name, d in decided.items() if d.artifact})
    return Target(own.name, own.config, parents, step_seed(loaded, own), None)


def say(found: Profile) -> None:
    """Tables for people."""
    from rich.text import Text

    from wuxing.commands import show

    reached = "" if found.reached is None else f", {found.reached:.0%} of the machine's rate of products"
    compiled = "compiled, " if found.compiled else ""
    console = show.console()
    console.print(
        f"{found.model}: {found.step_milliseconds:,.0f} ms a step, {found.tokens_per_second:,.0f} tokens/s, "
        f"{found.gflops:,.0f} GFLOP/s{reached}\n"
        f"{found.precision}, {compiled}{found.threads} threads, {found.device}; "
        f"{bytes_text(found.peak_bytes)} at the peak; {found.steps} steps looked at"
    )

    def bars(values: Mapping[str, float]) -> list[tuple[Any, ...]]:
        whole = sum(values.values()) or 1.0
        return [
            (name, f"{value:,.1f}", f"{value / whole:.0%}", Text("█" * round(32 * value / whole), "blue"))
            for name, value in values.items()
        ]

    show.table(("part of a step", "ms", "share", ""), bars(found.parts), right=("ms", "share"))
    show.table(("kind of operation", "ms", "share", ""), bars(found.kinds), right=("ms", "share"))
    longest = [
        (one.name.removeprefix("aten::"), one.kind, f"{one.calls:,.0f}", f"{one.milliseconds:,.1f}", one.shapes)
        for one in found.operations[:12]
    ]
    show.table(("operation", "kind", "calls", "ms", "largest share's inputs"), longest, right=("calls", "ms"))
