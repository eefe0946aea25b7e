"""How an estimate is asked for and shown."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wuxing.compute.estimate import Estimate, Machine


def of_recipe(path: Path, machine: Machine, count: int, tokens: int | None) -> dict[str, Estimate | str]:
    """Each model of a recipe."""
    from wuxing.commands.kinds import all_kinds
    from wuxing.core.error import UsageError
    from wuxing.core.recipe import load_recipe
    from wuxing.text.tokenizer_kind import TokenizerConfig
    from wuxing.train.config import ModelConfig
    from wuxing.train.plan.estimate import estimate_step

    recipe = load_recipe(path, all_kinds())
    steps = {step.step: step.config for step in recipe.needed_for(None)}
    sizes = {name: config.vocab_size for name, config in steps.items() if isinstance(config, TokenizerConfig)}
    found = {
        name: estimate_step(config, sizes.get(str(config.tokenizer), 32_768), machine, count, tokens)
        for name, config in steps.items()
        if isinstance(config, ModelConfig)
    }
    if not found:
        raise UsageError(f"{path} trains no model", "Give a recipe with a step of make: model, or a size such as 125m")
    return found


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
        rows = [
            ("parameters", f"{item.parameters:,}"),
            ("tokens", f"{item.tokens:,} ({item.tokens / item.parameters:.1f} a parameter)"),
            ("arithmetic", f"{item.flops:.3g} FLOPs"),
            ("memory", f"{room}, {item.piece_tokens:,} positions at once"),
            ("time", f"{show.seconds_text(item.seconds[0])} to {show.seconds_text(item.seconds[1])}"),
            ("energy", f"{item.watt_hours[0] / 1000:,.3g} to {item.watt_hours[1] / 1000:,.3g} kWh"),
        ]
        if item.exchange_seconds:
            rows.append(("of it gradients", f"up to {show.seconds_text(item.exchange_seconds)} between devices"))
        best, data = optimal_size(item.flops)
        rows.append(("best use", f"{best:.3g} parameters on {data:.3g} tokens would use these FLOPs best"))
        out.print()
        out.print(Text(name, "bold"))
        for what, value in rows:
            out.print(Text.assemble(f"  {what:<16}", value))
        out.print(Text.assemble("  ", _verdict(item)))


def _verdict(item: Estimate) -> tuple[str, str]:
    if item.fits:
        return "fits", "green"
    if item.sharded_over > 1:
        most = f"its state cut over {item.sharded_over} of them would"
        return f"does not fit on one device; {most} (cutting is not built yet)", "red"
    return "does not fit, not even cut over many of them: choose shorter rows or a smaller model", "red"
