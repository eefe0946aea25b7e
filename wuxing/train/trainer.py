"""The one training loop: pieces, objective, backward, clip, optimizer.  It knows no algorithm by name.

Shapes: B rows, T tokens.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from wuxing.compute import team
from wuxing.core.error import WuxingError
from wuxing.data.batch import BATCH_SHARE, Batch, BatchSource
from wuxing.model.network import Network
from wuxing.objective.objective import Objective
from wuxing.train.update.average import Average, swapped
from wuxing.train.update.dropout import Dropout, dropped
from wuxing.train.update.exact import ExactSum, exact_sums
from wuxing.train.update.freeze import Freeze, learning
from wuxing.train.update.guard import WINDOW, Guard, is_spike, level
from wuxing.train.update.optimizer import Optimizer
from wuxing.train.update.schedule import Schedule

if TYPE_CHECKING:
    from wuxing.train.shard.cut import Shards

AVERAGE = "average|"
"""Before the names of averaged weights in a checkpoint."""


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
    skipped: bool = False
    """Whether the update was left out for that."""


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
    freeze: Freeze = field(default_factory=Freeze)
    guard: Guard = field(default_factory=Guard)
    average: Average | None = None
    dropout: Dropout | None = None
    shards: Shards | None = None
    """Where the network is cut over processes: this one's part."""
    exact: ExactSum | None = None
    """Adds pieces up in a way that no order and no number of processes changes; None: as they come."""
    done: int = 0
    """Steps finished."""
    positions: int = 0
    """Positions with a token that the network has been trained on."""
    taught: int = 0
    """Labels that it has learnt from."""
    recent: list[float] = field(default_factory=list)
    """Losses of the last steps, for spikes."""
    least: float = math.inf
    """The least median of them so far."""
    measured: list[float] = field(default_factory=list)
    """The held-out measure so far, lower is better: a plateau schedule follows it."""
    skips: int = 0
    """Updates that were left out."""

    def step(self) -> StepReport:
        """One update.  Raises WuxingError, before anything changed, when the count is 0 or a value is not finite."""
        started = time.monotonic()
        self._thaw()
        held = next(self.source)
        pieces = [piece.to(self.network.device) for piece in held]
        samples = [sample for piece in pieces for sample in piece.sample_ids]
        loss, count, sums = self.gradients(pieces)
        self.optimizer.penalise()
        norm = self._norm()
        if not (math.isfinite(loss) and math.isfinite(norm)):
            self.optimizer.zero()
            what = "loss" if not math.isfinite(loss) else "gradient"
            samples = _of_all_ranks(samples)
            raise WuxingError(
                f"the {what} of step {self.done} is not finite; the weights of step {self.done} were not changed. "
                f"Samples {_some(samples)}: {_some(self._records(samples))}",
                "Lower optimizer.learning_rate, or look at these records",
            )
        if norm > self.clip:
            gradients = [p.grad for p in self.optimizer.named.values() if p.grad is not None]
            torch._foreach_mul_(gradients, self.clip / norm)
        rate = self.schedule.factor(self.done, self.steps, self.measured)
        rate *= self.schedule.of_batch(self.source.figures.get(BATCH_SHARE, 1.0))
        leapt = is_spike(self.recent, loss)
        skipped = leapt and self.guard.spike == "skip"
        if not skipped:
            self.optimizer.step(rate, self.done)
            if self.average is not None:
                self.average.update(self.optimizer.named, self.done + 1)
        self.optimizer.zero()
        self._note(loss, "nats" in sums)
        spike = self._records(_of_all_ranks(samples)) if leapt else []
        positions = int(team.summed([sum(int((piece.documents_BT >= 0).sum()) for piece in held)])[0])
        self.done, self.positions = self.done + 1, self.positions + positions
        self.taught, self.skips = self.taught + count * (not skipped), self.skips + skipped
        figures = {**self.source.figures, **{name: value / count for name, value in sums.items()}}
        seconds = time.monotonic() - started
        return StepReport(self.done, loss, count, positions, rate, norm, seconds, figures, samples, spike, skipped)

    def gradients(self, pieces: list[Batch]) -> tuple[float, int, dict[str, float]]:
        """Leave the gradient of a step in the parameters; returns (loss, count, the objective's sums)."""
        labels = [self.objective.count(piece) for piece in pieces]
        counts = (
            [int(n) for n in torch.stack(labels).tolist()] if labels else []
        )  # a small step has none for some ranks
        count = int(team.summed([sum(counts)])[0])
        if count == 0:
            samples = [sample for piece in pieces for sample in piece.sample_ids]
            raise WuxingError(
                f"step {self.done} has no label that teaches: every one of them is masked. "
                f"Samples {_some(samples)}: {_some(self._records(samples))}",
                "Take these records out of data, or raise length_tokens if their replies were cut off",
            )
        names = list(self.objective.figures)
        found: list[Tensor] = []
        taught = [piece for piece, number in zip(pieces, counts, strict=True) if number]
        passes = len(taught) if self.shards is None else max(team.of_everyone(len(taught)))
        for turn, piece in enumerate(taught):
            if self.shards is not None:
                self.shards.last(turn + 1 == passes)
            with self.autocast(), dropped(self.network, self.dropout, self.done, piece.sample_ids):
                loss = self.objective(self.network, piece)
            (loss.sum / count).backward()
            if self.exact is not None:
                self.exact.take(self.optimizer.named)
            found.append(
                torch.stack([value.detach().double() for value in (loss.sum, *map(loss.sums.__getitem__, names))])
            )
        if self.shards is not None:
            with self.autocast():
                self.shards.keep_up_with(passes - len(taught))
        whole = self._added_up(found, 1 + len(names))
        return whole[0] / count, count, dict(zip(names, whole[1:], strict=True))

    def _added_up(self, found: list[Tensor], width: int) -> list[float]:
        """The sums of a step over its pieces and all ranks; its gradient is added up here too.

        A GPU is waited for once here, and once for the norm.
        """
        if self.exact is not None:
            self.exact.give(self.optimizer.named)
            return exact_sums(torch.stack(found).tolist() if found else [], width)
        nothing = torch.zeros(width, dtype=torch.float64, device=self.network.device)
        whole = team.summed(sum(found, nothing).tolist())
        if team.ranks() > 1:
            self._reduce()
        return whole

    def autocast(self) -> torch.autocast:
        """Products in the run's precision, masters in fp32."""
        return torch.autocast(self.network.device.type, self.precision, enabled=self.precision != torch.float32)

    def _reduce(self) -> None:
        """Add up the gradients of all ranks."""
        if self.shards is not None:
            self.shards.collect()
            return
        learning = [parameter for parameter in self.optimizer.named.values() if parameter.requires_grad]
        for parameter in learning:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        team.add_up([parameter.grad for parameter in learning if parameter.grad is not None])

    def _norm(self) -> float:
        if self.exact is not None:
            return self.exact.norm(self.optimizer.named)
        if self.shards is not None:
            return self.shards.norm()
        gradients = [p.grad for p in self.optimizer.named.values() if p.grad is not None]
        return float(torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients))))

    def _note(self, loss: float, in_nats: bool) -> None:
        """Remember a step's loss.  Raises WuxingError when it has run away."""
        self.recent = [*self.recent, loss][-WINDOW:]
        now = level(self.recent)
        if now is None:
            return
        if in_nats and now > self.least + self.guard.diverged_nats:
            raise WuxingError(
                f"training has diverged: around step {self.done} the loss is {now:.4g}, it was {self.least:.4g} before",
                "Lower optimizer.learning_rate, or raise guard.diverged_nats if the data became that much harder",
            )
        self.least = min(self.least, now)

    def _thaw(self) -> None:
        """Let learn what learns in this step."""
        active = learning(self.optimizer.named, self.freeze, self.done, self.steps)
        for name, parameter in self.optimizer.named.items():
            parameter.requires_grad_(name in active)
        if self.shards is not None:
            self.shards.learn(active)

    @contextmanager
    def judged(self) -> Iterator[Network]:
        """The network with the weights that are measured and kept: averaged ones, where there are some."""
        others = self.average.tensors if self.average is not None else self.optimizer.averaged()
        swap = swapped(self.optimizer.named, others) if self.shards is None else self.shards.exchanged(others)
        with swap:
            yield self.network

    def _records(self, samples: list[int]) -> list[str]:
        return [record for sample in samples for record in self.source.describe(sample)]

    @property
    def named(self) -> dict[str, Tensor]:
        """The weights that this process keeps: all of them, or its rows."""
        return dict(self.network.named_parameters()) if self.shards is None else self.shards.named

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """Everything that moves, by file: weights, optimizer and random state."""
        average = self.average.tensors if self.average is not None else {}
        return {
            "model": self.named,
            "optimizer": {
                **self.optimizer.tensors(),
                **{f"{AVERAGE}{name}": tensor for name, tensor in average.items()},
                "random": torch.get_rng_state(),
            },
        }

    def state(self) -> dict[str, Any]:
        """The rest, as JSON values."""
        return {
            "done": self.done,
            "steps": self.steps,
            "positions": self.positions,
            "taught": self.taught,
            "recent": self.recent,
            "least": None if math.isinf(self.least) else self.least,
            "measured": self.measured,
            "skips": self.skips,
            "source": dict(self.source.state_dict()),
        }

    @torch.no_grad()
    def load(self, tensors: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any]) -> None:
        """Go on from what `tensors()` and `state()` gave."""
        weights = tensors["model"]
        for name, parameter in self.named.items():
            parameter.copy_(weights[name])
        moments = dict(tensors["optimizer"])
        torch.set_rng_state(moments.pop("random"))
        kept = {name: moments.pop(name) for name in list(moments) if name.startswith(AVERAGE)}
        if self.average is not None:
            device = self.network.device
            self.average.tensors = {n.removeprefix(AVERAGE): t.to(device, copy=True) for n, t in kept.items()}
        self.optimizer.load(moments)
        self.done, self.positions = int(state["done"]), int(state["positions"])
        self.taught, self.recent = int(state["taught"]), list(state["recent"])
        self.least = math.inf if state["least"] is None else float(state["least"])
        self.measured, self.skips = list(state["measured"]), int(state["skips"])
        self.source.load_state_dict(state["source"])


def _of_all_ranks(samples: list[int]) -> list[int]:
    """The samples of a step on all ranks, in the order of the plan."""
    return sorted(sample for part in team.of_everyone(samples) for sample in part)


def _some(values: list[Any], limit: int = 8) -> str:
    shown = ", ".join(str(value) for value in values[:limit])
    return shown + (f" and {len(values) - limit} more" if len(values) > limit else "")
