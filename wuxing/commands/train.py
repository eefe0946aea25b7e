"""Verbs of phase two: look at a running job, and turn its knobs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wuxing.commands.option import Home, Json, Why, answer, open_context, open_store

PANEL = "Train"


def register(app: typer.Typer) -> None:
    """Add these verbs to the command."""
    app.command(rich_help_panel="Prepare")(estimate)
    app.command(rich_help_panel=PANEL)(progress)
    app.command(rich_help_panel=PANEL)(adjust)
    app.command(rich_help_panel=PANEL)(profile)
    app.command(rich_help_panel=PANEL)(track)


def estimate(
    target: Annotated[
        str | None,
        typer.Argument(help="A recipe, a size such as 125m, or a stored model.", metavar="RECIPE|SIZE|MODEL"),
    ] = None,
    step: Annotated[
        str | None, typer.Argument(help="Of a recipe: one model; all of them without it.", metavar="STEP")
    ] = None,
    device: Annotated[str | None, typer.Option(help="h100, a100, ...; this machine without it.")] = None,
    count: Annotated[int, typer.Option(help="Devices that train one model together.", min=1)] = 1,
    tokens: Annotated[float | None, typer.Option(help="Positions to train on, such as 2e9.")] = None,
    budget: Annotated[
        str | None, typer.Option(help='How large a model to train in "3 min"; alone or of a recipe.')
    ] = None,
    price: Annotated[float | None, typer.Option(help="Of an hour of one device: adds the cost.", min=0)] = None,
    length: Annotated[int, typer.Option(help="Of a size: tokens of a row.", min=8)] = 2048,
    batch: Annotated[int, typer.Option(help="Of a size: positions of an optimizer step.", min=8)] = 524_288,
    vocabulary: Annotated[int, typer.Option(help="Of a size: ids of its tokenizer.", min=259)] = 65_536,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Parameters, FLOPs, memory, time, energy, cost before anything starts; planned and actual of a stored model."""
    from wuxing.commands import estimate as asked
    from wuxing.compute.measure import measured_speed
    from wuxing.core.error import UsageError
    from wuxing.train.plan.estimate import estimate_size, is_size, machine_of, this_machine

    store = open_store(home)
    models = [artifact for artifact in store.all() if artifact.kind == "model"]
    machine = machine_of(device, this_machine(measured_speed(store.home, None), models))
    positions = int(tokens) if tokens else None
    recipe = Path(target) if target is not None and Path(target).suffix in (".yaml", ".yml") else None
    if budget is not None:
        if recipe is not None:
            one = next(iter(asked.models_of(recipe, store, step).values()))
            length, vocabulary = one.config.length_tokens, one.vocab_size
        told = asked.sizes_told(asked.parse_span(budget), vocabulary, length, machine, count, positions)
        answer(told, as_json, lambda: asked.say_sizes(told, machine))
        return
    if target is None:
        raise UsageError("nothing to estimate", 'Name a recipe, a size or a model, or ask --budget "3 min"')
    if step is not None and recipe is None:
        raise UsageError(f"{target} is no recipe, so it has no step {step}", "wuxing estimate recipe.yaml STEP")
    if recipe is None and not is_size(target):
        found_model = store.find(target, ("model",))
        outcome = asked.of_model(found_model, machine)
        answer({found_model.id: outcome}, as_json, lambda: asked.say_model(found_model.id, outcome))
        return
    if recipe is not None:
        here = store.home if device is None else None
        context = open_context(store, quiet=as_json)
        found = asked.of_models(
            asked.models_of(recipe, store, step), machine, count, positions, here, price, context.progress.say
        )
    else:
        found = {target: estimate_size(target, vocabulary, positions, length, batch, machine, count, price)}
    value = {name: item if isinstance(item, str) else item.to_json() for name, item in found.items()}
    answer(value, as_json, lambda: asked.say(found, machine))


