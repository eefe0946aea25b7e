"""From a recipe's model, or a bare size, to an estimate; and the shares that this store's runs have reached."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from wuxing.compute.estimate import (
    CORE_WATTS,
    CPU_SHARE,
    GPU_SHARE,
    Estimate,
    Machine,
    device_named,
    estimate_training,
    shares_of_runs,
)
from wuxing.compute.memory import available_memory, plan_compute
from wuxing.core.artifact import Artifact
from wuxing.core.file import read_json
from wuxing.model.architecture import Architecture, count_parameters, resolve
from wuxing.train.config import ModelConfig
from wuxing.train.plan.memory import PIECE_POSITIONS, numbers_per_parameter

LONG_ROW = 2048


def this_machine(speed: Any, models: Iterable[Artifact]) -> Machine:
    """The device of this machine as measured, with the shares that runs on such a device reached."""
    import torch

    gflops = float(speed.bf16_gflops or speed.fp32_gflops)
    if torch.cuda.is_available():
        whole = torch.cuda.mem_get_info()[1]
        prior, watts, name = GPU_SHARE, (150.0, 700.0), torch.cuda.get_device_name()
    else:
        whole, prior, name = available_memory(), CPU_SHARE, "this machine's CPU"
        cores = len(os.sched_getaffinity(0))
        watts = (CORE_WATTS[0] * cores, CORE_WATTS[1] * cores)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    reached = [share for model in models if (share := share_of(model, device, gflops)) is not None]
    return Machine(name, gflops, whole, watts, shares_of_runs(reached[-10:], prior))


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
    config: ModelConfig, vocab_size: int, machine: Machine, count: int = 1, tokens: int | None = None
) -> Estimate | str:
    """The estimate of a recipe's model, or why there is none yet."""
    if config.architecture is None:
        return "starts from another model: its size is known once that is made"
    if config.batch_tokens is None:
        return "learns from rollouts: their length is known once it runs"
    shape = resolve(config.architecture, vocab_size)
    parameters = count_parameters(shape)
    tokens = tokens or budget_tokens(config, shape, parameters, machine, count)
    if tokens is None:
        return "its budget is in epochs: give --tokens, or make its tokens first"
    return estimate_training(
        shape,
        parameters,
        tokens,
        config.length_tokens,
        config.batch_tokens,
        machine,
        count,
        state_bytes=4 * 2 * numbers_per_parameter(config, shape, parameters) + 4,  # in use, and copied for a checkpoint
        piece_tokens=config.piece_tokens or PIECE_POSITIONS,
    )


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
    rate = machine.bf16_gflops * count * (machine.share[0] + machine.share[1]) / 2
    one = plan_compute(shape, parameters, 1, config.length_tokens, rate, 1.0)
    return max(1, int(budget.minutes * 60 / one.seconds))


def estimate_size(
    size: str, vocab_size: int, tokens: int | None, length_tokens: int, batch_tokens: int, machine: Machine, count: int
) -> Estimate:
    """The estimate of a size such as `7b`, trained with Muon; 20 tokens a parameter unless told otherwise."""
    shape = resolve(Architecture(size=size, max_positions=length_tokens, tie_embeddings=size[-1] != "b"), vocab_size)
    parameters = count_parameters(shape)
    tokens = tokens or 20 * parameters
    return estimate_training(shape, parameters, tokens, length_tokens, batch_tokens, machine, count, state_bytes=8.0)


def machine_of(name: str | None, here: Machine) -> Machine:
    """A device by name, or this one."""
    return here if name is None else replace(device_named(name))
