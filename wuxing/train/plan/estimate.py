"""From a recipe's model, or a bare size, to an estimate; and the shares that this store's runs have reached."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from wuxing.compute.device import pick_device, pick_precision
from wuxing.compute.energy import CORE_WATTS
from wuxing.compute.estimate import (
    CPU_SHARE,
    GPU_SHARE,
    Estimate,
    Machine,
    device_named,
    estimate_training,
    expected_loss,
    optimal_size,
    shares_of_runs,
)
from wuxing.compute.memory import MemoryPlan, available_memory, plan_compute
from wuxing.core.artifact import Artifact
from wuxing.core.error import UsageError
from wuxing.core.file import read_json
from wuxing.model.architecture import Architecture, count_parameters, resolve
from wuxing.task.task import StoredTask, load_task
from wuxing.text.tokenizer import Tokenizer
from wuxing.train.config import ModelConfig
from wuxing.train.plan.calibration import entries, memory_factor
from wuxing.train.plan.drawing_time import measure_drawing
from wuxing.train.plan.memory import PIECE_POSITIONS, plan_run
from wuxing.train.plan.reply import fewer_rows, passes, rows_of
from wuxing.train.plan.timing import Timing, measure_seconds
from wuxing.train.rollout import lengths_of

TRIED = "a trial of real steps here"
MADE_UP = f"{TRIED}, with made-up replies of the longest kind: the model to start from or its task is not made yet"
OTHERS = 0.2
"""A larger share of the cores, in other hands while steps were tried, is said."""
_DIAL = (1, 1.5, 2, 3, 5, 7)
SIZES = tuple(f"{step * ten:g}{unit}" for unit in "mb" for ten in (1, 10, 100) for step in _DIAL)


def this_machine(speed: Any, models: Iterable[Artifact]) -> Machine:
    """The device of this machine as measured, with the shares that runs on such a device reached."""
    gflops = float(speed.bf16_gflops or speed.fp32_gflops)
    if torch.cuda.is_available():
        whole = torch.cuda.mem_get_info()[1]
        prior, watts, name = GPU_SHARE, (150.0, 700.0), torch.cuda.get_device_name()
    else:
        whole, prior, name = available_memory(), CPU_SHARE, "this machine's CPU"
        cores = len(os.sched_getaffinity(0))
        watts = (CORE_WATTS[0] * cores, CORE_WATTS[1] * cores)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    known = [(model, share) for model in models if (share := share_of(model, device, gflops)) is not None][-20:]
    runs = tuple((*_size_of(model), share) for model, share in known)
    shares = shares_of_runs([share for _, share in known][-10:], prior)
    return Machine(name, gflops, whole, watts, shares, runs=runs)


def _size_of(model: Artifact) -> tuple[int, int]:
    return count_parameters(read_json(model.path / "config.json")), int(
        read_json(model.path / "training.json")["length_tokens"]
    )


def share_of(model: Artifact, device: str, gflops: float) -> float | None:
    """The share of the products' rate that a trained model's run reached; None where its files do not say."""
    if (
        not {"training.json", "config.json"} <= set(model.record["files"])
        or not (model.path / "evidence.json").exists()
    ):
        return None
    training, shape = read_json(model.path / "training.json"), read_json(model.path / "config.json")
    checks = {check["name"]: check["value"] for check in read_json(model.path / "evidence.json")}
    seconds = checks.get("time_actual")
    if training["device"] != device or not seconds or training["objective"].get("grpo"):
        return None
    work = plan_compute(shape, count_parameters(shape), training["positions"], training["length_tokens"], gflops, 1.0)
    return work.seconds / float(seconds)


def estimate_step(
    config: ModelConfig,
    vocab_size: int,
    machine: Machine,
    count: int = 1,
    tokens: int | None = None,
    home: Path | None = None,
    price: float | None = None,
    started_from: Mapping[str, Any] | None = None,
    parents: Mapping[str, Artifact] | None = None,
) -> Estimate | str:
    """The estimate of a recipe's model, or why there is none yet.

    `started_from`: the shape of the model that it goes on from, where that is known already.
    With `home` it is one for this machine: memory and time are measured on real steps, where those take seconds.
    `parents`: the model to start from and the task of one that learns from its own replies, where they are made.
    """
    if config.architecture is None and started_from is None:
        return "starts from another model: its size is known once that is made"
    shape = dict(started_from or {}) if config.architecture is None else resolve(config.architecture, vocab_size)
    parameters = count_parameters(shape)
    lengths = lengths_of(*_asked(parents)) if parents else None
    positions = tokens or budget_tokens(config, shape, parameters, machine, count, parents)
    if positions is None:
        return "its budget is in epochs: give --tokens, or make its tokens first"
    place = pick_device() if home is not None else torch.device("cuda")
    device, precision = place.type, pick_precision(place) if home is not None else torch.bfloat16
    runs = entries(home) if home is not None else []

    def plan(tried: ModelConfig) -> MemoryPlan:
        found = plan_run(tried, shape, precision, device, measured=home is not None, lengths=lengths)
        more = round(found.peak * (memory_factor(runs, found.peak, device) - 1))
        return replace(found, other=found.other + more)

    def cut(piece: int, again: bool) -> ModelConfig:
        tried = config.model_copy(update={"piece_tokens": piece, "recompute": again or bool(config.recompute)})
        return most_rows(tried, plan, machine.memory_bytes)

    of_data = (shape, parameters, positions, config.length_tokens, config.step_positions)
    piece = config.piece_tokens or PIECE_POSITIONS
    found = estimate_training(
        *of_data, machine, count, piece_tokens=piece, planner=lambda *way: plan(cut(*way)), price=price
    )
    copies = 0 if device == "cpu" else 4 * parameters + found.memory_parts["optimizer"]
    found = replace(found, precision=str(precision).removeprefix("torch."), host_bytes=copies)
    tried = cut(found.piece_tokens, found.recompute)
    if config.rollout is not None:
        found = _of_replies(found, config, rows_of(tried), plan, machine)
    if home is None or not found.fits or count > 1:
        return found
    if config.rollout is not None:
        asked = (shape, positions / config.step_positions, precision, device, parents, lengths)
        timing, basis = measure_drawing(tried, *asked), TRIED if parents else MADE_UP
    else:
        timing, basis = measure_seconds(tried, shape, positions, precision, device), TRIED
    minutes = config.budget.minutes if tokens is None else None
    return found if timing is None else _timed(found, timing, minutes, basis)


def most_rows(config: ModelConfig, plan: Callable[[ModelConfig], MemoryPlan], free: int) -> ModelConfig:
    """With as many replies at once as fit, or where drawing them takes no more than learning does."""
    for tried in fewer_rows(config):
        found = plan(tried)
        if found.peak <= free or not found.replies:
            break
    return tried


def _asked(parents: Mapping[str, Artifact]) -> tuple[StoredTask, Tokenizer]:
    return load_task(parents["task"].path), Tokenizer.load(parents["start_from"].path)


def _of_replies(
    found: Estimate, config: ModelConfig, rows: int, plan: Callable[[ModelConfig], MemoryPlan], machine: Machine
) -> Estimate:
    """With what drawing replies adds: its arithmetic, how many are drawn at once, and what would fit instead."""
    assert config.rollout is not None
    more = passes(config)
    found = replace(
        found,
        flops=found.flops * more,
        seconds=(found.seconds[0] * more, found.seconds[1] * more),
        expected_seconds=found.expected_seconds * more,
        watt_hours=(found.watt_hours[0] * more, found.watt_hours[1] * more),
        tokens_per_second=(found.tokens_per_second[0] / more, found.tokens_per_second[1] / more),
        time_basis=f"{found.time_basis}; drawing replies waits for memory too, so it may take longer",
        rollout_rows=rows,
        why=(*found.why, f"{rows:,} replies drawn at once"),
    )
    if found.fits or config.rollout.rows is None:
        return found
    free = config.model_copy(update={"rollout": config.rollout.model_copy(update={"rows": None})})
    fewer = most_rows(free, plan, machine.memory_bytes)
    if plan(fewer).peak > machine.memory_bytes:
        return found
    return replace(found, remedies=(f"rollout.rows of {rows_of(fewer):,}, or leave it out", *found.remedies))


def _timed(found: Estimate, timing: Timing, minutes: float | None, basis: str = TRIED) -> Estimate:
    """With the time of a trial; of a budget in minutes as many steps as go into it."""
    seconds, error = timing.seconds, timing.error
    if timing.others > OTHERS:
        basis += f", while other programs had {timing.others:.0%} of the machine"
    if minutes is not None:
        share = minutes * 60 / seconds
        best, data = optimal_size(found.flops * share)
        found = replace(found, tokens=round(found.tokens * share), flops=found.flops * share)
        found = replace(found, optimal={"parameters": best, "tokens": data})
        fixed = found.timed(minutes * 60, 0.0, basis)
        rate = found.tokens / fixed.expected_seconds
        return replace(fixed, tokens_per_second=(rate / (1 + error), rate * (1 + error)))
    return found.timed(seconds, error, basis)


def sizes_for(
    seconds: float,
    vocab_size: int,
    length_tokens: int,
    machine: Machine,
    count: int = 1,
    data_tokens: int | None = None,
) -> list[dict[str, Any]]:
    """What each size of the dial would come to in so many seconds, with the loss that is to be expected.

    More than four passes over `data_tokens` count for little (Muennighoff et al. 2023): tokens beyond are not counted.
    """
    found: list[dict[str, Any]] = []
    for size in SIZES:
        tie = size[-1] != "b"
        try:
            shape = resolve(Architecture(size=size, max_positions=length_tokens, tie_embeddings=tie), vocab_size)
        except UsageError:
            continue  # the vocabulary is larger than the size
        parameters = count_parameters(shape)
        least, share, most, _ = machine.shares(parameters, length_tokens)
        one = plan_compute(shape, parameters, 1, length_tokens, machine.bf16_gflops * count, share)
        tokens = seconds / one.seconds
        if tokens < parameters / 20 and found:
            break
        need = estimate_training(shape, parameters, max(1, int(tokens)), length_tokens, length_tokens, machine, count)
        seen = min(tokens, 4 * data_tokens) if data_tokens else tokens
        found.append(
            {
                "size": size,
                "parameters": parameters,
                "tokens": int(tokens),
                "tokens_interval": [int(tokens * least / share), int(tokens * most / share)],
                "tokens_per_parameter": round(tokens / parameters, 2),
                "uniform_loss": round(math.log(vocab_size), 4),
                "loss": round(expected_loss(parameters, max(1.0, seen)), 4),
                "memory_bytes": need.memory_bytes,
                "fits": need.fits,
            }
        )
    return found


def budget_tokens(
    config: ModelConfig,
    shape: Mapping[str, Any],
    parameters: int,
    machine: Machine,
    count: int,
    parents: Mapping[str, Artifact] | None = None,
) -> int | None:
    """Positions of a budget; of one in minutes, what the middle of the machine's shares makes of them."""
    budget = config.budget
    if budget.tokens is not None:
        return budget.tokens
    if budget.steps is not None:
        return budget.steps * config.step_positions
    if budget.epochs is not None and config.rollout is not None and parents is not None:
        prompts = len(_asked(parents)[0].examples("train"))
        return round(budget.epochs * prompts / config.rollout.prompts) * config.step_positions
    if budget.minutes is None:
        return None
    share = machine.shares(parameters, config.length_tokens)[1]
    one = plan_compute(shape, parameters, 1, config.length_tokens, machine.bf16_gflops * count, share)
    return max(1, int(budget.minutes * 60 / one.seconds))


def estimate_size(
    size: str,
    vocab_size: int,
    tokens: int | None,
    length_tokens: int,
    batch_tokens: int,
    machine: Machine,
    count: int,
    price: float | None = None,
) -> Estimate:
    """The estimate of a size such as `7b`, trained with Muon; 20 tokens a parameter unless told otherwise."""
    shape = resolve(Architecture(size=size, max_positions=length_tokens, tie_embeddings=size[-1] != "b"), vocab_size)
    parameters = count_parameters(shape)
    tokens = tokens or 20 * parameters
    return estimate_training(
        shape, parameters, tokens, length_tokens, batch_tokens, machine, count, state_bytes=8.0, price=price
    )


def machine_of(name: str | None, here: Machine) -> Machine:
    """A device by name, or this one."""
    return here if name is None else replace(device_named(name))


def is_size(text: str) -> bool:
    """Whether this is a size of the dial, such as `125m`."""
    return re.fullmatch(r"[0-9]+(\.[0-9]+)?[kmb]", text.lower()) is not None
