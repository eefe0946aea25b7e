"""From a recipe's model, or a bare size, to an estimate; and the shares that this store's runs have reached."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Mapping
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
from wuxing.train.config import ModelConfig
from wuxing.train.plan.calibration import entries, memory_factor
from wuxing.train.plan.memory import PIECE_POSITIONS, plan_run
from wuxing.train.plan.timing import Timing, measure_seconds

TRIED = "a trial of real steps here"
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
) -> Estimate | str:
    """The estimate of a recipe's model, or why there is none yet.

    `started_from`: the shape of the model that it goes on from, where that is known already.
    With `home` it is one for this machine: memory and time are measured on real steps, where those take seconds.
    """
    if config.architecture is None and started_from is None:
        return "starts from another model: its size is known once that is made"
    if config.batch_tokens is None:
        return "learns from rollouts: their length is known once it runs"
    shape = dict(started_from or {}) if config.architecture is None else resolve(config.architecture, vocab_size)
    parameters = count_parameters(shape)
    positions = tokens or budget_tokens(config, shape, parameters, machine, count)
    if positions is None:
        return "its budget is in epochs: give --tokens, or make its tokens first"
    device, precision = "cuda", torch.bfloat16
    here = home is not None
    if home is not None:
        place = pick_device()
        device, precision = place.type, pick_precision(place)
    runs = entries(home) if home is not None else []

    def planner(piece: int, again: bool) -> MemoryPlan:
        tried = config.model_copy(update={"piece_tokens": piece, "recompute": again or bool(config.recompute)})
        plan = plan_run(tried, shape, precision, device, measured=here)
        more = round(plan.peak * (memory_factor(runs, plan.peak, device) - 1))
        return replace(plan, other=plan.other + more)

    found = estimate_training(
        shape,
        parameters,
        positions,
        config.length_tokens,
        config.batch_tokens,
        machine,
        count,
        piece_tokens=config.piece_tokens or PIECE_POSITIONS,
        planner=planner,
        price=price,
    )
    found = replace(
        found,
        precision=str(precision).removeprefix("torch."),
        host_bytes=0 if device == "cpu" else 4 * parameters + found.memory_parts["optimizer"],
    )
    if not here or not found.fits or count > 1:
        return found
    tried = config.model_copy(update={"piece_tokens": found.piece_tokens, "recompute": found.recompute})
    timing = measure_seconds(tried, shape, positions, precision, device)
    minutes = config.budget.minutes if tokens is None else None
    return found if timing is None else _timed(found, timing, minutes)


def _timed(found: Estimate, timing: Timing, minutes: float | None) -> Estimate:
    """With the time of a trial; of a budget in minutes as many steps as go into it."""
    seconds, basis, error = timing.seconds, TRIED, timing.error
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
    config: ModelConfig, shape: Mapping[str, Any], parameters: int, machine: Machine, count: int
) -> int | None:
    """Positions of a budget; of one in minutes, what the middle of the machine's shares makes of them."""
    budget = config.budget
    if budget.tokens is not None:
        return budget.tokens
    if budget.steps is not None:
        return budget.steps * (config.batch_tokens or 0)
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
