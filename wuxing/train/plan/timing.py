"""How long a run would take, from a few real steps of the whole network, as the machine is now."""

from __future__ import annotations

import math
import os
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import psutil
import torch

from wuxing.core.memory import trim_memory
from wuxing.train.config import ModelConfig
from wuxing.train.plan.probe import Asked, ask, build_trainer, step_flops

TRIAL_TOKENS = 2048
"""Positions of a timed step at least: enough for the products to reach their rate."""
WHOLE_FLOPS = 5e11
"""A step of so much or less is tried with all rows of a piece: a second or two of two cores."""
MOST_FLOPS = 2e12
"""Of one timed step: some five seconds of two cores.  Larger networks are not tried."""
TIMED = (3, 20)
"""Steps that are timed, at least and at most; two are enough of steps that are slow."""
LONG_SECONDS, SLOW_SECONDS = 1.5, 4.0
"""Of all timed steps: for a small network, whose many steps show how steady the machine is; and for a large one."""
LEAST_ERROR = 0.2
"""What a time from a few real steps may be wrong by on a quiet machine: its clock rate and its load move."""


@dataclass(frozen=True)
class Timing:
    """What a run would take."""

    seconds: float
    error: float
    """A share: within it lies the time of a run on the machine as it is now."""
    spent: float
    """Seconds that the trial itself took."""
    others: float
    """The share of the machine's cores that other programs had meanwhile."""


def measure_seconds(
    config: ModelConfig, shape: Mapping[str, Any], tokens: int, precision: torch.dtype, device: str
) -> Timing | None:
    """The time of training and validation for so many positions; None where a step takes too long to try.

    Passes and updates are timed apart: a step of the run may have more rows, and one update all the same.
    """
    if not config.objective.learns_text or config.batch_tokens is None:
        return None
    began = time.perf_counter()
    step_rows = max(1, config.batch_tokens // config.length_tokens)
    asked, rows = _trial(config, shape, precision, device, step_rows)
    layers = int(shape["num_hidden_layers"])
    if step_flops(asked, layers) > MOST_FLOPS:
        return None
    taken = cores_taken()
    passes, updates = _timed(asked, layers, rows)
    others = share_of_others(taken, began)
    trim_memory()
    one, after = statistics.fmean(passes), statistics.fmean(updates)  # a run has its slow steps too
    steps = max(1, math.ceil(tokens / (step_rows * config.length_tokens)))
    rows_of_validation = max(1, config.validation.tokens // config.length_tokens)
    looks = config.measurements * rows_of_validation * one / rows / 3  # forward only
    spread = 2 * statistics.stdev(passes) / one / math.sqrt(len(passes))
    seconds = steps * (one * step_rows / rows + after) + looks
    return Timing(seconds, max(LEAST_ERROR, spread), time.perf_counter() - began, others)


def cores_taken() -> float:
    """Seconds of all cores so far that were not this process's: of other programs, and of other virtual machines."""
    whole, mine = psutil.cpu_times(), os.times()
    spent = sum(getattr(whole, name, 0.0) for name in ("user", "nice", "system", "irq", "softirq", "steal"))
    return spent - mine.user - mine.system


def share_of_others(taken: float, began: float) -> float:
    """The share of the machine that other programs had since `began`, when `cores_taken` was `taken`."""
    spent = (cores_taken() - taken) / (time.perf_counter() - began) / (os.cpu_count() or 1)
    return min(1.0, max(0.0, spent))


def _trial(
    config: ModelConfig, shape: Mapping[str, Any], precision: torch.dtype, device: str, step_rows: int
) -> tuple[Asked, int]:
    """What is tried: a piece with all its rows, or with fewer where that would take long."""
    layers = int(shape["num_hidden_layers"])
    rows = min(step_rows, max(1, (config.piece_tokens or TRIAL_TOKENS) // config.length_tokens))
    while True:
        asked = ask(config, shape, rows, precision, device)
        if rows * config.length_tokens <= TRIAL_TOKENS or rows == 1 or step_flops(asked, layers) <= WHOLE_FLOPS:
            return asked, rows
        rows //= 2


def _timed(asked: Asked, layers: int, rows: int) -> tuple[list[float], list[float]]:
    """Seconds of the passes and of the updates of some steps, the first one left out."""
    with torch.random.fork_rng(devices=[]):
        trainer = build_trainer(asked, layers, rows)
    updates: list[float] = []
    passes: list[float] = []
    update = trainer.optimizer.step

    def timed(*arguments: Any) -> None:
        wait_for(asked.device)
        started = time.perf_counter()
        update(*arguments)
        wait_for(asked.device)
        updates.append(time.perf_counter() - started)

    trainer.optimizer.step = timed  # type: ignore[method-assign,assignment]

    while not enough(len(passes) - 1, sum(passes[1:]) + sum(updates[1:])):
        started = time.perf_counter()
        trainer.step()
        wait_for(asked.device)
        passes.append(time.perf_counter() - started - updates[-1])
    return passes[1:], updates[1:]


def enough(done: int, spent: float) -> bool:
    """Whether so many timed steps, which took so many seconds, will do."""
    least, most = TIMED
    return done >= most or (done >= least and spent > LONG_SECONDS) or (done >= 2 and spent > SLOW_SECONDS)


def wait_for(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()
