"""What a training run would need, here or on other devices, before anything is started."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from wuxing.compute.memory import RESERVE_BYTES, plan_compute, plan_memory
from wuxing.core.error import UsageError, nearest


@dataclass(frozen=True)
class Machine:
    """One device."""

    name: str
    bf16_gflops: float
    """Dense products, without sparsity."""
    memory_bytes: int
    watts: tuple[float, float]
    """Least and most that it draws while it trains."""
    share: tuple[float, float]
    """Least and most of the products' rate that a training run reaches."""
    link_gigabytes: float = 0.0
    """What one device sends to the others of its host per second, in 1e9 bytes; 0: unknown."""


GPU_SHARE = (0.30, 0.55)
"""Model FLOPs utilisation of public dense runs: 38 to 43 % for Llama 3 (Grattafiori et al. 2024, table 4), up to 55 %
reported for smaller models on one host."""
CPU_SHARE = (0.15, 0.50)
"""Of our own runs on two cores (docs/log.md): 5 million parameters 0.3; used until this store has runs of its own."""
CORE_WATTS = (4.0, 12.0)
"""Per busy core of a server, from its package power over its cores; a guess, and so a wide one."""

DEVICES = {
    machine.name: machine
    for machine in (
        Machine("a100", 312e3, 80 * 10**9, (250, 400), GPU_SHARE, 300),
        Machine("h100", 989e3, 80 * 10**9, (450, 700), GPU_SHARE, 450),
        Machine("h200", 989e3, 141 * 10**9, (450, 700), GPU_SHARE, 450),
        Machine("b200", 2250e3, 180 * 10**9, (700, 1000), GPU_SHARE, 900),
        Machine("l40s", 362e3, 48 * 10**9, (220, 350), GPU_SHARE, 32),
        Machine("rtx4090", 165e3, 24 * 10**9, (300, 450), GPU_SHARE, 32),
    )
}
"""From the makers' data sheets: dense bf16, memory, board power, links in one direction (NVLink, else PCIe)."""


@dataclass(frozen=True)
class Estimate:
    """What a run would need on `count` devices."""

    device: str
    count: int
    parameters: int
    tokens: int
    flops: float
    memory_bytes: int
    """Peak on each device when every device holds the whole state."""
    available_bytes: int
    piece_tokens: int
    """Positions at once on each device: what was asked for, or the largest that fits."""
    seconds: tuple[float, float]
    """Least and most."""
    watt_hours: tuple[float, float]
    exchange_seconds: float
    """Summing up gradients over all devices, all steps together, not hidden behind anything; 0 for one device."""
    sharded_over: int
    """The least number of devices of this kind that could hold the state cut into pieces; 1: it fits on each."""

    @property
    def fits(self) -> bool:
        """Whether each device can hold the whole state."""
        return self.memory_bytes <= self.available_bytes

    def to_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {**asdict(self), "fits": self.fits}


def device_named(name: str) -> Machine:
    """A device of the table.  Raises UsageError, with the nearest name, for others."""
    if name not in DEVICES:
        raise UsageError(f'no figures of a device "{name}"', nearest(name, DEVICES))
    return DEVICES[name]


def estimate_training(
    shape: Mapping[str, Any],
    parameters: int,
    tokens: int,
    length_tokens: int,
    batch_tokens: int,
    machine: Machine,
    count: int = 1,
    state_bytes: float = 8.0,
    piece_tokens: int = 16_384,
) -> Estimate:
    """The estimate of one run.  `state_bytes`: optimizer state and checkpoint copies per parameter."""
    mine = max(length_tokens, batch_tokens // count)
    piece = min(mine, piece_tokens)

    def peak(piece: int) -> int:
        return plan_memory(shape, parameters, piece, length_tokens, 2, math.ceil(state_bytes)).peak

    while peak(piece) > machine.memory_bytes and piece // 2 >= length_tokens:
        piece //= 2
    plan = plan_memory(shape, parameters, piece, length_tokens, 2, math.ceil(state_bytes))
    work = plan_compute(shape, parameters, tokens, length_tokens, machine.bf16_gflops, 1.0)
    steps = max(1, tokens // batch_tokens)
    ring = 2 * (count - 1) / count * 4 * parameters  # bytes of a ring all-reduce of fp32 gradients, per device
    exchange = steps * ring / (machine.link_gigabytes * 1e9) if count > 1 and machine.link_gigabytes else 0.0
    least, most = machine.share
    seconds = (work.flops / count / (machine.bf16_gflops * 1e9 * most), 0.0)
    seconds = (seconds[0], work.flops / count / (machine.bf16_gflops * 1e9 * least) + exchange)
    hours = [seconds[0] / 3600 * machine.watts[0] * count, seconds[1] / 3600 * machine.watts[1] * count]
    fixed = plan.weights + plan.gradients + plan.optimizer + plan.casts
    room = machine.memory_bytes - (plan.peak - fixed)
    return Estimate(
        device=machine.name,
        count=count,
        parameters=parameters,
        tokens=tokens,
        flops=work.flops,
        memory_bytes=plan.peak,
        available_bytes=machine.memory_bytes,
        piece_tokens=piece,
        seconds=seconds,
        watt_hours=(hours[0], hours[1]),
        exchange_seconds=exchange,
        sharded_over=max(1, math.ceil(fixed / room)) if room > RESERVE_BYTES else 0,
    )


def optimal_size(flops: float) -> tuple[float, float]:
    """Parameters and tokens that make the most of so many FLOPs: 20 tokens a parameter (Hoffmann et al. 2022)."""
    parameters = math.sqrt(flops / (6 * 20))
    return parameters, 20 * parameters


def shares_of_runs(runs: Sequence[float], prior: tuple[float, float]) -> tuple[float, float]:
    """The interval for the next run from the shares that earlier ones reached: their range, wider while they are few.

    With n runs the range is stretched by 1 + 1/n on both sides in the logarithm, and kept within four times the prior.
    """
    good = [share for share in runs if 0 < share < 1.5]
    if not good:
        return prior
    widen = math.log(1.15) * (1 + 1 / len(good))
    low, high = math.log(min(good)) - widen, math.log(max(good)) + widen
    return max(prior[0] / 4, math.exp(low)), min(1.0, math.exp(high))
