"""Whether compiling pays here: a short probe of one block, made once per machine and shape, and remembered.

A run decides before its first step and keeps the answer in `start.json`.  The probe compiles one block only (all blocks
share the result), times it against the eager one, and weighs what the run would save against what compiling takes.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from wuxing.compute import team
from wuxing.compute.device import cpu_flags
from wuxing.compute.measure import gemm_gflops
from wuxing.compute.memory import plan_compute
from wuxing.core.context import Context
from wuxing.core.digest import digest_of
from wuxing.core.file import read_json, write_json
from wuxing.model import native
from wuxing.model.architecture import count_parameters
from wuxing.model.network import Network
from wuxing.train.config import ModelConfig

PROBE_TOKENS = 4096
"""Positions that go through the block in the probe."""
REPETITIONS = 5
MIN_GAIN = 0.03
"""A smaller share of the time is noise."""
LEAST_FLOPS = 1e10
"""A second of any machine; below that nothing is measured."""
USUAL_SHARE = 0.5
"""Of the products' rate while training: good enough to tell minutes from hours."""
SHORT_RUN_SECONDS = {"cpu": 1800.0, "cuda": 120.0}
"""A shorter run is not probed.  On two CPU cores the probe of a block takes 60 to 80 s, and the compiled kernels of
`model/native.c` have so far been faster than what it makes: 1.19 of their time at width 320."""


@dataclass(frozen=True)
class Probe:
    """One block, forward and backward."""

    what: str
    eager_seconds: float
    compiled_seconds: float
    compile_seconds: float
    """The first compiled pass."""

    @property
    def gain(self) -> float:
        """The share of a block's time that compiling saves; below zero where it costs."""
        return 1 - self.compiled_seconds / self.eager_seconds

    def pays(self, run_seconds: float) -> bool:
        """Whether a run that would take so long without it ends earlier with it."""
        return self.gain > MIN_GAIN and run_seconds * self.gain > self.compile_seconds

    def describe(self, run_seconds: float) -> str:
        """One line for people."""
        change = f"{self.compiled_seconds / self.eager_seconds:.2f} of the eager time"
        verdict = "compiled" if self.pays(run_seconds) else "not compiled"
        return f"{verdict}: a compiled block takes {change}, compiling {self.compile_seconds:.0f} s"


def is_compiled(
    config: ModelConfig,
    shape: Mapping[str, Any],
    step_positions: int,
    epoch_steps: float,
    precision: torch.dtype,
    device: torch.device,
    context: Context,
) -> bool:
    """What `compile` comes to for this run, the same on all processes."""
    if config.compile != "auto":
        return config.compile == "always"

    def asked() -> bool:
        budget = config.budget
        steps = budget.steps or (budget.epochs or 0) * epoch_steps
        positions = int(budget.tokens or steps * step_positions)
        work = plan_compute(shape, count_parameters(dict(shape)), positions, config.length_tokens, 1.0, 1.0)
        seconds = 60 * budget.minutes if budget.minutes else 0.0
        if not seconds and work.flops > SHORT_RUN_SECONDS[device.type] * LEAST_FLOPS:
            seconds = work.flops / (gemm_gflops(precision) * 1e9 * USUAL_SHARE)
        home, say = context.home, context.progress.say
        return compile_pays(home, shape, config.length_tokens, precision, device, seconds, say)

    return bool(team.from_lead(asked))


def compile_pays(
    home: Path,
    shape: Mapping[str, Any],
    length: int,
    precision: torch.dtype,
    device: torch.device,
    run_seconds: float,
    say: Callable[[str], None],
) -> bool:
    """From what is remembered of this machine, or by a probe now."""
    if run_seconds < SHORT_RUN_SECONDS[device.type]:
        return False
    path = directory(home) / f"compile-{_key(shape, length, precision, device)[:16]}.json"
    known = Probe(**read_json(path)) if path.is_file() else None
    probe = known or try_block(shape, length, precision, device)
    if known is None:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, asdict(probe))
    say(probe.describe(run_seconds) + (" (remembered)" if known else ""))
    return probe.pays(run_seconds)


def directory(home: Path) -> Path:
    """Where what was measured of this machine is kept."""
    return Path(os.environ.get("WUXING_CACHE") or home / "cache")


def remembered(home: Path) -> Iterator[Probe]:
    """The probes that were made here."""
    for path in sorted(directory(home).glob("compile-*.json")):
        yield Probe(**read_json(path))


def _key(shape: Mapping[str, Any], length: int, precision: torch.dtype, device: torch.device) -> str:
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else sorted(cpu_flags())
    way = native.state(device)
    return digest_of([torch.__version__, name, torch.get_num_threads(), way, dict(shape), length, str(precision)])


def try_block(shape: Mapping[str, Any], length: int, precision: torch.dtype, device: torch.device) -> Probe:
    """Time one block of this shape, eager and compiled, in turns."""
    one = {**shape, "num_hidden_layers": 1, "vocab_size": 64, "tie_word_embeddings": True}
    one["pad_token_id"] = one["eos_token_id"] = one["bos_token_id"] = None
    eager, compiled = (Network(one).initialise(0).to(device) for _ in range(2))
    compiled.model.compile()
    rows = max(1, PROBE_TOKENS // length)
    draw = torch.Generator().manual_seed(0)
    tokens = torch.randint(64, (rows, length), generator=draw).to(device)
    documents = (torch.rand(rows, length, generator=draw) < 1 / 200).cumsum(1).int().to(device)

    def run(network: Network) -> float:
        started = time.perf_counter()
        with torch.autocast(device.type, precision, enabled=precision != torch.float32):
            hidden = network.hidden(tokens, None, documents)
        hidden.float().square().sum().backward()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - started

    run(eager)
    first = run(compiled)
    pairs = [(run(eager), run(compiled)) for _ in range(REPETITIONS)]
    slow, fast = (statistics.median(times) for times in zip(*pairs, strict=True))
    width, bits = shape["hidden_size"], str(precision).removeprefix("torch.")
    what = f"width {width}, rows of {length}, {bits}, {torch.get_num_threads()} threads, {device.type}"
    return Probe(what, slow, fast, max(0.0, first - fast))
