"""Smaller steps and shorter rows at the beginning: batch-size and sequence-length warm-up.

Both leave the sample plan alone: which row stands at which place stays as it is; a step takes fewer of them, or cuts
them.  What a run does is decided once, as stages that begin at places of the plan, and kept in `start.json`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from pydantic import Field

from wuxing.core.step import Config
from wuxing.data.plan import Stage

if TYPE_CHECKING:
    from wuxing.train.config import Budget, ModelConfig


class BatchStage(Config):
    """A smaller step up to some moment of the run."""

    until: float = Field(gt=0, lt=1)
    """Share of the run's positions at which the next size begins."""
    batch_tokens: int = Field(gt=0)
    """Positions of an optimizer step; below `batch_tokens` of the model."""


class LengthStage(Config):
    """Shorter rows up to some moment of the run."""

    until: float = Field(gt=0, lt=1)
    """Share of the run's positions at which the next length begins."""
    length_tokens: int = Field(gt=0)
    """Tokens of a row; a divisor of the model's `length_tokens`.  A step has as many positions as with whole rows."""


@dataclass(frozen=True)
class Span:
    """A stretch of a run whose steps are equal."""

    until: float
    """Share of the run's positions at which it ends."""
    rows: int
    """Rows of the plan in a step."""
    parts: int = 1
    """Into how many each is cut."""


def spans_of(config: ModelConfig) -> list[Span]:
    """The stretches of a run with packed rows, in order; the last one has the full size."""
    length = config.length_tokens
    if config.batch_tokens is None:  # a step of rollouts
        assert config.rollout is not None
        return [Span(1.0, config.rollout.prompts * config.rollout.group)]
    ends = sorted({s.until for s in config.batch_ramp} | {s.until for s in config.length_ramp} | {1.0})
    spans = []
    for end in ends:
        batch = next((s.batch_tokens for s in config.batch_ramp if end <= s.until), config.batch_tokens)
        short = next((s.length_tokens for s in config.length_ramp if end <= s.until), length)
        spans.append(Span(end, batch // length, length // short))
    return spans


def contradiction(config: ModelConfig) -> str:
    """What is wrong with the ramps of a recipe; empty when nothing is."""
    length, batch = config.length_tokens, config.batch_tokens or 0
    for name, ramp, sizes, full in (
        ("batch_ramp", config.batch_ramp, [s.batch_tokens for s in config.batch_ramp], batch),
        ("length_ramp", config.length_ramp, [s.length_tokens for s in config.length_ramp], length),
    ):
        unit = name.replace("ramp", "tokens")
        if [s.until for s in ramp] != sorted({s.until for s in ramp}):
            return f"the stages of {name} must come one after the other: sort them by until"
        if not all(a < b for a, b in pairwise([*sizes, full])):
            return f"{unit} must rise from stage to stage of {name}, and up to {unit} of the model, which is {full}"
    if config.batch_ramp and config.batch_ramp[0].batch_tokens < length:
        return "batch_ramp begins below length_tokens: a step holds one row at least"
    for stage in config.length_ramp:
        if length % stage.length_tokens:
            return f"length_ramp cuts rows into equal parts: {stage.length_tokens} does not divide {length}"
    if config.length_ramp and config.whole_documents:
        return "length_ramp and whole_documents contradict each other: shorter rows would tear documents"
    return ""


def resolve(
    budget: Budget,
    plain_steps: int,
    spans: Sequence[Span],
    length: int,
    epoch_rows: float,
    seconds: Sequence[float] = (),
) -> tuple[int, list[Stage]]:
    """(steps, stages) of a run; no stages where all its steps are equal.

    `plain_steps`: what the budget would be in steps of the full size; `seconds`: of a step of each span, for a budget
    in minutes.  Every span but the last takes whole steps, as many as come nearest to its end; the number of positions
    is the budget's, up to one step.
    """
    if len(spans) == 1:
        return plain_steps, []
    shares = [span.until - before for span, before in zip(spans, [0.0, *(s.until for s in spans)], strict=False)]
    if budget.steps is not None:
        rows = budget.steps / sum(share / span.rows for share, span in zip(shares, spans, strict=True))
    elif budget.tokens is not None:
        rows = math.ceil(budget.tokens / length)
    elif budget.epochs is not None:
        rows = math.ceil(budget.epochs * epoch_rows)
    else:
        spent = sum(share / span.rows * second for share, span, second in zip(shares, spans, seconds, strict=True))
        rows = plain_steps * seconds[-1] / spent
    stages, start, steps = [], 0, 0
    for span in spans[:-1]:
        stages.append(Stage(start, span.rows, span.parts))
        turns = max(0, round((span.until * rows - start) / span.rows))
        start, steps = start + turns * span.rows, steps + turns
    stages.append(Stage(start, spans[-1].rows, spans[-1].parts))
    left = (rows - start) / spans[-1].rows
    more = budget.steps - steps if budget.steps is not None else int(left) if budget.minutes else math.ceil(left)
    begun = {stage.start: stage for stage in stages}  # a span too short for a step gives way to the next
    return steps + max(1, more), list(begun.values())


def first_sample(stages: Sequence[Stage], step_rows: int, step: int) -> int:
    """The place in the plan of the first sample of a step (counted from 0)."""
    stages = stages or [Stage(0, step_rows)]
    for stage, after in pairwise(stages):
        turns = (after.start - stage.start) // stage.rows
        if step < turns:
            return stage.start + step * stage.rows
        step -= turns
    return stages[-1].start + step * stages[-1].rows
