"""Verbs over a whole recipe: begin one, plan it, run it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wuxing.commands.option import Home, Json, answer, open_context, open_store

if TYPE_CHECKING:
    from wuxing.core.context import Context
    from wuxing.core.plan import Decision
    from wuxing.core.recipe import Recipe
    from wuxing.core.run import Made, Outcome
    from wuxing.core.store import Store

PANEL = "Anything"
RecipePath = Annotated[Path, typer.Argument(help="The recipe's YAML file.", metavar="RECIPE")]
Step = Annotated[str | None, typer.Argument(help="Only this step and what it stands on.", metavar="[STEP]")]
Set = Annotated[list[str] | None, typer.Option("--set", help="Change a value: --set base.budget.minutes=1.")]


def register(app: typer.Typer) -> None:
    """Add these verbs to the command."""
    app.command(rich_help_panel=PANEL)(run)
    app.command(rich_help_panel=PANEL)(plan)
    app.command(rich_help_panel=PANEL)(new)
    app.command(rich_help_panel=PANEL)(schema)


def run(
    recipe: RecipePath,
    step: Step = None,
    changes: Set = None,
    accept: Annotated[str | None, typer.Option(help="Go on although evidence failed; the reason is recorded.")] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1 or auto.")] = "auto",
    processes: Annotated[
        str, typer.Option(help="Processes that train one model together: 8, or 4:8 to go on with as few as 4.")
    ] = "",
    replacements: Annotated[int, typer.Option(help="How often lost processes of one model are replaced.", min=0)] = 3,
    on: Annotated[
        str | None,
        typer.Option(help="Where corpora are cleaned and models trained: local, ray; $WUXING_ON without it."),
    ] = None,
    track: Annotated[
        str | None, typer.Option(help="Mirror training logs: tensorboard, wandb or mlflow, or tensorboard:DIRECTORY.")
    ] = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Make what the recipe says, reuse what is made."""
    from wuxing.commands import show
    from wuxing.commands.track import tracking
    from wuxing.core.run import run as run_recipe

    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and os.environ.get("RANK", "0") != "0":
        from wuxing.train.together import main as follow

        return follow()  # torchrun started several of us: only the first runs the recipe
    store = open_store(home)
    context = _where(open_context(store, quiet=as_json, device=device), processes, replacements, on)
    loaded = _load(recipe, changes)
    steps = len(loaded.needed_for(step))
    context.progress.say(f"{loaded.name}: {steps} step{'s' if steps > 1 else ''}, store {store.home}")

    def begin(decision: Decision) -> None:
        if decision.verdict != "reuse":
            context.progress.say(f"… {decision.step.step}: {decision.reason}")

    def end(made: Made) -> None:
        if not as_json:
            show.console().print(show.made_line(made))

    models = [one.name for one in loaded.needed_for(step) if one.kind.kind == "model"]
    try:
        with tracking(store.home, models, track):
            outcome = run_recipe(loaded, store, context, step, accept, begin, end)
    finally:
        if context.team is not None:
            context.team.close()
    value = {
        "made": [made.to_json() for made in outcome.made],
        "refused": outcome.refused,
        "promoted": outcome.promoted,
    }
    refusal = outcome.refusal
    if refusal is None or not as_json:
        answer(value, as_json, lambda: _finish(store, loaded, outcome))
    if refusal:
        raise refusal


def _where(context: Context, processes: str, replacements: int, on: str | None) -> Context:
    """The context with what `run` was told about where things happen."""
    from wuxing.core.error import UsageError

    if processes:
        least, colon, most = processes.partition(":")
        try:
            context.min_processes, context.processes = int(least), int(most if colon else least)
        except ValueError:
            raise UsageError(f'--processes: "{processes}" is no number', "Write 8, or 4:8") from None
        if not 1 <= context.min_processes <= context.processes:
            raise UsageError(f"--processes: {processes} is no range", "Write 8, or 4:8")
    context.replacements = replacements
    context.on = on or context.on
    if context.on not in ("local", "ray"):
        raise UsageError(f'--on: there is no executor "{context.on}"', "Write local or ray")
    return context