def progress(
    model: Annotated[str, typer.Argument(help="A model that is, or was, trained here.", metavar="NAME")],
    live: Annotated[bool, typer.Option("--live", help="Go on looking while it runs.")] = False,
    page: Annotated[Path | None, typer.Option(help="Also write it as an HTML page.")] = None,
    language: Annotated[str, typer.Option(help="Of the page: en or zh.")] = "en",
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Where a run stands: loss, speed, memory, time left."""
    from wuxing.commands.progress import watch
    from wuxing.compute.measure import remembered_speed
    from wuxing.train.watch.view import View, find_run, view

    store = open_store(home)
    name = model.removeprefix("model/").partition("@")[0]
    speed = remembered_speed(store.home)
    gflops = (speed.bf16_gflops or speed.fp32_gflops) if speed else None

    def look() -> View:
        return view(find_run(store.home / "model" / name, store.drafts("model", name)), name, gflops)

    if as_json:
        answer(look().to_json(), True, lambda: None)
        return
    watch(look, page, language, live)
    if page is not None:
        print(f"wrote {page}")


def adjust(
    model: Annotated[str, typer.Argument(help="The model that is being trained.", metavar="NAME")],
    settings: Annotated[list[str], typer.Argument(help="learning_rate=0.001, clip=1, steps=400.", metavar="KNOB=...")],
    why: Why,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Turn a knob of a running job; recorded, and repeated exactly after a kill."""
    from wuxing.core.alias import current_user
    from wuxing.core.error import UsageError, WuxingError
    from wuxing.core.exchange import now
    from wuxing.train.watch.adjust import ask

    store = open_store(home)
    drafts = store.drafts("model", model.removeprefix("model/"))
    if not drafts:
        raise WuxingError(f"no model called {model} is being trained", "Start it: wuxing run RECIPE")
    wanted = dict(setting.partition("=")[::2] for setting in settings)
    if "" in wanted.values():
        raise UsageError(f"{settings[0]} has no value", "Write learning_rate=0.001")
    lines = ask(drafts[-1], wanted, current_user(), why, now())
    said = ", ".join(f"{line['knob']} {line['value']:g}" for line in lines)
    answer(lines, as_json, lambda: print(f"asked {model} for {said}; it follows at its next step"))


def profile(
    target: Annotated[str, typer.Argument(help="A recipe, or a model that was trained here.", metavar="RECIPE|MODEL")],
    step: Annotated[str | None, typer.Argument(help="Of a recipe: the model.", metavar="[STEP]")] = None,
    steps: Annotated[int, typer.Option(help="Steps to look at, by the clock and again by the profiler.", min=1)] = 5,
    trace: Annotated[Path | None, typer.Option(help="Write a trace for ui.perfetto.dev or chrome://tracing.")] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1 or auto.")] = "auto",
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Where the time of a training step goes; nothing in the store changes."""
    import os

    os.environ.setdefault(
        "KINETO_LOG_LEVEL", "6"
    )  # read when torch is first imported: it tells when it starts and ends
    from wuxing.commands import option
    from wuxing.commands.profile import RECIPES, of_recipe, of_store, say
    from wuxing.compute.measure import measured_speed
    from wuxing.train.plan.budget import Start
    from wuxing.train.watch.profile import profile_model

    store = open_store(home)
    context = option.open_context(store, quiet=as_json, device=device)
    asked = Path(target)
    found = of_recipe(asked, step, store, context) if asked.suffix in RECIPES else of_store(store, target)
    start = Start.read(found.directory) if found.directory else None
    speed = measured_speed(store.home, None)
    rate = speed.bf16_gflops if speed.bf16_gflops else speed.fp32_gflops
    looked = profile_model(found.name, found.config, found.parents, found.seed, context, steps, trace, rate, start)
    answer(looked.to_json(), as_json, lambda: say(looked))
    if trace is not None and not as_json:
        print(f"wrote {trace}: open it in ui.perfetto.dev or chrome://tracing")


def track(
    models: Annotated[list[str], typer.Argument(help="Models that are, or were, trained here.", metavar="NAME...")],
    to: Annotated[str, typer.Option("--to", help="tensorboard, wandb or mlflow.")],
    into: Annotated[str | None, typer.Option(help="Directory, or MLflow's address; ./runs without it.")] = None,
    project: Annotated[str, typer.Option(help="The tracker's project or experiment.")] = "wuxing",
    online: Annotated[bool, typer.Option("--online", help="wandb: send to its server; offline without it.")] = False,
    live: Annotated[bool, typer.Option("--live", help="Wait for the models, and go on until they end.")] = False,
    new: Annotated[bool, typer.Option("--new", help="With --live: leave runs alone that have ended before.")] = False,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Mirror the log of a run into TensorBoard, W&B or MLflow."""
    from wuxing.commands.track import mirror_all

    store = open_store(home)
    names = [name.removeprefix("model/") for name in models]
    sent = mirror_all(store, names, to, into, project, online, live, new)
    said = "\n".join(f"{name}: {count:,} lines to {to}" for name, count in sent.items())
    answer(sent, as_json, lambda: print(said))
