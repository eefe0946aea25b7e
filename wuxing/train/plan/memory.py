"""What a run needs in memory, and what it really held."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import psutil
import torch

from wuxing.compute import team
from wuxing.compute.energy import Meter
from wuxing.compute.memory import MemoryPlan, available_memory, plan_memory
from wuxing.core.memory import trim_memory
from wuxing.model import native
from wuxing.model.architecture import count_parameters
from wuxing.train.config import ModelConfig
from wuxing.train.plan.drawing import drawing_bytes, drawings, standing_bytes
from wuxing.train.plan.probe import Asked, Blind, affordable, ask, probe
from wuxing.train.plan.reply import taught_rows, width_of
from wuxing.train.rollout import Lengths

PIECE_POSITIONS = 16_384
"""Positions that go through the network at once, unless `piece_tokens` says otherwise."""
HOLES = 1.10
"""Bytes that a CPU's allocator takes for a byte that is alive: glibc cannot give a freed block to an aligned request of
the same size (measured over sizes and lengths, docs/log.md)."""
BASE_BYTES = 250 << 20
"""What a run loads and keeps besides tensors: code, kernels made for shapes, threads, tokenizer, pages of the data, and
a hundred megabytes that the decisions before the first step leave behind."""
GPU_BASE_BYTES = 64 << 20


def _resident() -> int:
    return int(psutil.Process().memory_info().rss)


def _resident_trimmed() -> int:
    """After giving back what earlier work of this process has freed: it would be taken again and not be seen."""
    trim_memory()
    return _resident()


@cache
def _resident_at_first() -> int:
    return _resident_trimmed()


def _beginning() -> int:
    """What the process held when its first training began, or now if that is less: code, kernels and threads that an
    earlier step of the recipe has loaded are part of a later one's plan too."""
    first = _resident_at_first()
    return min(first, _resident_trimmed())


def _begin_peak() -> bool:
    """Let the kernel count this process's peak from now on; False where it does not (other than Linux)."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


@dataclass
class Watch:
    """Memory beyond what the process held when its first watch began, in bytes: on the GPU where there is one."""

    before: int = field(default_factory=_beginning)
    _kernel: bool = field(default_factory=_begin_peak)
    _seen: int = 0
    energy: Meter = field(default_factory=Meter)

    def now(self) -> int:
        """What the process holds now, all of it."""
        held = torch.cuda.memory_allocated() if torch.cuda.is_available() else _resident()
        self._seen = max(self._seen, held)
        self.energy.look()
        return held

    def peak(self) -> int:
        """The most that was held beyond the beginning."""
        if torch.cuda.is_available():
            return torch.cuda.max_memory_allocated()
        most = self._seen
        if self._kernel:
            for line in Path("/proc/self/status").read_text().splitlines():
                if line.startswith("VmHWM:"):
                    most = int(line.split()[1]) * 1024
        return max(0, most - self.before)


def numbers_per_parameter(config: ModelConfig, shape: Mapping[str, Any], parameters: int) -> float:
    """Numbers that the optimizer, and an average of the weights, keep for each parameter."""
    table = shape["vocab_size"] * shape["hidden_size"]
    moments = {"adamw": 2.0, "lion": 1.0, "adafactor": 0.0, "schedule_free": 3.0, "muon": 1 + table / parameters}
    return moments[config.optimizer.kind] + (config.average is not None)


def free_memory(device: torch.device) -> int:
    """Bytes that a process may still take; of a host's memory its share, where several processes train on it."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return available_memory() // team.ranks_here()


def plan_run(
    config: ModelConfig,
    shape: Mapping[str, Any],
    precision: torch.dtype,
    device: str = "cpu",
    measured: bool = True,
    lengths: Lengths | None = None,
) -> MemoryPlan:
    """What a process needs that holds the whole state: measured on slices of the network where that takes seconds.

    `measured=False`: by formula, as for another device than those of this machine; `lengths`: of its
    task, where they are known.
    """
    parameters = count_parameters(dict(shape))
    plan = _learning(config, shape, precision, device, measured, lengths, parameters)
    if config.adds_exactly:
        plan = replace(plan, gradients=plan.gradients + 8 * parameters)
    if config.rollout is not None:
        return _with_drawing(plan, config, shape, device, measured, lengths)
    return replace(plan, drawing=_answers(config, shape, precision, parameters)).taking_turns()


