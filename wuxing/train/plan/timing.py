"""How long a run would take, from a few real steps of the whole network with few rows."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Mapping
from typing import Any

import torch

from wuxing.train.config import ModelConfig
from wuxing.train.plan.probe import ask, build_trainer, step_flops

TRIAL_TOKENS = 2048
"""Positions of a timed step: enough for the products to reach their rate."""
MOST_FLOPS = 2e12
"""Of one timed step: some five seconds of two cores.  Larger networks are not tried."""
TIMED = 3
ENOUGH_SECONDS = 4.0


def measure_seconds(
    config: ModelConfig, shape: Mapping[str, Any], tokens: int, precision: torch.dtype, device: str
) -> float | None:
    """Seconds of training and validation for so many positions; None where a step takes too long to try.

    Passes and updates are timed apart: a step of the run has more rows, and one update all the same.
    """
    if not config.objective.learns_text or config.batch_tokens is None:
        return None
    step_rows = max(1, config.batch_tokens // config.length_tokens)
    rows = min(step_rows, max(1, (config.piece_tokens or TRIAL_TOKENS) // config.length_tokens))
    rows = max(1, min(rows, TRIAL_TOKENS // config.length_tokens))
    asked = ask(config, shape, rows, precision, device)
    layers = int(shape["num_hidden_layers"])
    if step_flops(asked, layers) > MOST_FLOPS:
        return None
    with torch.random.fork_rng(devices=[]):
        trainer = build_trainer(asked, layers, rows)
    updates: list[float] = []
    passes: list[float] = []
    update = trainer.optimizer.step

    def timed(*arguments: Any) -> None:
        _wait(device)
        started = time.perf_counter()
        update(*arguments)
        _wait(device)
        updates.append(time.perf_counter() - started)

    trainer.optimizer.step = timed  # type: ignore[method-assign,assignment]
    began = time.perf_counter()
    while len(passes) < 1 + TIMED and (len(passes) < 2 or time.perf_counter() - began < ENOUGH_SECONDS):
        started = time.perf_counter()
        trainer.step()
        _wait(device)
        passes.append(time.perf_counter() - started - updates[-1])
    one, after = statistics.median(passes[1:]), statistics.median(updates[1:])
    steps = max(1, math.ceil(tokens / (step_rows * config.length_tokens)))
    rows_of_validation = max(1, config.validation.tokens // config.length_tokens)
    looks = config.measurements * rows_of_validation * one / rows / 3  # forward only
    return steps * (one * step_rows / rows + after) + looks


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()
