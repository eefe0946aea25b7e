"""How large the steps are, as a pure function of the step's number and of what was measured so far."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from wuxing.core.step import Config

Shape = Literal["wsd", "cosine", "linear", "inverse_sqrt", "plateau", "constant"]


class Schedule(Config):
    """Warm-up, then one of the shapes."""

    shape: Shape = "wsd"
    """`wsd` (Hu et al. 2024, MiniCPM) holds the rate and lets it fall at the end; `cosine`; `linear` falls from the
    warm-up on; `inverse_sqrt` falls with the root of the step (Vaswani et al. 2017) and never ends; `plateau` falls
    when the held-out measure has stopped improving; `constant` never falls."""
    warmup_share: float = Field(default=0.02, ge=0, lt=1)
    """Share of the steps in which the rate rises from 0; larger is safer."""
    decay_share: float = Field(default=0.5, ge=0, le=1)
    """`wsd`: share of the steps in which the rate falls."""
    final_share: float = Field(default=0.0, ge=0, le=1)
    """The last step's rate, as a share of the highest; `plateau` never goes below it."""
    patience: int = Field(default=2, ge=1)
    """`plateau`: so many measurements in a row without an improvement let the rate fall."""
    fall: float = Field(default=0.5, gt=0, lt=1)
    """`plateau`: what the rate is multiplied with at each fall."""

    batch_law: Literal["sqrt", "linear", "none"] = "sqrt"
    """With `batch_ramp`: a step of a quarter of the batch has half the rate (`sqrt`, Malladi et al. 2022), a quarter of
    it (`linear`, Goyal et al. 2017), or all of it (`none`)."""

    def of_batch(self, share: float) -> float:
        """What the rate of a step is multiplied with whose batch is this share of the full one."""
        return {"sqrt": math.sqrt(share), "linear": share, "none": 1.0}[self.batch_law]

    def factor(self, step: int, steps: int, measured: Sequence[float] = ()) -> float:
        """What the learning rates of step `step` (counted from 0) of `steps` are multiplied with.

        `measured`: the held-out measure so far, in order, lower is better; only `plateau` looks at it.
        """
        warmup = max(1, round(self.warmup_share * steps))
        if step < warmup and self.warmup_share:
            return (step + 1) / (warmup + 1)
        if self.shape == "constant":
            return 1.0
        if self.shape == "inverse_sqrt":
            return max(self.final_share, math.sqrt(warmup / max(warmup, step + 1)))
        if self.shape == "plateau":
            return max(self.final_share, self.fall ** falls(measured, self.patience))
        decay = max(1, round(self.decay_share * steps)) if self.shape == "wsd" else steps - warmup
        left = (steps - step) / (decay + 1)
        if left >= 1:
            return 1.0
        falling = (1 - math.cos(math.pi * left)) / 2 if self.shape == "cosine" else left
        return self.final_share + (1 - self.final_share) * falling


def falls(measured: Sequence[float], patience: int) -> int:
    """How often `patience` measurements in a row brought nothing better than the best before them."""
    count, waited, best = 0, 0, math.inf
    for value in measured:
        waited = 0 if value < best else waited + 1
        best = min(best, value)
        if waited == patience:
            count, waited = count + 1, 0
    return count
