"""The verb that trains one model in several ways, under one budget, and says which was best."""

from __future__ import annotations

import copy
import itertools
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin

import typer

from wuxing.commands.option import Home, Json, answer, open_context, open_store

if TYPE_CHECKING:
    from wuxing.core.artifact import Artifact
    from wuxing.core.context import Context
    from wuxing.core.recipe import Recipe
    from wuxing.core.store import Store

GROUPS = ("optimizer", "schedule", "guard")
"""Parts of a model step whose choices are strategies too."""
LOWER_IS_BETTER = ("bits_per_byte", "masked_bits_per_byte", "nats")


@dataclass
class Way:
    """One way to train the model, and what came of it with each seed."""

    settings: dict[str, str]
    values: list[float] = field(default_factory=list)
    """The held-out measure of the weights that were kept, by seed."""
    seconds: float = 0.0
    models: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    """One line for each seed that ended with an error."""

    @property
    def called(self) -> str:
        """Its settings in a word."""
        return ", ".join(f"{key.rpartition('.')[2]} {value}" for key, value in self.settings.items())

    @property
    def mean(self) -> float:
        """Of the seeds; nan when none came through."""
        return statistics.fmean(self.values) if self.values else math.nan

    @property
    def half(self) -> float | None:
        """Half the 95 % interval of the mean over seeds (Student's t); None for a single one."""
        from scipy.stats import t

        n = len(self.values)
        return float(t.ppf(0.975, n - 1)) * statistics.stdev(self.values) / math.sqrt(n) if n > 1 else None


def register(app: typer.Typer) -> None:
    """Add this verb to the command."""
    app.command(rich_help_panel="Optimise")(strategies)


