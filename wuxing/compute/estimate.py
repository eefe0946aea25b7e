"""What a training run would need, here or on other devices, before anything is started."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from wuxing.compute.memory import RESERVE_BYTES, MemoryPlan, plan_compute, plan_memory, size_text
from wuxing.compute.mesh import cut
from wuxing.core.amount import bytes_text
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
    source: str = ""
    """Where the figures come from."""
    runs: tuple[tuple[int, int, float], ...] = ()
    """(parameters, tokens of a row, share) of finished runs on it."""

    def shares(self, parameters: int, length_tokens: int) -> tuple[float, float, float, str]:
        """(least, expected, most, basis) of the share that a run of this size reaches: from runs like it, weighed by
        how near they are, else the prior and its middle."""
        near = [
            (math.exp(-(math.log2(parameters / p) ** 2) - math.log2(length_tokens / n) ** 2 / 4), math.log(share))
            for p, n, share in self.runs
            if 0 < share < 1.5
        ]
        weight = sum(w for w, _ in near)
        if weight < 0.1:
            return (self.share[0], math.sqrt(self.share[0] * self.share[1]), self.share[1], "data sheet and prior")
        mean = sum(w * x for w, x in near) / weight
        spread = math.sqrt(sum(w * (x - mean) ** 2 for w, x in near) / weight)
        wide = 2 * spread + math.log(1.15) * (1 + 1 / weight)
        return math.exp(mean - wide), math.exp(mean), min(1.0, math.exp(mean + wide)), f"{len(near)} runs here"


GPU_SHARE = (0.30, 0.55)
"""Model FLOPs utilisation of public dense runs: 38 to 43 % for Llama 3 (Grattafiori et al. 2024, table 4), up to 55 %
reported for smaller models on one host."""
MEMORY_ERROR = {"probe": 0.10, "formula": 0.15}
"""What a plan of memory may be wrong by (`benchmarks/plan.py`)."""
CPU_SHARE = (0.15, 0.50)
"""Of our own runs on two cores (docs/log.md): 5 million parameters 0.3; used until this store has runs of its own."""
_NVIDIA, _AMD = "NVIDIA data sheet, dense bf16", "AMD data sheet, dense bf16"
DEVICES = {
    machine.name: machine
    for machine in (
        Machine("a100", 312e3, 80 * 10**9, (250, 400), GPU_SHARE, 300, f"{_NVIDIA}, SXM 80 GB"),
        Machine("h100", 989e3, 80 * 10**9, (450, 700), GPU_SHARE, 450, f"{_NVIDIA}, SXM"),
        Machine("h200", 989e3, 141 * 10**9, (450, 700), GPU_SHARE, 450, f"{_NVIDIA}, SXM"),
        Machine("b200", 2250e3, 180 * 10**9, (700, 1000), GPU_SHARE, 900, f"{_NVIDIA}, HGX"),
        Machine("mi300x", 1307e3, 192 * 10**9, (500, 750), (0.20, 0.45), 448, f"{_AMD}, 7 links of 64 GB/s"),
        Machine("l40s", 362e3, 48 * 10**9, (220, 350), GPU_SHARE, 32, _NVIDIA),
        Machine("rtx4090", 165e3, 24 * 10**9, (300, 450), GPU_SHARE, 32, f"{_NVIDIA}, fp32 accumulation"),
        Machine("rtx5090", 209e3, 32 * 10**9, (350, 575), GPU_SHARE, 64, f"{_NVIDIA}, fp32 accumulation"),
        Machine("m3ultra", 28e3, 96 * 10**9, (120, 270), (0.20, 0.45), 0, "derived: 80 cores x 128 x 2 x 1.4 GHz"),
    )
}
"""Dense bf16, memory, board power, links in one direction (NVLink, Infinity Fabric, else PCIe).  Apple's GPUs are only
estimated for: training on them is not built."""


@dataclass(frozen=True)
class Estimate:
    """What a run would need on `count` devices."""

    device: str
    count: int
    parameters: int
    tokens: int
    flops: float
    memory_bytes: int
    """Peak on each device, beyond what the process holds at its start."""
    available_bytes: int
    piece_tokens: int
    """Positions at once on each device: what was asked for, or the largest that fits."""
    seconds: tuple[float, float]
    """Least and most."""
    watt_hours: tuple[float, float]
    exchange_seconds: float
    """What travels between the devices, all steps together, not hidden behind anything; 0 for one device."""
    sharded_over: int
    """The least number of devices of this kind that could hold the state cut into pieces; 1: it fits on each."""
    expected_seconds: float = 0.0
    memory_parts: dict[str, int] = field(default_factory=dict)
    memory_interval: tuple[int, int] = (0, 0)
    memory_basis: str = "formula"
    """`probe`: measured on slices of the network; `formula`."""
    host_bytes: int = 0
    """Copies for checkpoints, where they lie beside the device."""
    precision: str = "bfloat16"
    recompute: bool = False
    rollout_rows: int = 0
    """Replies that are drawn at once; 0 without a task."""
    sharded: bool = False
    why: tuple[str, ...] = ()
    """What was chosen, and why."""
    tokens_per_second: tuple[float, float] = (0.0, 0.0)
    time_basis: str = ""
    energy_basis: str = ""
    cost: tuple[float, float] | None = None
    """At the price of an hour of one device; None without a price."""
    optimal: dict[str, float] = field(default_factory=dict)
    """Parameters and tokens that would use these FLOPs best."""
    refused: str | None = None
    """Why it cannot be trained on such a device."""
    remedies: tuple[str, ...] = ()

    @property
    def fits(self) -> bool:
        """Whether each device can hold what it has to."""
        return self.memory_bytes <= self.available_bytes

    def timed(self, seconds: float, error: float, basis: str) -> Estimate:
        """With an expected time that was measured, within a share of it."""
        low, high = seconds / (1 + error), seconds * (1 + error)
        watts = [hours * 3600 / before for hours, before in zip(self.watt_hours, self.seconds, strict=True)]
        return replace(
            self,
            seconds=(low, high),
            expected_seconds=seconds,
            tokens_per_second=(self.tokens / high, self.tokens / low),
            watt_hours=(low * watts[0] / 3600, high * watts[1] / 3600),
            cost=None
            if self.cost is None
            else (self.cost[0] * low / self.seconds[0], self.cost[1] * high / self.seconds[1]),
            time_basis=basis,
        )

    def to_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {**asdict(self), "fits": self.fits}


def device_named(name: str) -> Machine:
    """A device of the table.  Raises UsageError, with the nearest name, for others."""
    if name not in DEVICES:
        raise UsageError(f'no figures of a device "{name}"', nearest(name, DEVICES))
    return DEVICES[name]


Planner = Callable[[int, bool], MemoryPlan]
"""What a device needs that holds the whole state: for pieces of so many positions, blocks computed again or not."""


@dataclass(frozen=True)
class Way:
    """One way to cut the work."""

    plan: MemoryPlan
    piece_tokens: int
    recompute: bool
    shards: int

    @property
    def words(self) -> str:
        """For people."""
        parts = [f"pieces of {self.piece_tokens:,} positions"]
        parts += ["blocks computed again (a third more arithmetic)"] if self.recompute else []
        parts += [f"state cut over {self.shards}"] if self.shards > 1 else []
        return ", ".join(parts)


def choose_way(
    planner: Planner, shape: Mapping[str, Any], mine: int, piece_tokens: int, length: int, free: int, count: int
) -> tuple[Way, tuple[str, ...]]:
    """The cheapest way that fits, and why; where none does, the smallest one.

    Smaller pieces cost little; cutting the state costs traffic; computing blocks again a third of the arithmetic.
    """
    pieces = [min(mine, piece_tokens)]
    while pieces[-1] // 2 >= length:
        pieces.append(pieces[-1] // 2)
    tried: list[Way] = []
    for shards, again in (
        ((1, False), (count, False), (1, True), (count, True)) if count > 1 else ((1, False), (1, True))
    ):
        for piece in pieces:
            way = Way(cut(planner(piece, again), shape, shards), piece, again, shards)
            if way.plan.peak <= free:
                return way, _reasons(way, tried)
            tried.append(way)
    return min(tried, key=lambda way: way.plan.peak), ()


def _reasons(way: Way, tried: Sequence[Way]) -> tuple[str, ...]:
    if not tried:
        return (f"{way.words}, which fits as it is",)
    first = tried[0]
    return (f"{first.words} would need {bytes_text(first.plan.peak)}", f"so {way.words}")


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
    planner: Planner | None = None,
    price: float | None = None,
) -> Estimate:
    """The estimate of one run.  `state_bytes`: optimizer state and checkpoint copies per parameter, for the formula
    that stands in where there is no `planner`; `price`: of an hour of one device."""
    mine = max(length_tokens, batch_tokens // count)

    def formula(piece: int, again: bool) -> MemoryPlan:
        plan = plan_memory(shape, parameters, piece, length_tokens, 2, math.ceil(state_bytes))
        layers, width = int(shape["num_hidden_layers"]), int(shape["hidden_size"])
        kept = plan.activations // layers + piece * layers * 6 * width
        return replace(plan, activations=kept) if again else plan

    asked = planner or formula
    way, why = choose_way(asked, shape, mine, piece_tokens, length_tokens, machine.memory_bytes, count)
    work = plan_compute(shape, parameters, tokens, length_tokens, machine.bf16_gflops, 1.0)
    exchange = max(1, tokens // batch_tokens) * _exchange_seconds(way, parameters, mine, machine, count)
    least, expected, most, basis = machine.shares(parameters, length_tokens)
    done = work.flops * (4 / 3 if way.recompute else 1) / count / (machine.bf16_gflops * 1e9)
    seconds = (done / most, done / least + exchange)
    hours = [seconds[0] / 3600 * machine.watts[0] * count, seconds[1] / 3600 * machine.watts[1] * count]
    peak, wrong = way.plan.peak, MEMORY_ERROR[way.plan.basis]
    best, data = optimal_size(work.flops)
    found = Estimate(
        device=machine.name,
        count=count,
        parameters=parameters,
        tokens=tokens,
        flops=work.flops,
        memory_bytes=peak,
        available_bytes=machine.memory_bytes,
        piece_tokens=way.piece_tokens,
        seconds=seconds,
        watt_hours=(hours[0], hours[1]),
        exchange_seconds=exchange,
        sharded_over=_enough(asked(way.piece_tokens, way.recompute), shape, machine.memory_bytes),
        expected_seconds=done / expected + exchange / 2,
        memory_parts=way.plan.parts,
        memory_interval=(round(peak / (1 + wrong)), round(peak * (1 + wrong))),
        memory_basis=way.plan.basis,
        recompute=way.recompute,
        sharded=way.shards > 1,
        why=why,
        tokens_per_second=(tokens / seconds[1], tokens / seconds[0]),
        time_basis=basis,
        energy_basis="assumed from the power of the data sheet" if machine.source else "assumed from a power per core",
        cost=None if price is None else (price * count * seconds[0] / 3600, price * count * seconds[1] / 3600),
        optimal={"parameters": best, "tokens": data},
    )
    return found if found.fits else _refused(found, asked, shape, length_tokens)


def _exchange_seconds(way: Way, parameters: int, positions: int, machine: Machine, count: int) -> float:
    """What one step sends between `count` devices, each of which takes `positions` of it."""
    if count == 1 or not machine.link_gigabytes:
        return 0.0
    ring = 2 * (count - 1) / count * 4 * parameters  # bytes of a ring all-reduce of fp32 gradients, per device
    if way.shards > 1:  # two gathers of bf16 weights a piece, one scatter of fp32 gradients
        ring = (count - 1) / count * parameters * (2 * 2 * math.ceil(positions / way.piece_tokens) + 4)
    return ring / (machine.link_gigabytes * 1e9)


def _enough(plan: MemoryPlan, shape: Mapping[str, Any], free: int) -> int:
    """The least number of devices that hold the state cut over them; 0: no number does."""
    if plan.peak <= free:
        return 1
    over = 2
    while over <= 4096 and cut(plan, shape, over).peak > free:
        over += 1 if over < 16 else over // 8
    return over if over <= 4096 else 0


def _refused(found: Estimate, planner: Planner, shape: Mapping[str, Any], length: int) -> Estimate:
    """What would fit instead."""
    remedies = []
    over = _enough(planner(length, True), shape, found.available_bytes)
    if found.sharded_over > 1:
        remedies.append(f"cut its state over {found.sharded_over} such devices (sharding: shard)")
    elif over > 1:
        remedies.append(f"cut its state over {over} such devices, with blocks computed again (recompute: true)")
    small = planner(length, True)
    if small.peak < found.memory_bytes * 0.98:
        remedies.append(f"pieces of one row and blocks computed again need {bytes_text(small.peak)}")
    room = found.available_bytes - RESERVE_BYTES
    share = room / max(1, found.memory_bytes)
    if 0 < share < 1:
        remedies.append(f"a model of about {size_text(found.parameters * share * 0.9)} parameters")
    larger = [m for m in DEVICES.values() if m.memory_bytes >= max(small.peak, found.available_bytes + 1)]
    if larger:
        remedies.append(f"another device: {', '.join(machine.name for machine in larger)}")
    line = (
        f"a model too large for memory: {found.parameters:,} parameters need {bytes_text(found.memory_bytes)}"
        f"{' on each' if found.count > 1 else ''}, {found.device} has {bytes_text(found.available_bytes)}"
    )
    return replace(found, refused=line, remedies=tuple(remedies))


CHINCHILLA = {"floor": 1.8172, "a": 482.01, "alpha": 0.3478, "b": 2085.43, "beta": 0.3658}
"""L(N, D) = floor + a / N^alpha + b / D^beta, nats a token on the text of Hoffmann et al. 2022, as refitted by
Besiroglu et al. 2024.  On other text the losses differ; which of two sizes is better mostly does not."""


def expected_loss(parameters: float, tokens: float) -> float:
    """Nats a token by that law."""
    law = CHINCHILLA
    return law["floor"] + law["a"] / parameters ** law["alpha"] + law["b"] / tokens ** law["beta"]


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
