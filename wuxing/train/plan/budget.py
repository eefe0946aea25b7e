"""Decisions of a run that must never change: taken once at its first start, kept in `start.json`, read by every resume.

Bits depend on the number of steps, of threads, the precision and whether the network is compiled; so a killed run that
goes on must not decide them again.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from wuxing.compute import team
from wuxing.compute.memory import position_arithmetic
from wuxing.core.error import WuxingError
from wuxing.core.file import read_json, write_json
from wuxing.data.plan import Stage
from wuxing.data.source import PackedSource
from wuxing.model.architecture import count_parameters
from wuxing.train.config import Budget, ModelConfig
from wuxing.train.plan.ramp import Span
from wuxing.train.plan.reply import passes, with_rows
from wuxing.train.trainer import Trainer

START = "start.json"
TRIAL_SECONDS, TRIAL_SHARE = 12.0, 0.02
"""A trial takes so long at most, and so much of the budget, but for its least number of steps."""
TRIAL_STEPS = 16
TIMED_STEPS = 6
"""At least so many, however slow: a busy moment at the start must not shorten the whole run."""
WARM_STEPS = 2
"""Steps that are not timed: the first ones allocate."""
RESERVE_SECONDS = 3.0
"""Left of a time budget for the last checkpoint, the files and the evidence."""


@dataclass(frozen=True)
class Start:
    """What was decided at the first start."""

    steps: int
    threads: int
    device: str
    precision: str
    compiled: bool
    step_seconds: float
    """Median of the trial; 0 when no trial was needed."""
    validation_seconds: float
    planned_seconds: float
    planned_bytes: int
    checks: dict[str, float]
    """The numerics self-checks of the first batch."""
    position_flops: float = 0.0
    """Arithmetic of one position, forward and backward."""
    attention_share: float = 0.0
    """Of it, what grows with the length of a row."""
    measurements: int = 0
    """How often is measured on held-out data, the start included."""
    stages: list[list[int]] = field(default_factory=list)
    """Smaller steps and shorter rows on the way: each the numbers of a `Stage`; empty when all steps are equal."""
    data: list[str] = field(default_factory=list)
    """The data sets whose shares can be turned."""
    made_with: dict[str, str] = field(default_factory=dict)
    """Libraries, processor and number of processes: see `origin`."""
    topology: dict[str, Any] = field(default_factory=dict)
    """How several processes share the state, and the recipe's choice that it came from; empty for one process."""

    piece_tokens: int = 0
    """Positions that go through the network at once; 0: as the recipe says."""
    recompute: bool = False
    """Whether blocks are computed again in the backward pass."""
    rollout_rows: int = 0
    """Replies that are drawn at once; 0: without a task."""
    exact_sums: bool = False
    """Whether sums do not depend on the number of processes."""
    memory_factor: float = 1.0
    """What earlier runs on this machine corrected the plan of memory by."""
    memory_parts: dict[str, int] = field(default_factory=dict)
    """What the planned bytes are made of, before that correction."""

    def applied(self, config: ModelConfig) -> ModelConfig:
        """The recipe with what was decided for it."""
        return with_rows(config, self.rollout_rows).model_copy(
            update={
                "piece_tokens": self.piece_tokens or config.piece_tokens,
                "recompute": self.recompute,
                "exact_sums": self.exact_sums,
            }
        )

    def write(self, directory: Path) -> None:
        """Keep it, on the disk before training begins."""
        write_json(directory / START, asdict(self))

    @classmethod
    def read(cls, directory: Path) -> Start | None:
        """What an earlier attempt decided."""
        path = directory / START
        try:
            return cls(**read_json(path)) if path.exists() else None
        except (ValueError, TypeError):
            remedy = f"Restore it, or begin anew: rm -r {directory}"
            raise WuxingError(f"{path}, which holds what this run decided, is damaged", remedy) from None


def foreseen(config: ModelConfig, shape: Mapping[str, Any], steps: int) -> dict[str, Any]:
    """What the recipe says about a start of so many steps: sums, measurements, arithmetic."""
    flops, attention = position_arithmetic(shape, count_parameters(dict(shape)), config.length_tokens)
    return {
        "exact_sums": config.adds_exactly,
        "measurements": 1 + len(config.validation.moments(steps)),
        "position_flops": flops * passes(config),
        "attention_share": attention,
    }


@dataclass(frozen=True)
class Trial:
    """A short run whose weights are thrown away."""

    step_seconds: float
    validation_seconds: float


def try_out(trainer: Trainer, validate: Callable[[Any], object], budget_seconds: float) -> Trial:
    """Time a few steps and one measurement."""
    longest = min(TRIAL_SECONDS, TRIAL_SHARE * budget_seconds)
    times: list[float] = []
    started = time.monotonic()
    enough = WARM_STEPS + TIMED_STEPS
    most = TRIAL_STEPS if team.ranks() == 1 else enough  # clocks differ: several ranks must stop at one step
    while len(times) < most and (time.monotonic() - started < longest or len(times) < enough):
        times.append(trainer.step().seconds)
    begun = time.monotonic()
    validate(trainer.network)
    return Trial(statistics.median(times[WARM_STEPS:]), time.monotonic() - begun)


def span_seconds(trainer: Trainer, spans: Sequence[Span], trial: Trial | None) -> list[float]:
    """Seconds of a step of each span of a run, the last of which the trial has timed; none without a trial."""
    source, times = trainer.source, []
    if trial is None or len(spans) == 1:
        return []
    assert isinstance(source, PackedSource)
    for span in spans[:-1]:
        source.begin_stages((Stage(0, span.rows, span.parts),))
        seconds = [trainer.step().seconds for _ in range(WARM_STEPS + TIMED_STEPS)]
        times.append(statistics.median(seconds[WARM_STEPS:]))
    return [*times, trial.step_seconds]


def resolve_steps(
    budget: Budget,
    step_positions: int,
    epoch_steps: float,
    trial: Trial | None,
    measurements: float,
    spent: float,
    every_steps: int | None = None,
) -> int:
    """The number of steps of a budget; a time budget needs a trial and what has been spent of it in seconds.

    `every_steps`: after how many of them is measured, besides `measurements`.
    """
    if budget.steps is not None:
        return budget.steps
    if budget.tokens is not None:
        return max(1, math.ceil(budget.tokens / step_positions))
    if budget.epochs is not None:
        return max(1, math.ceil(budget.epochs * epoch_steps))
    assert budget.minutes is not None and trial is not None
    left = budget.minutes * 60 - spent - RESERVE_SECONDS - measurements * trial.validation_seconds
    each = trial.step_seconds + (trial.validation_seconds / every_steps if every_steps else 0.0)
    return max(1, int(left / each))
