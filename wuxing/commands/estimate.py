"""How an estimate is asked for and shown."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wuxing.compute.estimate import Estimate, Machine
    from wuxing.core.artifact import Artifact
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


def models_of(path: Path) -> dict[str, tuple[ModelConfig, int]]:
    """Each model of a recipe, with the size of its vocabulary."""
    from wuxing.commands.kinds import all_kinds
    from wuxing.core.error import UsageError
    from wuxing.core.recipe import load_recipe
    from wuxing.text.tokenizer_kind import TokenizerConfig
    from wuxing.train.config import ModelConfig

    recipe = load_recipe(path, all_kinds())
    steps = {step.step: step.config for step in recipe.needed_for(None)}
    sizes = {name: config.vocab_size for name, config in steps.items() if isinstance(config, TokenizerConfig)}
    found = {
        name: (config, sizes.get(str(config.tokenizer), 32_768))
        for name, config in steps.items()
        if isinstance(config, ModelConfig)
    }
    if not found:
        raise UsageError(f"{path} trains no model", "Give a recipe with a step of make: model, or a size such as 125m")
    return found


def of_recipe(
    path: Path, machine: Machine, count: int, tokens: int | None, home: Path | None = None, price: float | None = None
) -> dict[str, Estimate | str]:
    """The estimate of each model of a recipe; with `home` for this machine."""
    from wuxing.train.plan.estimate import estimate_step

    return {
        name: estimate_step(config, size, machine, count, tokens, home, price)
        for name, (config, size) in models_of(path).items()
    }


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
    pairs = {"memory_bytes": ("memory", 2**20), "seconds": ("time", 1)}
    known = {
        side: {key: float(checks.get(f"{name}_{side}") or 0) * unit for key, (name, unit) in pairs.items()}
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
    for what, key, text in (("memory", "memory_bytes", show.bytes_text), ("time", "seconds", show.seconds_text)):
        error = found["error"]["memory" if what == "memory" else "seconds"]
        rows.append(
            (what, text(found["planned"][key]), text(found["actual"][key]), "" if error is None else f"{error:+.1%}")
        )
    show.console().print(name, style="bold")
    show.table(("", "planned", "actual", "error"), rows, right=("planned", "actual", "error"))
    low, high = found["estimate"]["seconds"]
    print(f"again on {found['estimate']['device']}: {show.seconds_text(low)} to {show.seconds_text(high)}")


def say_sizes(seconds: float, sizes: list[dict[str, Any]], chosen: str | None, machine: Machine) -> None:
    """For people: what each size would come to in the time."""
    from rich.text import Text

    from wuxing.commands import show

    rows = [
        (
            Text("→" if item["size"] == chosen else "", "green"),
            item["size"],
            f"{item['parameters']:,}",
            f"{item['tokens']:.3g}",
            f"{item['tokens_per_parameter']:,.1f}",
            f"{item['loss']:.3f}",
            show.bytes_text(item["memory_bytes"]) + ("" if item["fits"] else ", too much"),
        )
        for item in sizes
    ]
    print(f"in {show.seconds_text(seconds)} on {machine.name}:")
    columns = ("", "size", "parameters", "tokens", "a parameter", "loss", "memory")
    show.table(columns, rows, right=("parameters", "tokens", "a parameter", "loss"))
    print(
        "loss: nats a token by Besiroglu et al. 2024's fit of Hoffmann et al. 2022, on their text: for comparing only"
    )


def say(found: dict[str, Estimate | str], machine: Machine) -> None:
    """For people: a block for each model, and whether it fits."""
    from rich.text import Text

    from wuxing.commands import show
    from wuxing.compute.estimate import optimal_size

    out = show.console()
    rate, (least, most) = machine.bf16_gflops, machine.share
    out.print(f"{machine.name}: products at {rate / 1000:,.3g} TFLOP/s, of which runs reach {least:.0%} to {most:.0%}")
    for name, item in found.items():
        if isinstance(item, str):
            out.print(Text.assemble((f"{name:<10}", "bold"), f" {item}"))
            continue
        many = f" on each of {item.count}" if item.count > 1 else ""
        room = f"{show.bytes_text(item.memory_bytes)} of {show.bytes_text(item.available_bytes)}{many}"
        spread = f"{show.seconds_text(item.seconds[0])} to {show.seconds_text(item.seconds[1])}"
        speed = f"{item.tokens_per_second[0]:,.3g} to {item.tokens_per_second[1]:,.3g} tokens/s"
        low, high = item.watt_hours[0] / 1000, item.watt_hours[1] / 1000
        rows = [
            ("parameters", f"{item.parameters:,}"),
            ("tokens", f"{item.tokens:,} ({item.tokens / item.parameters:.1f} a parameter)"),
            ("arithmetic", f"{item.flops:.3g} FLOPs"),
            ("memory", f"{room} (by {item.memory_basis}: {parts_text(item.memory_parts)})"),
            ("chosen", f"{item.precision}; {'; '.join(item.why) or 'nothing fits'}"),
            ("time", f"{spread}, {speed} (by {item.time_basis})"),
            ("energy", f"{low:,.3g} to {high:,.3g} kWh, {item.energy_basis}"),
        ]
        if item.cost is not None:
            rows.append(("cost", f"{item.cost[0]:,.2f} to {item.cost[1]:,.2f}"))
        if item.exchange_seconds:
            rows.append(("of it gradients", f"up to {show.seconds_text(item.exchange_seconds)} between devices"))
        best, data = optimal_size(item.flops)
        rows.append(("best use", f"{best:.3g} parameters on {data:.3g} tokens would use these FLOPs best"))
        out.print()
        out.print(Text(name, "bold"))
        for what, value in rows:
            out.print(Text.assemble(f"  {what:<16}", value))
        out.print(Text.assemble("  ", _verdict(item)))


def parts_text(parts: dict[str, int]) -> str:
    """The larger parts of a plan."""
    from wuxing.commands import show

    whole = sum(parts.values()) or 1
    large = sorted(((size, name) for name, size in parts.items() if size > whole / 50), reverse=True)
    return ", ".join(f"{name} {show.bytes_text(size)}" for size, name in large)


def _verdict(item: Estimate) -> tuple[str, str]:
    if item.fits:
        return "fits", "green"
    return f"{item.refused}. What would fit: {'; or '.join(item.remedies) or 'a smaller model'}", "red"
