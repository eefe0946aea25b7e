"""The one training loop: pieces, objective, backward, clip, optimizer.  It knows no algorithm by name.

Shapes: B rows, T tokens.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import torch
import torch.distributed
from torch import Tensor

from wuxing.core.error import WuxingError
from wuxing.data.batch import Batch, BatchSource
from wuxing.model.network import Network
from wuxing.objective.objective import Objective
from wuxing.train.optimizer import Optimizer
from wuxing.train.schedule import Schedule

SPIKE_WINDOW = 32
SPIKE_LEAPS = 10.0
"""A spike is so many usual leaps from step to step above the last losses.  The usual leap of plain noise is its
deviation, and a trend hardly moves it, so this is a matter of some ten deviations."""


@dataclass(frozen=True)
class StepReport:
    """One finished step.  `figures` are those of the source, and the objective's sums divided by the count."""

    step: int
    loss: float
    count: int
    positions: int
    rate: float
    """The schedule's factor."""
    gradient_norm: float
    seconds: float
    figures: dict[str, float]
    samples: list[int]
    spike: list[str]
    """The records of a step whose loss leapt; empty otherwise."""


@dataclass
class Trainer:
    """Owns the state of a run; `step()` moves it on by one update.

    The loss of a step is the sum over all its pieces (and all ranks, when torch.distributed is initialised) divided
    once by their count, so neither cutting nor the number of ranks changes the gradient.
    """

    network: Network
    source: BatchSource
    objective: Objective
    optimizer: Optimizer
    schedule: Schedule
    steps: int
    precision: torch.dtype = torch.float32
    clip: float = 1.0
    done: int = 0
    """Steps finished."""
    positions: int = 0
    """Positions with a token that the network has been trained on."""
    taught: int = 0
    """Labels that it has learnt from."""
    recent: list[float] = field(default_factory=list)
    """Losses of the last steps, for spikes."""

    def step(self) -> StepReport:
        """One update.  Raises WuxingError, before anything changed, when the count is 0 or a value is not finite."""
        started = time.monotonic()
        pieces = [piece.to(self.network.device) for piece in next(self.source)]
        samples = [sample for piece in pieces for sample in piece.sample_ids]
        loss, count, sums = self.gradients(pieces)
        norm = self._norm()
        if not (math.isfinite(loss) and math.isfinite(norm)):
            self.optimizer.zero()
            what = "loss" if not math.isfinite(loss) else "gradient"
            raise WuxingError(
                f"the {what} of step {self.done} is not finite; the weights of step {self.done} were not changed. "
                f"Samples {_some(samples)}: {_some(self._records(samples))}",
                "Lower optimizer.learning_rate, or look at these records",
            )
        if norm > self.clip:
            for parameter in self.optimizer.named.values():
                if parameter.grad is not None:
                    parameter.grad.mul_(self.clip / norm)
        rate = self.schedule.factor(self.done, self.steps)
        self.optimizer.step(rate)
        self.optimizer.zero()
        spike = self._records(samples) if self._spikes(loss) else []
        positions = _reduced(sum(int((piece.documents_BT >= 0).sum()) for piece in pieces))
        self.done, self.positions, self.taught = self.done + 1, self.positions + positions, self.taught + count
        figures = {**self.source.figures, **{name: value / count for name, value in sums.items()}}
        seconds = time.monotonic() - started
        return StepReport(self.done, loss, count, positions, rate, norm, seconds, figures, samples, spike)

    def gradients(self, pieces: list[Batch]) -> tuple[float, int, dict[str, float]]:
        """Leave the gradient of a step in the parameters; returns (loss, count, the objective's sums)."""
        counts = [int(self.objective.count(piece)) for piece in pieces]
        count = _reduced(sum(counts))
        if count == 0:
            samples = [sample for piece in pieces for sample in piece.sample_ids]
            raise WuxingError(
                f"step {self.done} has no label that teaches: every one of them is masked. "
                f"Samples {_some(samples)}: {_some(self._records(samples))}",
                "Take these records out of data, or raise length_tokens if their replies were cut off",
            )
        sums: dict[str, Tensor] = {}
        total = torch.zeros((), dtype=torch.float64, device=self.network.device)
        for piece, taught in zip(pieces, counts, strict=True):
            if not taught:
                continue
            with self.autocast():
                loss = self.objective(self.network, piece)
            (loss.sum / count).backward()
            total += loss.sum.detach()
            for name, value in loss.sums.items():
                sums[name] = sums.get(name, torch.zeros_like(total)) + value.detach()
        if _ranks() > 1:
            self._reduce(total, sums)
        return float(total) / count, count, {name: float(value) for name, value in sums.items()}

    def autocast(self) -> torch.autocast:
        """Products in the run's precision, masters in fp32."""
        return torch.autocast(self.network.device.type, self.precision, enabled=self.precision != torch.float32)

    def _reduce(self, total: Tensor, sums: dict[str, Tensor]) -> None:
        """Add up losses, figures and gradients of all ranks."""
        for name in sorted(sums):
            torch.distributed.all_reduce(sums[name])
        torch.distributed.all_reduce(total)
        for parameter in self.optimizer.named.values():
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            torch.distributed.all_reduce(parameter.grad)

    def _norm(self) -> float:
        gradients = [p.grad for p in self.optimizer.named.values() if p.grad is not None]
        return float(torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients))))

    def _spikes(self, loss: float) -> bool:
        window = self.recent[-SPIKE_WINDOW:]
        self.recent = [*window, loss][-SPIKE_WINDOW:]
        if len(window) < SPIKE_WINDOW // 2:
            return False
        leap = statistics.median(abs(b - a) for a, b in pairwise(window))
        return loss > statistics.median(window[-8:]) + SPIKE_LEAPS * max(leap, 1e-6)

    def _records(self, samples: list[int]) -> list[str]:
        return [record for sample in samples for record in self.source.describe(sample)]

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """Everything that moves, by file: weights, optimizer and random state."""
        return {
            "model": dict(self.network.named_parameters()),
            "optimizer": {**self.optimizer.tensors(), "random": torch.get_rng_state()},
        }

    def state(self) -> dict[str, Any]:
        """The rest, as JSON values."""
        return {
            "done": self.done,
            "steps": self.steps,
            "positions": self.positions,
            "taught": self.taught,
            "recent": self.recent,
            "source": dict(self.source.state_dict()),
        }

    @torch.no_grad()
    def load(self, tensors: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any]) -> None:
        """Go on from what `tensors()` and `state()` gave."""
        weights = tensors["model"]
        for name, parameter in self.network.named_parameters():
            parameter.copy_(weights[name])
        moments = dict(tensors["optimizer"])
        torch.set_rng_state(moments.pop("random"))
        self.optimizer.load(moments)
        self.done, self.positions = int(state["done"]), int(state["positions"])
        self.taught, self.recent = int(state["taught"]), list(state["recent"])
        self.source.load_state_dict(state["source"])


def _ranks() -> int:
    ready = torch.distributed.is_available() and torch.distributed.is_initialized()
    return torch.distributed.get_world_size() if ready else 1


def _reduced(value: int) -> int:
    """The sum over all ranks."""
    if _ranks() == 1:
        return value
    tensor = torch.tensor(value, dtype=torch.int64)
    torch.distributed.all_reduce(tensor)
    return int(tensor)


def _some(values: list[Any], limit: int = 8) -> str:
    shown = ", ".join(str(value) for value in values[:limit])
    return shown + (f" and {len(values) - limit} more" if len(values) > limit else "")