def plan(recipe: RecipePath, step: Step = None, changes: Set = None, home: Home = None, as_json: Json = False) -> None:
    """What a run would reuse or make anew, and why."""
    from wuxing.commands import show
    from wuxing.core.plan import plan as plan_recipe

    store = open_store(home)
    decisions = plan_recipe(_load(recipe, changes), store, open_context(store, quiet=True), step)

    def rows() -> list[tuple[str, str, str]]:
        return [
            (item.step.step, item.artifact.id if item.artifact else item.verdict, item.reason) for item in decisions
        ]

    def text() -> None:
        show.table(("step", "reuse or new", "why"), rows())
        if any(item.step.kind.kind == "model" and item.artifact is None for item in decisions):
            print(f"what its models take in memory and time: wuxing estimate {recipe}")

    answer([item.to_json() for item in decisions], as_json, text)


def new(
    template: Annotated[str, typer.Argument(help="A template's name; none lists them.", metavar="[TEMPLATE]")] = "",
    to: Annotated[Path | None, typer.Option(help="The file to write; recipes/NAME.yaml without it.")] = None,
    as_json: Json = False,
) -> None:
    """Write a recipe to begin with."""
    from wuxing.commands import show
    from wuxing.core.error import UsageError, nearest
    from wuxing.core.file import write_text

    templates = {path.stem: path for path in sorted((Path(__file__).parent / "templates").glob("*.yaml"))}
    if not template:
        rows = [(name, path.read_text("utf-8").splitlines()[0].lstrip("# ")) for name, path in templates.items()]
        answer(dict(rows), as_json, lambda: show.table(("template", "what it is for"), rows))
        return
    if template not in templates:
        raise UsageError(f'there is no template "{template}"', nearest(template, templates))
    target = to or Path("recipes") / f"{template}.yaml"
    if target.exists():
        raise UsageError(f"{target} is already there", "Choose another file with --to")
    write_text(target, templates[template].read_text("utf-8"))
    answer({"recipe": str(target)}, as_json, lambda: print(f"wrote {target}; next: wuxing run {target}"))


def schema() -> None:
    """The JSON Schema of recipes, for editors."""
    from wuxing.commands.kinds import all_kinds
    from wuxing.core.schema import recipe_schema

    answer(recipe_schema(all_kinds()), True, lambda: None)


def _load(path: Path, changes: list[str] | None) -> Recipe:
    from wuxing.commands.kinds import all_kinds
    from wuxing.core.recipe import load_recipe

    return load_recipe(path, all_kinds(), changes or ())


def _finish(store: Store, recipe: Recipe, outcome: Outcome) -> None:
    """The last screen: what was made, where the report lies, what to type next."""
    from rich.text import Text

    from wuxing.commands import show
    from wuxing.core.file import read_json

    out = show.console()
    new = sum(not made.reused for made in outcome.made)
    seconds = sum(made.seconds for made in outcome.made)
    out.print()
    if new:
        out.print(f"{recipe.name}: {new} made, {len(outcome.made) - new} reused, in {show.seconds_text(seconds)}")
    else:
        out.print(f"{recipe.name}: nothing to do, everything is up to date ({len(outcome.made)} reused)")
    for made in outcome.made:
        if made.artifact.kind == "evaluation":
            show.results(read_json(made.artifact.path / "results.json")["models"])
    for line in outcome.promoted:
        out.print(Text(f"promoted {line}", "green"))
    for made in outcome.made:
        page = made.artifact.path / "report.html"
        if page.exists():
            out.print(f"report   {page}")
    released = [made.artifact for made in outcome.made if made.artifact.kind == "release"]
    if not released or outcome.refusal:
        return
    name = released[-1].name
    out.print("\nnext")
    for command, what in (
        (f"wuxing serve {name}@production", "chat with it in the browser, or through the OpenAI API"),
        (f"wuxing watch {name}", "traffic, latency and drift of what it answered"),
        (f"wuxing why {name}@production", "everything it stands on, down to the raw data"),
        (f"wuxing feedback {name}", "turn judged answers into the next corpus"),
    ):
        out.print(Text.assemble("  ", (f"{command:<40}", "bold cyan"), (what, "dim")))
