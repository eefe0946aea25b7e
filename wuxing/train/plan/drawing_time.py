"""How long reinforcement learning would take, from a few real steps: replies drawn, judged and learnt from."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch

from wuxing.core.artifact import Artifact
from wuxing.core.memory import trim_memory
from wuxing.data.batch import Batch
from wuxing.generate.engine import Engine, Request
from wuxing.model.architecture import count_parameters
from wuxing.model.network import Network
from wuxing.objective.cross_entropy import token_logprobs
from wuxing.objective.next_token import taught
from wuxing.train.assemble import assemble
from wuxing.train.config import ModelConfig
from wuxing.train.plan.budget import WARM_STEPS
from wuxing.train.plan.drawing import Drawing, drawings, requests
from wuxing.train.plan.memory import PIECE_POSITIONS
from wuxing.train.plan.probe import Pieces, ask, build_trainer, piece_of
from wuxing.train.plan.reply import taught_rows, width_of
from wuxing.train.plan.timing import LEAST_ERROR, MOST_FLOPS, Timing, cores_taken, enough, share_of_others, wait_for
from wuxing.train.rollout import Lengths
from wuxing.train.trainer import Trainer
from wuxing.train.update.law import settled
from wuxing.train.update.optimizer import Optimizer
from wuxing.train.update.schedule import Schedule

LONGER = 3.0
"""Times as long as other training is tried: from step to step other prompts are answered, at other lengths."""
STILL = 1e-9
"""The learning rate of a trial: replies stay as long as those of the model that it starts from."""
Trial = tuple[Trainer, Callable[[], object]]
"""Steps to time, and a measurement on held-out problems."""


class _Drawn(Pieces):
    """A source that draws made-up replies and gives made-up pieces: for a model that is not made yet."""

    def __init__(self, pieces: list[Batch], engine: Engine, asked: list[Request], look_back: bool, trainer: Trainer):
        super().__init__(pieces[0])
        self.pieces, self.engine, self.asked, self.look_back, self.trainer = pieces, engine, asked, look_back, trainer

    @torch.no_grad()
    def __next__(self) -> list[Batch]:
        _draw(self.engine, self.asked)
        for piece in self.pieces if self.look_back else ():  # what the model it started from thinks of them
            with self.trainer.autocast():
                hidden_ND, labels_N = taught(self.trainer.network, piece)
                token_logprobs(hidden_ND, self.trainer.network.head_VD, labels_N)
        return self.pieces


def _draw(engine: Engine, asked: list[Request]) -> None:
    for _ in engine.generate(asked):
        pass
    engine.release()


def measure_drawing(
    config: ModelConfig,
    shape: Mapping[str, Any],
    steps: float,
    precision: torch.dtype,
    device: str,
    parents: Mapping[str, Artifact] | None = None,
    lengths: Lengths | None = None,
) -> Timing | None:
    """The time of so many steps and of the measurements; None where a step takes too long to try.

    With `parents`, the model to start from and the task, replies are those of that model to the first prompts of the
    run; else made up, all as long as they may become.
    """
    rollout = config.rollout
    assert rollout is not None
    learnt = taught_rows(config) * width_of(config, lengths)
    drawn = rollout.replies() * (rollout.reply_tokens + config.length_tokens / rollout.group)
    if count_parameters(dict(shape)) * (6.0 * learnt + 2.0 * drawn) > MOST_FLOPS:
        return None
    began = time.perf_counter()
    with torch.random.fork_rng(devices=[]):
        if parents is not None:
            trainer, look = _real(config, parents, precision, device)
        else:
            trainer, look = _made_up(config, shape, precision, device, lengths)
        # the first ones encode all prompts, allocate, and make the kernels of most shapes
        warm = sum(_seconds(trainer.step, device) for _ in range(WARM_STEPS))
        started, taken = time.perf_counter(), cores_taken()
        times = list[float]()
        while not enough(len(times), sum(times) / LONGER):
            times.append(_seconds(trainer.step, device))
        looks = _seconds(look, device)
        others = share_of_others(taken, started)
    trim_memory()
    mean = statistics.fmean(times)
    spread = 2 * statistics.stdev(times) / mean / math.sqrt(len(times))
    seconds = warm + max(0.0, steps - WARM_STEPS) * mean + config.measurements * looks
    return Timing(seconds, max(LEAST_ERROR, spread), time.perf_counter() - began, others)


def _seconds(work: Callable[[], object], device: str) -> float:
    started = time.perf_counter()
    work()
    wait_for(device)
    return time.perf_counter() - started


def _real(config: ModelConfig, parents: Mapping[str, Artifact], precision: torch.dtype, device: str) -> Trial:
    """The run itself, as far as it goes."""
    parts = assemble(config, parents, config.seed or 0, torch.device(device), precision, None)
    trainer = Trainer(
        network=parts.network,
        source=parts.source,
        objective=parts.objective,
        optimizer=Optimizer(parts.network, settled(config), STILL),
        schedule=Schedule(),
        steps=10**6,
        precision=precision,
    )
    return trainer, lambda: parts.validate(trainer.network)


def _made_up(
    config: ModelConfig, shape: Mapping[str, Any], precision: torch.dtype, device: str, lengths: Lengths | None
) -> Trial:
    assert config.rollout is not None and config.objective.grpo is not None
    rows, width = taught_rows(config), width_of(config, lengths)
    at_once = max(1, (config.piece_tokens or PIECE_POSITIONS) // config.length_tokens)
    asked = ask(config, shape, min(rows, at_once), precision, device, width)
    trainer = build_trainer(asked, int(shape["num_hidden_layers"]), 1)
    step, looked = drawings(config, shape, device, lengths)
    pieces = [piece.to(device) for piece in piece_of(asked, rows, int(shape["vocab_size"])).pieces(at_once)]
    asked_for = requests(step, config.rollout.reply_tokens, config.rollout.replies())
    look_back = bool(config.objective.grpo.kl)
    trainer.source = _Drawn(pieces, _engine(trainer.network, step), asked_for, look_back, trainer)
    held_out = requests(looked, config.rollout.reply_tokens, config.validation.prompts)
    return trainer, lambda: _draw(_engine(trainer.network, looked), held_out)


def _engine(network: Network, asked: Drawing) -> Engine:
    return Engine(network, max_rows=asked.rows, max_tokens=asked.length)
