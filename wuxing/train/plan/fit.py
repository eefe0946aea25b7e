"""How a step is cut so that it fits: the size of a piece, and whether blocks are computed again; and why."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from wuxing.compute import team
from wuxing.compute.memory import MemoryPlan, refuse_too_large
from wuxing.compute.mesh import cut
from wuxing.train.config import ModelConfig
from wuxing.train.plan.calibration import entries, memory_factor
from wuxing.train.plan.memory import PIECE_POSITIONS, free_memory, plan_run

SHARDS = (2, 4, 8, 16, 32, 64)


@dataclass(frozen=True)
class Fit:
    """A decision, and what it needs."""

    plan: MemoryPlan
    piece_tokens: int
    recompute: bool
    factor: float = 1.0
    """What earlier runs on this machine say that plans are to be multiplied with."""

    @property
    def peak(self) -> int:
        """Planned bytes, corrected."""
        return round(self.plan.peak * self.factor)

    @property
    def decided(self) -> dict[str, Any]:
        """For `start.json`."""
        return {
            "planned_bytes": self.peak,
            "memory_factor": self.factor,
            "memory_parts": self.plan.parts,
            "piece_tokens": self.piece_tokens,
            "recompute": self.recompute,
        }


def pieces_of(config: ModelConfig) -> list[int]:
    """Sizes of a piece to try, the largest first: the recipe's own, or halves of the usual one down to one row."""
    if config.piece_tokens is not None:
        return [config.piece_tokens]
    found, size = [PIECE_POSITIONS], PIECE_POSITIONS // 2
    while size >= config.length_tokens and config.rollout is None:
        if size < (config.batch_tokens or 0):
            found.append(size)
        size //= 2
    return found


Plan = Callable[[ModelConfig], MemoryPlan]


def fit(
    config: ModelConfig,
    plan: Callable[[ModelConfig], MemoryPlan],
    available: int,
    factor: Callable[[MemoryPlan], float],
) -> Fit | None:
    """The cheapest way that fits: large pieces, then smaller ones (free), then blocks computed again (a third more
    arithmetic).  None where nothing does."""
    ways = [config.recompute] if config.recompute is not None else [False, True]
    for again in ways if config.rollout is None else [False]:
        for piece in pieces_of(config):
            found = plan(config.model_copy(update={"piece_tokens": piece, "recompute": again}))
            made = Fit(found, piece, bool(again), factor(found))
            if made.peak <= available:
                return made
            if made.peak - (found.activations + found.loss) * made.factor > available:
                return None  # what lasts does not fit: no piece is small enough
    return None


def _untried(config: ModelConfig) -> list[str]:
    """What the recipe forbids and would take less memory."""
    smaller = config.piece_tokens is not None and config.piece_tokens > config.length_tokens
    return ["a smaller piece_tokens"] * smaller + ["recompute: true"] * (config.recompute is False)


def fit_to_memory(
    config: ModelConfig,
    shape: Mapping[str, Any],
    precision: torch.dtype,
    device: torch.device,
    shards: int,
    home: Path,
    say: Callable[[str], None],
) -> Fit:
    """The decision for this machine, the same on every rank.

    Raises WuxingError, before anything is allocated, when nothing fits, with what would.
    """
    runs, width = entries(home), torch.finfo(precision).bits // 8
    local = team.ranks_here() if device.type == "cpu" else 1

    def plan(tried: ModelConfig) -> MemoryPlan:
        return cut(plan_run(tried, shape, precision, device.type), shape, shards, width, config.adds_exactly)

    def factor(found: MemoryPlan) -> float:
        return memory_factor(runs, found.peak, device.type)

    # of processes that hold the whole state each, the lead alone copies it for a checkpoint
    spare = plan(config).copies * (local - 1) // local if shards == 1 else 0
    available = min(team.of_everyone(free_memory(device) + spare))
    found = fit(config, plan, available, factor)
    if found is None:
        again = config.recompute is not False and config.rollout is None
        smallest = config.model_copy(update={"piece_tokens": pieces_of(config)[-1], "recompute": again})
        whole = plan_run(smallest, shape, precision, device.type, measured=False)
        over = next((n for n in SHARDS if n > shards and cut(whole, shape, n, width).peak <= available), 0)
        need = plan(smallest)
        need = replace(need, other=need.other + round(need.peak * (factor(need) - 1)))
        refuse_too_large(need, available, shards=over, processes=local, cheaper=_untried(config))
        found = Fit(need, pieces_of(config)[-1], again)
    mine = found
    piece, again = team.from_lead(lambda: [mine.piece_tokens, mine.recompute])
    found = Fit(mine.plan, int(piece), bool(again), mine.factor)
    free = f"{available / 2**30:.1f} GiB"
    if config.piece_tokens is None and found.piece_tokens < min(PIECE_POSITIONS, config.batch_tokens or 0):
        say(f"pieces of {found.piece_tokens:,} positions: larger ones would not fit into {free}")
    if found.recompute and config.recompute is None:
        say(f"blocks are computed again in the backward pass: keeping them would not fit into {free}")
    return found
