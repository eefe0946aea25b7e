"""How large the steps are, as a pure function of the step's number: nothing to save, nothing to restore."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field

from wuxing.core.step import Config


class Schedule(Config):
    """Warm-up, then a plateau with a linear end (`wsd`) or half a cosine."""

    shape: Literal["wsd", "cosine", "constant"] = "wsd"
    """`wsd` (Hu et al. 2024, MiniCPM) holds the rate and lets it fall at the end; `constant` never lets it fall."""
    warmup_share: float = Field(default=0.02, ge=0, lt=1)
    """Share of the steps in which the rate rises from 0; larger is safer."""
    decay_share: float = Field(default=0.5, ge=0, le=1)
    """`wsd`: share of the steps in which the rate falls."""
    final_share: float = Field(default=0.0, ge=0, le=1)
    """The last step's rate, as a share of the highest."""

    def factor(self, step: int, steps: int) -> float:
        """What the learning rates of step `step` (counted from 0) of `steps` are multiplied with."""
        warmup = max(1, round(self.warmup_share * steps))
        if step < warmup and self.warmup_share:
            return (step + 1) / (warmup + 1)
        if self.shape == "constant":
            return 1.0
        decay = steps - warmup if self.shape == "cosine" else max(1, round(self.decay_share * steps))
        left = (steps - step) / (decay + 1)
        if left >= 1:
            return 1.0
        falling = left if self.shape == "wsd" else (1 - math.cos(math.pi * left)) / 2
        return self.final_share + (1 - self.final_share) * falling
