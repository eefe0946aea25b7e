"""Verbs of phase three: evaluate stored models, compare two of them, write a report."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from wuxing.commands.option import Home, Json, answer, open_context, open_store

if TYPE_CHECKING:
    from wuxing.core.run import Outcome
    from wuxing.core.store import Store

PANEL = "Evaluate"


def register(app: typer.Typer) -> None:
    """Add these verbs to the command."""
    for verb in (evaluate, compare, report):
        app.command(rich_help_panel=PANEL)(verb)


def evaluate(
    models: Annotated[
        list[str], typer.Argument(help="Models of the store: solver, model/base@v2.", metavar="MODEL...")
    ],
    corpus: Annotated[str | None, typer.Option(help="Corpus whose test split is read: bits per byte, classes.")] = None,
    task: Annotated[list[str] | None, typer.Option(help="Task whose test split is answered; may be repeated.")] = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Measure stored models together, with intervals."""
    from wuxing.core.file import read_json

    store = open_store(home)
    found = [store.find(model, ("model",)) for model in models]
    step: dict[str, Any] = {"make": "evaluation", "models": [artifact.id for artifact in found]}
    if corpus:
        step["corpus"] = store.find(corpus, ("corpus",)).id
    step["tasks"] = [store.find(name, ("task",)).id for name in task or ()]
    outcome = _one_step("-".join(artifact.name for artifact in found), step, store, as_json)
    made = outcome.made[0].artifact
    results = read_json(made.path / "results.json")

    def text() -> None:
        from wuxing.commands import show

        show.results(results["models"])
        print(made.id)

    answer({"artifact": made.id, **results}, as_json, text)
    if outcome.refusal:
        raise outcome.refusal


def compare(
    a: Annotated[str, typer.Argument(metavar="A")],
    b: Annotated[str, typer.Argument(metavar="B")],
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Two models on the items that both were measured on."""
    from wuxing.commands import show
    from wuxing.evaluate.compare import compare as compare_models

    store = open_store(home)
    comparison = compare_models(store.home, store.find(a), store.find(b))

    def text() -> None:
        rows = [
            (
                one.metric,
                show.figure(one.value_a),
                show.figure(one.value_b),
                f"{one.difference.difference:+.4g}",
                _interval(one.difference.to_json()),
                show.figure(one.p_adjusted),
                one.better or "could be chance",
            )
            for one in comparison.measures
        ]
        columns = ("measure", comparison.a, comparison.b, "difference", "95 % interval", "p", "better")
        show.table(columns, rows, right=columns[1:6])

    answer(comparison.to_json(), as_json, text)


def report(
    evaluation: Annotated[str, typer.Argument(help="An evaluation: scores, evaluation/scores@v2.", metavar="ID")],
    language: Annotated[str, typer.Option(help="en or zh.")] = "en",
    title: Annotated[str | None, typer.Option(help="The heading.")] = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Write an evaluation's report, HTML and Markdown."""
    store = open_store(home)
    found = store.find(evaluation, ("evaluation",))
    step = {"make": "report", "of": found.id, "language": language, "title": title}
    outcome = _one_step(f"{found.name}-{language}", step, store, as_json)
    made = outcome.made[0].artifact
    page = made.path / "report.html"
    answer({"artifact": made.id, "page": str(page)}, as_json, lambda: print(page))
    if outcome.refusal:
        raise outcome.refusal


def _one_step(name: str, step: dict[str, Any], store: Store, quiet: bool) -> Outcome:
    """Run a recipe of one step, which the verb wrote itself."""
    from wuxing.commands.kinds import all_kinds
    from wuxing.core.recipe import build_recipe
    from wuxing.core.run import run

    recipe = build_recipe({"name": name, "seed": 0, "steps": {name: step}}, all_kinds(), "this command")
    return run(recipe, store, open_context(store, quiet))


def _interval(value: dict[str, Any]) -> str:
    return f"[{value['low']:.4g}, {value['high']:.4g}]"