def _answers(config: ModelConfig, shape: Mapping[str, Any], precision: torch.dtype, parameters: int) -> int:
    """What the engine holds that answers tasks while nothing is learnt: packed weights, keys and values."""
    if not config.validation.tasks:
        return 0
    positions = config.validation.rows * config.length_tokens
    kept = 2 * positions * shape["num_hidden_layers"] * shape["num_key_value_heads"] * shape["head_dim"]
    return int(torch.finfo(precision).bits // 8 * (parameters + kept))


def _learning(
    config: ModelConfig,
    shape: Mapping[str, Any],
    precision: torch.dtype,
    device: str,
    measured: bool,
    lengths: Lengths | None,
    parameters: int,
) -> MemoryPlan:
    """The plan of the steps themselves."""
    state = round(4 * parameters * numbers_per_parameter(config, shape, parameters))
    length, grpo = config.length_tokens, config.objective.grpo
    rows = max(1, (config.piece_tokens or PIECE_POSITIONS) // length)
    if config.rollout is None:
        rows = min(rows, max(1, config.step_positions // length))
    else:
        rows, length = min(rows, taught_rows(config)), width_of(config, lengths)
    reference = 4 * parameters if grpo is not None and grpo.kl else 0
    # one to write from, which gives way to what is read back at the end; a run that goes back reads while it lies there
    copies = (2 if config.guard.spike == "rewind" else 1) * (4 * parameters + state) if device != "cuda" else 0
    if measured and (config.objective.learns_text or grpo is not None):
        asked = ask(config, shape, rows, precision, device, length)
        if affordable(asked):
            try:
                return _measured_plan(asked, parameters, copies, reference)
            except Blind:  # the plan says so: its basis is the formula
                pass
    width, piece = torch.finfo(precision).bits // 8, rows * length
    kernels = device == "cpu" and width == 2 and not isinstance(native.kernels(), str)
    plan = plan_memory(shape, parameters, piece, length, width, 0, config.rollout is None, kernels)
    if config.recompute:
        layers = int(shape["num_hidden_layers"])
        kept = layers * (4 + width) * int(shape["hidden_size"])
        plan = replace(plan, activations=plan.activations // layers + piece * kept)
    return replace(plan, optimizer=state, copies=copies, reference=reference)


def _measured_plan(asked: Asked, parameters: int, copies: int, reference: int) -> MemoryPlan:
    found = probe(asked)
    gpu = asked.device == "cuda"
    held = found.peak + reference
    held = held if gpu else max(round(HOLES * held), round(HOLES * found.early) - copies)
    lasting = 8 * parameters + found.state + reference
    return MemoryPlan(
        parameters=parameters,
        weights=4 * parameters,
        gradients=4 * parameters,
        optimizer=found.state,
        casts=0,
        activations=max(0, held - lasting),
        loss=0,
        copies=copies,
        other=GPU_BASE_BYTES if gpu else BASE_BYTES,
        reference=reference,
        basis="probe",
    )


def _with_drawing(
    plan: MemoryPlan,
    config: ModelConfig,
    shape: Mapping[str, Any],
    device: str,
    measured: bool,
    lengths: Lengths | None,
) -> MemoryPlan:
    """The plan with what drawing replies takes: no gradients and activations lie there meanwhile."""
    found = [drawing_bytes(one, measured) for one in drawings(config, shape, device, lengths)]
    probed = plan.basis == "probe" and all(was for _, was in found)
    holes = HOLES if probed and device != "cuda" else 1.0
    meanwhile = plan.weights + plan.optimizer + plan.reference + max(size for size, _ in found)
    drawing = round(holes * meanwhile) - plan.weights - plan.optimizer - plan.reference
    piece_rows = max(1, (config.piece_tokens or PIECE_POSITIONS) // config.length_tokens)
    standing = standing_bytes(config, device, lengths, piece_rows)
    basis = "probe" if probed else "formula"
    return replace(plan, drawing=drawing, other=plan.other + standing, basis=basis).taking_turns()
