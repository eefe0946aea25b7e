"""With what a run was begun, and whether it goes on with the same.

On one machine with the same libraries a killed run that goes on equals one that was never stopped.  Another version of
a library, another processor or another number of processes may change the last bits of a sum: the run goes on, says so,
and keeps what changed after which step.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from typing import Any

import numpy
import torch

from wuxing import __version__
from wuxing.compute import team
from wuxing.compute.device import pick_precision
from wuxing.model import native

Passage = dict[str, Any]
"""{"after": step, "changed": {name: [before, now]}}"""


def made_with(device: torch.device) -> dict[str, str]:
    """What decides the last bits besides recipe, data and seed: here and now."""
    return {
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "wuxing": __version__,
        "python": platform.python_version(),
        "processor": processor(device),
        "precision": str(pick_precision(device)).removeprefix("torch."),
        "kernels": native.state(device),
        "processes": str(team.ranks()),
    }


def processor(device: torch.device) -> str:
    """The device as far as its arithmetic goes: instructions of a CPU, name of a GPU."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    has = {"AVX512 BF16": torch.cpu._is_avx512_bf16_supported, "AMX": torch.cpu._is_amx_tile_supported}
    words = [name for name, supported in has.items() if supported()]
    return ", ".join([platform.machine(), torch.backends.cpu.get_cpu_capability(), *words])


def passage(begun: Mapping[str, str], passages: list[Passage], step: int, now: Mapping[str, str]) -> list[Passage]:
    """What is new when a run goes on after `step`, with `passages` behind it: one passage, or none."""
    known = dict(begun)
    for one in passages:
        known |= {name: pair[1] for name, pair in one["changed"].items()}
    changed = {name: [known[name], now[name]] for name in sorted(known) if name in now and known[name] != now[name]}
    return [{"after": step, "changed": changed}] if changed else []


def told(passages: list[Passage]) -> str:
    """For the evidence: whether everything stayed as it was."""
    lines = [
        f"after step {one['after']}: " + ", ".join(f"{name} {a} → {b}" for name, (a, b) in one["changed"].items())
        for one in passages
    ]
    return "; ".join(lines) or "the same throughout"
