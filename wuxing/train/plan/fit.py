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
from wuxing.core.amount import bytes_text
from wuxing.core.error import WuxingError
from wuxing.train.config import ModelConfig
from wuxing.train.plan.calibration import entries, memory_factor
from wuxing.train.plan.memory import PIECE_POSITIONS, free_memory, plan_run
from wuxing.train.plan.reply import fewer_rows, rows_of, with_rows
from wuxing.train.rollout import Lengths

SHARDS = (2, 4, 8, 16, 32, 64)


@dataclass(frozen=True)
class Fit:
    """A decision, and what it needs."""

    plan: MemoryPlan
    piece_tokens: int
    recompute: bool
    rollout_rows: int = 0
    """Replies drawn at once; 0 without a task."""
    factor: float = 1.0
    """What earlier runs on this machine say that plans are to be multiplied with."""

    @property
    def peak(self) -> int:
        """Planned bytes, corrected."""
        return round(self.plan.peak * self.factor)

    def applied(self, config: ModelConfig) -> ModelConfig:
        """The recipe with what was decided."""
        update = {"piece_tokens": self.piece_tokens, "recompute": self.recompute}
        return with_rows(config, self.rollout_rows).model_copy(update=update)

    @property
    def decided(self) -> dict[str, Any]:
        """For `start.json`."""
        return {
            "planned_bytes": self.peak,
            "memory_factor": self.factor,
            "memory_parts": self.plan.parts,
            "piece_tokens": self.piece_tokens,
            "recompute": self.recompute,
            "rollout_rows": self.rollout_rows,
        }


def pieces_of(config: ModelConfig) -> list[int]:
    """Sizes of a piece to try, the largest first: the recipe's own, or halves of the usual one down to one row."""
    if config.piece_tokens is not None:
        return [config.piece_tokens]
    found, size = [PIECE_POSITIONS], PIECE_POSITIONS // 2
    while size >= config.length_tokens:
        if size < config.step_positions:
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
    arithmetic); of replies as many at once as fit beside that.  None where nothing does."""
    ways = [config.recompute] if config.recompute is not None else [False, True]
    for again in ways:
        for piece in pieces_of(config):
            for tried in fewer_rows(config.model_copy(update={"piece_tokens": piece, "recompute": again})):
                found = plan(tried)
                made = Fit(found, piece, bool(again), rows_of(tried), factor(found))
                if made.peak <= available:
                    return made
                if made.peak - (found.activations + found.loss + found.replies) * made.factor > available:
                    return None  # what lasts does not fit: no piece is small enough
                if not found.replies:
                    break  # learning takes more than drawing: fewer replies at once would not help
    return None


def _untried(config: ModelConfig) -> list[str]:
    """What the recipe forbids and would take less memory."""
    smaller = config.piece_tokens is not None and config.piece_tokens > config.length_tokens
    return ["a smaller piece_tokens"] * smaller + ["recompute: true"] * (config.recompute is False)


def refuse_replies(config: ModelConfig, plan: Plan, factor: Callable[[MemoryPlan], float], available: int) -> None:
    """Raises WuxingError when it is the number of replies at once, as the recipe has it, that does not fit:
    learning, or the model itself, may be too large as well."""
    if config.rollout is None:
        return
    asked = rows = rows_of(config)
    found = plan(config)
    needed = round(found.peak * factor(found))
    while rows > 1 and found.replies:
        rows //= 2
        found = plan(with_rows(config, rows))
        if found.peak * factor(found) <= available:
            raise WuxingError(
                f"too many replies at once for memory: drawing {asked:,} of up to {config.length_tokens:,} tokens "
                f"needs {bytes_text(needed)} with all that lies beside it, {bytes_text(available)} are free",
                f"Take rollout.rows of {rows:,}, or leave it out: as many as fit are drawn then",
            )


def fit_to_memory(
    config: ModelConfig,
    shape: Mapping[str, Any],
    precision: torch.dtype,
    device: torch.device,
    shards: int,
    home: Path,
    say: Callable[[str], None],
    lengths: Lengths | None = None,
) -> Fit:
    """The decision for this machine, the same on every rank.  `lengths`: of its task.

    Raises WuxingError, before anything is allocated, when nothing fits, with what would.
    """
    runs, width = entries(home), torch.finfo(precision).bits // 8
    local = team.ranks_here() if device.type == "cpu" else 1

    def plan(tried: ModelConfig) -> MemoryPlan:
        whole = plan_run(tried, shape, precision, device.type, lengths=lengths)
        return cut(whole, shape, shards, width, config.adds_exactly)

    def factor(found: MemoryPlan) -> float:
        return memory_factor(runs, found.peak, device.type)

    # of processes that hold the whole state each, the lead alone copies it for a checkpoint
    spare = plan(config).copies * (local - 1) // local if shards == 1 else 0
    available = min(team.of_everyone(free_memory(device) + spare))
    found = fit(config, plan, available, factor)
    if found is None:
        again = config.recompute is not False
        smallest = config.model_copy(update={"piece_tokens": pieces_of(config)[-1], "recompute": again})
        smallest = fewer_rows(smallest)[-1]
        refuse_replies(smallest, plan, factor, available)
        whole = plan_run(smallest, shape, precision, device.type, measured=False)
        over = next((n for n in SHARDS if n > shards and cut(whole, shape, n, width).peak <= available), 0)
        need = plan(smallest)
        need = replace(need, other=need.other + round(need.peak * (factor(need) - 1)))
        refuse_too_large(need, available, shards=over, processes=local, cheaper=_untried(config))
        found = Fit(need, pieces_of(config)[-1], again, rows_of(smallest))
    mine = found
    piece, again, rows = team.from_lead(lambda: [mine.piece_tokens, mine.recompute, mine.rollout_rows])
    found = Fit(mine.plan, int(piece), bool(again), int(rows), mine.factor)
    free = bytes_text(available)
    if config.piece_tokens is None and found.piece_tokens < min(PIECE_POSITIONS, config.step_positions):
        say(f"pieces of {found.piece_tokens:,} positions: larger ones would not fit into {free}")
    if found.recompute and config.recompute is None:
        say(f"blocks are computed again in the backward pass: keeping them would not fit into {free}")
    if found.rollout_rows < rows_of(config):
        say(f"{found.rollout_rows:,} replies are drawn at once: more would not fit into {free}")
    return found
