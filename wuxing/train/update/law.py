"""What follows from other settings by a law, so that nobody has to choose it."""

from __future__ import annotations

import math

from wuxing.train.config import ModelConfig, OptimizerConfig

FRESH_RATE = {"muon": 0.014, "adamw": 0.002, "lion": 0.0003, "adafactor": 0.01, "schedule_free": 0.004}
"""At width 256 and 4,096 positions a step; Muon's is the best of sweeps over widths 64 to 384 (docs/en/laws.md)."""
CONTINUED = 0.3
"""Supervised tuning of a trained model, as a share of the rate of a fresh one."""
REINFORCED = 0.05
"""Reinforcement learning, as a share of the rate of a fresh one, whatever the batch: four times as much unlearnt."""
FRESH_TABLE, CONTINUED_TABLE, REINFORCED_TABLE = 10.0, 3.0, 1.0
"""Learning rate of the token table over that of the matrices: AdamW moves each entry by about the rate, entries begin
with a deviation of 0.1, and rare tokens are met a few times only.  A trained table is spoilt by as much."""
FRESH_BETAS, BETAS = (0.8, 0.98), (0.9, 0.95)
"""AdamW's beside Muon in a new network, whose gradients are soon out of date, and elsewhere."""
REFERENCE_WIDTH, REFERENCE_BATCH = 256, 4096


def learning_rate(config: ModelConfig, width: int, batch_positions: int) -> float:
    """The highest learning rate: falls with the root of the width, grows with the root of the batch.

    Muon's and AdamW's updates have a size that does not depend on the gradient's, so noise falls with the root of the
    batch and so may the rate rise (Malladi et al. 2022); the root of the width keeps the change of each state constant.
    """
    rate = FRESH_RATE[config.optimizer.kind] * math.sqrt(REFERENCE_WIDTH / width)
    if config.objective.grpo is not None:
        return float(f"{rate * REINFORCED:.2g}")
    share = CONTINUED if config.start_from else 1.0
    batch = math.sqrt(min(4.0, max(0.25, batch_positions / REFERENCE_BATCH)))
    return float(f"{rate * share * batch:.2g}")


def settled(config: ModelConfig) -> OptimizerConfig:
    """The optimizer's settings with what was left out filled in."""
    reinforced = config.objective.grpo is not None
    table = REINFORCED_TABLE if reinforced else CONTINUED_TABLE if config.start_from else FRESH_TABLE
    fresh = config.optimizer.kind == "muon" and not config.start_from
    derived = {"embedding_rate": table, "betas": FRESH_BETAS if fresh else BETAS}
    left_out = {name: value for name, value in derived.items() if getattr(config.optimizer, name) is None}
    return config.optimizer.model_copy(update=left_out)
