"""What is watched while a model learns, and what is done about it."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

from pydantic import Field

from wuxing.core.step import Config

WINDOW = 32
LEAPS = 10.0
"""A spike is so many usual leaps from step to step above the last losses.  The usual leap of plain noise is its
deviation, and a trend hardly moves it, so this is a matter of some ten deviations."""
LEVEL_WINDOW = 16
OVERFITTING_TURNS = 2
"""Measurements in a row that are worse than the best, while the training loss still falls."""


class Guard(Config):
    """What happens when the loss leaps.  A loss or gradient that is not finite stops the run before it does harm."""

    spike: Literal["name", "skip", "rewind"] = "name"
    """`name` says which records made the loss leap; `skip` also leaves that update out; `rewind` goes back to the last
    `rewind_steps` mark and on from there with the samples behind the leap (Chowdhery et al. 2022, PaLM, 5.1)."""
    rewind_steps: int = Field(default=50, gt=0)
    """Steps between the marks that can be gone back to; fewer lose less work and write more checkpoints."""
    max_rewinds: int = Field(default=3, ge=1)
    """More leaps than this stop the run: then it is not the data."""
    diverged_nats: float = Field(default=2.0, gt=0)
    """Nats per label by which the median of the last steps may lie above the least that was reached; beyond it the run
    stops as diverged."""


def is_spike(recent: Sequence[float], loss: float) -> bool:
    """Whether a loss leaps out of those before it; never before half a window is there."""
    window = recent[-WINDOW:]
    if len(window) < WINDOW // 2:
        return False
    leap = statistics.median(abs(b - a) for a, b in pairwise(window))
    return loss > statistics.median(window[-8:]) + LEAPS * max(leap, 1e-6)


def level(recent: Sequence[float]) -> float | None:
    """The median of the last losses; None before there are enough."""
    return statistics.median(recent[-LEVEL_WINDOW:]) if len(recent) >= LEVEL_WINDOW else None


def overfits(measured: Sequence[float], losses: Sequence[float | None]) -> bool:
    """Whether the held-out measure has been getting worse while the training loss fell.

    `measured`: lower is better, one per measurement; `losses`: the level of the training loss at each of them, None
    before there was one.
    """
    turns = OVERFITTING_TURNS
    if len(measured) <= turns or len(losses) < len(measured):
        return False
    worse = all(after > before for before, after in pairwise(measured[-turns - 1 :]))
    known = [loss for loss in losses[-turns - 1 :] if loss is not None]
    falling = all(after < before for before, after in pairwise(known))
    return worse and falling and len(known) > turns
