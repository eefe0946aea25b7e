"""How an estimate is asked for and shown."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wuxing.core.amount import bytes_text

if TYPE_CHECKING:
    from wuxing.compute.estimate import Estimate, Machine
    from wuxing.core.artifact import Artifact
    from wuxing.core.store import Store
    from wuxing.train.config import ModelConfig


def parse_span(text: str) -> float:
    """Seconds of `3 min`, `90 s`, `2h` or `1 day`.  Raises UsageError."""
    import re

    from wuxing.core.error import UsageError

    units = {"s": 1, "sec": 1, "min": 60, "m": 60, "h": 3600, "hour": 3600, "day": 86_400, "d": 86_400}
    match = re.fullmatch(
        r"\s*([0-9.]+)\s*([a-z]+?)s?\s*", text.lower().replace("seconds", "s").replace("minutes", "min")
    )
    if match is None or match[2] not in units:
        raise UsageError(f'"{text}" is no span of time', 'Write "3 min", "90 s" or "2 h"')
    return float(match[1]) * units[match[2]]


@dataclass(frozen=True)
class Planned:
    """A model of a recipe, and what is known of its network."""

    config: ModelConfig
    vocab_size: int
    started_from: Mapping[str, Any] | None
    """The shape of the model that it goes on from; None where that is not known, or where it begins anew."""
    parents: Mapping[str, Artifact] | None = None
    """Of one with a task: the model to start from and the task, where both are made."""


def models_of(path: Path, store: Store, only: str | None = None) -> dict[str, Planned]:
    """The models of a recipe, or the one of step `only`.  Raises UsageError where there is none."""
    from wuxing.commands.kinds import all_kinds
    from wuxing.core.error import UsageError
    from wuxing.core.file import read_json
    from wuxing.core.recipe import load_recipe
    from wuxing.model.architecture import resolve
    from wuxing.text.tokenizer_kind import TokenizerConfig
    from wuxing.train.config import ModelConfig

    recipe = load_recipe(path, all_kinds())
    steps = {step.step: step.config for step in recipe.needed_for(only)}
    sizes = {name: config.vocab_size for name, config in steps.items() if isinstance(config, TokenizerConfig)}
    models = {name: config for name, config in steps.items() if isinstance(config, ModelConfig)}
    if only is not None and only not in models:
        raise UsageError(f"{only} is no model", "Name a step of make: model, or none for all of them")
    if not models:
        raise UsageError(f"{path} trains no model", "Give a recipe with a step of make: model, or a size such as 125m")
    shapes: dict[str, Mapping[str, Any] | None] = {}
    found = {}
    for name, config in models.items():
        vocabulary = sizes.get(str(config.tokenizer), 32_768)
        before = None if config.architecture else _shape_of(str(config.start_from), shapes, store)
        shapes[name] = resolve(config.architecture, vocabulary) if config.architecture else before
        if only in (None, name):
            parents = _made(config, before, store) if config.task else None
            shape = read_json(parents["start_from"].file("config.json")) if parents else before
            found[name] = Planned(config, vocabulary, shape, parents)
    return found


def _made(config: ModelConfig, shape: Mapping[str, Any] | None, store: Store) -> Mapping[str, Artifact] | None:
    """The model that one with a task starts from, and the task; None where one is not made, or not in this shape."""
    from wuxing.core.error import WuxingError
    from wuxing.core.file import read_json

    try:
        start, task = store.find(str(config.start_from), ("model",)), store.find(str(config.task), ("task",))
    except WuxingError:  # not made yet
        return None
    made = read_json(start.file("config.json"))
    alike = all((shape or made)[key] == made[key] for key in ("hidden_size", "num_hidden_layers", "model_type"))
    return {"start_from": start, "task": task} if alike else None


def _shape_of(name: str, shapes: Mapping[str, Mapping[str, Any] | None], store: Store) -> Mapping[str, Any] | None:
    """The shape of a model of the same recipe, or of one that is made; None where neither is there."""
    from wuxing.core.error import WuxingError
    from wuxing.core.file import read_json

    if name in shapes:
        return shapes[name]
    try:
        config: dict[str, Any] = read_json(store.find(name, ("model",)).file("config.json"))
    except WuxingError:  # not made yet
        return None
    return config


def of_models(
    models: Mapping[str, Planned],
    machine: Machine,
    count: int,
    tokens: int | None,
    home: Path | None,
    price: float | None,
    say: Callable[[str], None],
) -> dict[str, Estimate | str]:
    """The estimate of each; with `home` for this machine, where real steps are tried."""
    from wuxing.train.plan.estimate import estimate_step

    found = {}
    for name, one in models.items():
        if home is not None:
            say(f"{name}: a few real steps are tried")
        asked = (one.config, one.vocab_size, machine, count, tokens, home, price)
        found[name] = estimate_step(*asked, started_from=one.started_from, parents=one.parents)
    return found


def of_model(artifact: Artifact, machine: Machine) -> dict[str, Any]:
    """What a stored model was planned to take, what it took, and what making it on `machine` would take."""
    from wuxing.compute.estimate import estimate_training
    from wuxing.core.file import read_json
    from wuxing.model.architecture import count_parameters

    checks = {check.name: check.value for check in artifact.evidence.checks}
    training, shape = read_json(artifact.file("training.json")), read_json(artifact.file("config.json"))
    parameters, length, positions = count_parameters(shape), training["length_tokens"], training["positions"]
    batch = max(length, positions // max(1, training["steps"]))
    again = estimate_training(shape, parameters, max(1, positions), length, batch, machine)
    kept = read_json(artifact.file("plan.json")) if "plan.json" in artifact.record["files"] else {}
    known = {
        side: {key: float(kept.get(side, {}).get(key) or 0) for key in ("memory_bytes", "seconds")}
        for side in ("planned", "actual")
    }
    error = {}
    for name, check, key in (("memory", "memory_error", "memory_bytes"), ("seconds", "time_error", "seconds")):
        planned, actual = known["planned"][key], known["actual"][key]
        error[name] = checks.get(check, round(planned / actual - 1, 4) if actual and planned else None)
    return {**known, "error": error, "watt_hours": checks.get("energy"), "estimate": again.to_json()}


def say_model(name: str, found: dict[str, Any]) -> None:
    """For people: planned beside actual."""
    from wuxing.commands import show

    rows = []
    for what, key, text in (("memory", "memory_bytes", bytes_text), ("time", "seconds", show.seconds_text)):
        error = found["error"]["memory" if what == "memory" else "seconds"]
        rows.append(
            (what, text(found["planned"][key]), text(found["actual"][key]), "" if error is None else f"{error:+.1%}")
        )
    show.console().print(name, style="bold")
    show.table(("", "planned", "actual", "error"), rows, right=("planned", "actual", "error"))
    low, high = found["estimate"]["seconds"]
    print(f"again on {found['estimate']['device']}: {show.seconds_text(low)} to {show.seconds_text(high)}")


def sizes_told(
    seconds: float, vocabulary: int, length: int, machine: Machine, count: int, tokens: int | None
) -> dict[str, Any]:
    """What each size would come to in the time, and which of those that fit has the least loss."""
    from wuxing.train.plan.estimate import sizes_for

    sizes = sizes_for(seconds, vocabulary, length, machine, count, tokens)
    chosen = min((item for item in sizes if item["fits"]), key=lambda item: item["loss"], default=None)
    best = chosen["size"] if chosen else None
    return {"budget_seconds": seconds, "chosen": best, "sizes": sizes, "source": "Besiroglu et al. 2024"}


def say_sizes(told: dict[str, Any], machine: Machine) -> None:
    """For people: what each size would come to in the time."""
    from rich.text import Text

    from wuxing.commands import show

    seconds, sizes, chosen = told["budget_seconds"], told["sizes"], told["chosen"]
    rows = [
        (
            Text("→" if item["size"] == chosen else "", "green"),
            item["size"],
            f"{item['parameters']:,}",
            show.count_text(item["tokens"]),
            f"{item['tokens_per_parameter']:,.1f}",
            f"{item['loss']:.2f}" if item["loss"] < item["uniform_loss"] else "–",
            bytes_text(item["memory_bytes"]) + ("" if item["fits"] else ", too much"),
        )
        for item in sizes
    ]
    print(f"in {show.seconds_text(seconds)} on {machine.name}:")
    columns = ("", "size", "parameters", "tokens", "a parameter", "loss", "memory")
    show.table(columns, rows, right=("parameters", "tokens", "a parameter", "loss"))
    print("loss: nats a token by Besiroglu et al. 2024's fit of Hoffmann et al. 2022, on their text: to compare sizes")
    if any(item["loss"] >= item["uniform_loss"] for item in sizes):
        print("–: so few tokens that the law says more than knowing nothing would; take its order of sizes as a hint")


def say(found: dict[str, Estimate | str], machine: Machine) -> None:
    """For people: a block for each model, and whether it fits."""
    from rich.text import Text

    from wuxing.commands import show

    out = show.console()
    (least, most), rate = machine.share, machine.bf16_gflops
    speed = f"{rate / 1000:,.3g} TFLOP/s" if rate >= 1000 else f"{rate:,.0f} GFLOP/s"
    out.print(f"{machine.name}: products at {speed}, of which runs reach {least:.0%} to {most:.0%}")
    for name, item in found.items():
        out.print()
        out.print(Text(name, "bold"))
        if isinstance(item, str):
            out.print(Text(f"  {item}"))
            continue
        rows: list[tuple[Any, Any]] = [*_needs(item), *(_takes(item) if item.fits else ())]
        if item.fits:
            rows.append((Text("fits", "green"), ""))
        else:
            rows.append((Text("refused", "bold red"), item.refused or ""))
            rows += [(Text("instead" if turn == 0 else "or"), what) for turn, what in enumerate(_remedies(item))]
        show.pairs(rows)


def _remedies(item: Estimate) -> tuple[str, ...]:
    return item.remedies or ("a smaller model",)


def _needs(item: Estimate) -> list[tuple[str, str]]:

    many = f" on each of {item.count}" if item.count > 1 else ""
    low, high = (bytes_text(size) for size in item.memory_interval)
    room = f"{bytes_text(item.memory_bytes)}{many} ({low} to {high}); {bytes_text(item.available_bytes)} free"
    how = "measured on slices of it" if item.memory_basis == "probe" else "by formula"
    return [
        ("parameters", f"{item.parameters:,}"),
        ("tokens", f"{item.tokens:,} ({item.tokens / item.parameters:.2g} a parameter)"),
        ("arithmetic", f"{item.flops:.3g} FLOPs"),
        ("memory", room),
        ("", f"{how}: {parts_text(item.memory_parts)}"),
    ]


def _takes(item: Estimate) -> list[tuple[str, str]]:
    from wuxing.commands import show

    low, high = item.seconds
    slow, fast = item.tokens_per_second
    span = f"{show.seconds_text(low)} to {show.seconds_text(high)}" if low < high else show.seconds_text(low)
    rows = [
        ("chosen", f"{item.precision}; {'; '.join(item.why)}"),
        ("time", f"{span}, {show.count_text(slow)} to {show.count_text(fast)} tokens/s"),
        ("", f"by {item.time_basis}"),
        ("energy", f"{_energy(*item.watt_hours)}, {item.energy_basis}"),
    ]
    if item.cost is not None:
        rows.append(("cost", f"{item.cost[0]:,.2f} to {item.cost[1]:,.2f}"))
    if item.exchange_seconds:
        rows.append(
            ("of that time", f"up to {show.seconds_text(item.exchange_seconds)} for what travels between devices")
        )
    best, data = (show.count_text(item.optimal[key]) for key in ("parameters", "tokens"))
    return [*rows, ("best use", f"of as many FLOPs: {best} parameters on {data} tokens (20 a parameter)")]


def _energy(low: float, high: float) -> str:
    """Of watt hours."""
    from wuxing.commands import show

    unit, name = next((u, n) for u, n in ((1e6, "MWh"), (1e3, "kWh"), (1, "Wh"), (0, "Wh")) if high >= 10 * u)
    return f"{show.count_text(low / (unit or 1))} to {show.count_text(high / (unit or 1))} {name}"


WORDS = {
    "copies": "checkpoint copies",
    "other": "libraries and data",
    "casts": "copies for the products",
    "reference": "the model it started from",
    "replies": "drawing replies",
}
"""Of the parts of a plan, for people."""


def parts_text(parts: dict[str, int]) -> str:
    """The larger parts of a plan."""

    whole = sum(parts.values()) or 1
    large = sorted(((size, name) for name, size in parts.items() if size > whole / 50), reverse=True)
    return ", ".join(f"{WORDS.get(name, name)} {bytes_text(size)}" for size, name in large)