def strategies(
    recipe: Annotated[Path | None, typer.Argument(help="The recipe's YAML file.", metavar="RECIPE")] = None,
    step: Annotated[str, typer.Argument(help="Its model step, whose budget each way gets.", metavar="STEP")] = "",
    vary: Annotated[
        list[str] | None,
        typer.Argument(help="optimizer.kind=muon,adamw schedule.shape=wsd,cosine: all pairs.", metavar="KEY=..."),
    ] = None,
    seeds: Annotated[
        int, typer.Option(help="So many starts and sample orders of each way; 2 give an interval.", min=1)
    ] = 2,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1 or auto.")] = "auto",
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Train a model in several ways under one budget, and compare them; without a recipe, list what can be varied."""
    from wuxing.core.error import UsageError

    if recipe is None:
        answer([asdict(one) for one in known_strategies()], as_json, _list)
        return
    if not step or not vary:
        raise UsageError("a comparison needs a step and what to vary", "wuxing strategies lists what there is")
    store = open_store(home)
    context = open_context(store, quiet=as_json, device=device)
    ways = [Way(settings) for settings in combinations(vary)]
    loaded = with_ways(recipe, step, ways, seeds)
    metric = ""
    for number, way in enumerate(ways):
        for seed in range(seeds):
            metric = _train(loaded, store, context, name_of(step, number, way, seed), way) or metric
    ways.sort(key=lambda way: _rank(way, metric))
    value = {"metric": metric, "ways": [{**asdict(way), "mean": way.mean, "half": way.half} for way in ways]}
    answer(value, as_json, lambda: _show(ways, metric, seeds))


@dataclass(frozen=True)
class Strategy:
    """One value of a key that decides how a model learns."""

    key: str
    value: str
    example: str
    """As this command takes it."""


def known_strategies() -> list[Strategy]:
    """Every named choice of a model step that decides what is learnt, and of its optimizer, schedule and guard."""
    from wuxing.train.config import ModelConfig

    found = []
    for name, info in ModelConfig.model_fields.items():
        parts = getattr(info.annotation, "model_fields", None) if name in GROUPS else {"": info}
        for part, inner in (parts or {}).items():
            if get_origin(inner.annotation) is Literal and inner.json_schema_extra is None:
                key = f"{name}.{part}" if part else name
                found += [Strategy(key, str(value), f"{key}={value}") for value in get_args(inner.annotation)]
    return found


def _list() -> None:
    from wuxing.commands import show

    keys: dict[str, list[str]] = {}
    for one in known_strategies():
        keys.setdefault(one.key, []).append(one.value)
    show.table(("key", "values", "as written"), [(k, ", ".join(v), f"{k}={','.join(v[:2])}") for k, v in keys.items()])


def combinations(vary: Sequence[str]) -> list[dict[str, str]]:
    """Every combination of the values of `key=one,other` texts.  Raises UsageError for one that is none."""
    from wuxing.core.error import UsageError

    axes = []
    for text in vary:
        key, _, values = text.partition("=")
        if not key or not all(values.split(",")):
            raise UsageError(f'"{text}" names no ways', "Write optimizer.kind=muon,adamw")
        axes.append([(key, value) for value in values.split(",")])
    if len({axis[0][0] for axis in axes}) < len(axes):
        raise UsageError("a key is varied twice", "Write all its values behind one =")
    return [dict(chosen) for chosen in itertools.product(*axes)]


def name_of(step: str, number: int, way: Way, seed: int) -> str:
    """What a way's model of one seed is called: `base-adamw-cosine-2`."""
    words = "-".join("".join(c if c.isalnum() or c == "_" else "-" for c in value) for value in way.settings.values())
    return f"{step}-{words}-{seed + 1}".replace("--", "-").lower()


def with_ways(path: Path, step: str, ways: Sequence[Way], seeds: int) -> Recipe:
    """The recipe with one more step for each way and seed.  Raises UsageError for a step that is no model."""
    from wuxing.commands.kinds import all_kinds
    from wuxing.core.error import UsageError, nearest
    from wuxing.core.recipe import build_recipe, load_recipe
    from wuxing.core.yaml import parse_scalar

    plain = load_recipe(path, all_kinds())
    value: dict[str, Any] = copy.deepcopy(plain.source)
    steps = value["steps"]
    if step not in steps:
        raise UsageError(f'there is no step "{step}"', nearest(step, steps))
    if steps[step]["make"] != "model":
        raise UsageError(f"{step} is no model", "Name a step of make: model")
    for (number, way), seed in itertools.product(enumerate(ways), range(seeds)):
        one = copy.deepcopy(steps[step])
        one.pop("name", None)
        one["seed"] = plain.seed + seed
        for key, text in way.settings.items():
            *parts, last = key.split(".")
            here = one
            for part in parts:
                if not isinstance(here.setdefault(part, {}), dict):
                    here[part] = {here[part]: {}} if isinstance(here[part], str) else {}
                here = here[part]
            here[last] = parse_scalar(text)
        name = name_of(step, number, way, seed)
        if name in steps:
            raise UsageError(f'two ways would be called "{name}"', "Give values that differ in letters or digits")
        steps[name] = one
    return build_recipe(value, all_kinds(), str(path))


def _train(recipe: Recipe, store: Store, context: Context, name: str, way: Way) -> str:
    """Train one, or find it in the store; returns the name of its measure, empty when it ended with an error."""
    from wuxing.core.error import Interrupted, WuxingError
    from wuxing.core.run import run

    try:
        made = {one.step: one.artifact for one in run(recipe, store, context, name).made}
    except Interrupted:
        raise
    except WuxingError as error:
        way.failed.append(f"{name}: {error.what}")
        return ""
    if name not in made:
        way.failed.append(f"{name}: what it stands on failed its evidence")
        return ""
    metric, value, seconds = _result(made[name])
    way.values.append(value)
    way.seconds += seconds
    way.models.append(made[name].id)
    return metric


def _result(model: Artifact) -> tuple[str, float, float]:
    """(name of the measure, its value, seconds)."""
    from wuxing.core.file import read_json

    training: Mapping[str, Any] = read_json(model.file("training.json"))
    kept = next(line for line in reversed(training["validation"]) if line["step"] == training["kept_step"])
    metric = next(name for name in kept if name != "step")
    return metric, float(kept[metric]), float(model.record["summary"]["seconds"])


def _rank(way: Way, metric: str) -> float:
    """The best first, those that failed last."""
    if not way.values:
        return math.inf
    return way.mean if metric.partition("/")[0] in LOWER_IS_BETTER else -way.mean


def _show(ways: Sequence[Way], metric: str, seeds: int) -> None:
    from wuxing.commands import show

    def line(way: Way) -> tuple[str, ...]:
        half = "" if way.half is None else f" ± {way.half:.4f}"
        value = f"{way.mean:.4f}{half}" if way.values else "failed"
        seconds = f"{way.seconds / len(way.values):.0f}" if way.values else ""
        return way.called, value, f"{len(way.values)} of {seeds}", seconds

    measure = metric.replace("_", " ") or "held-out measure"
    show.table(("way", measure, "seeds", "seconds"), [line(way) for way in ways], right=(measure, "seeds", "seconds"))
    for way in ways:
        for failure in way.failed:
            print(failure)
