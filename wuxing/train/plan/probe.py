"""How much memory a step takes, measured: real steps of one and of two layers, and what follows for all of them.

What a step holds grows by the same amount with each layer.  So two steps say what any number of layers takes: of the
code as it is, whatever it keeps for its backward pass, and without a formula that has to follow it.
"""

from __future__ import annotations

import gc
import itertools
import math
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import Any

import torch

from wuxing.compute import team
from wuxing.compute.memory import available_memory, plan_memory
from wuxing.core.memory import trim_memory
from wuxing.data.batch import IGNORED, Batch
from wuxing.model.architecture import count_parameters
from wuxing.model.network import Network
from wuxing.objective.grpo import Grpo
from wuxing.objective.masked import Masked
from wuxing.objective.next_token import NextToken
from wuxing.train.config import ModelConfig, OptimizerConfig, of_text
from wuxing.train.numerics import gradient_of, rows_checked
from wuxing.train.plan.reply import taught_rows
from wuxing.train.trainer import Trainer
from wuxing.train.update.average import Average
from wuxing.train.update.dropout import Dropout
from wuxing.train.update.optimizer import Optimizer
from wuxing.train.update.schedule import Schedule
from wuxing.train.validate import ROWS_AT_ONCE_TOKENS

TRIES = 3
"""The profiler was seen to end a step without a single block, late in a long process."""
MOST_FLOPS = 3e12
"""Of both steps: some six seconds of two cores.  Larger networks are planned by formula."""
SLICE = 1 << 21
"""Logits of a slice of the loss: with fewer rows than one slice, what the loss takes still grows with them."""
PARTS = ("forward", "backward", "update")
MARK = "wuxing:"
_ONE_SESSION = threading.Lock()
"""Two sessions of PyTorch's profiler at once, in two threads, end without blocks or with a segmentation fault."""


class Blind(Exception):
    """PyTorch's profiler saw no block in any try, so nothing is known: the formula stands in."""


@dataclass(frozen=True)
class Asked:
    """What decides the memory of a step."""

    shape: tuple[tuple[str, Any], ...]
    rows: int
    """Of one piece."""
    length: int
    step_rows: int
    several: bool
    """Whether a step has more than one piece: gradients lie there while the next ones are made."""
    looked: int
    """Rows that go through at once when held-out data are measured."""
    packed: bool
    precision: torch.dtype
    device: str
    optimizer: OptimizerConfig
    objective: NextToken | Grpo
    dropout: float
    average: float | None
    recompute: bool
    reply_tokens: int = 0
    """Tokens at the end of a row that are a reply and teach; 0: as the objective has it."""


@dataclass(frozen=True)
class Probed:
    """Bytes of one process, beyond what it holds before."""

    peak: int
    """The most at once of tensors that are alive, while it learns and while it is measured."""
    early: int
    """The same before the first step: the self-checks compare whole gradients in fp32."""
    state: int
    """Optimizer and averages."""


class Pieces:
    """A source whose every step is the same piece."""

    digest = ""
    figures: dict[str, float] = {}

    def __init__(self, piece: Batch):
        self.piece = piece

    def __next__(self) -> list[Batch]:
        return [self.piece]

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        del state

    def describe(self, sample_id: int) -> list[str]:
        return [str(sample_id)]


@dataclass
class _Step:
    """One real step: blocks taken (above 0) and given back (below 0), one after the other."""

    forward: list[int] = field(default_factory=list)
    backward: list[int] = field(default_factory=list)
    update: list[int] = field(default_factory=list)
    state: int = 0
    peak: int = 0
    looking: int = 0
    """The most at once while held-out data are measured."""
    checking: int = 0
    """The most at once in the self-check of the first batch."""


def ask(
    config: ModelConfig,
    shape: Mapping[str, Any],
    rows: int,
    precision: torch.dtype,
    device: str,
    length: int | None = None,
) -> Asked:
    """The question that a recipe's model poses; of rollouts `length` is that of the rows from which it learns."""
    rollout, step_rows = config.rollout, max(1, config.step_positions // config.length_tokens)
    return Asked(
        shape=tuple(sorted((key, frozen(value)) for key, value in shape.items())),
        rows=rows,
        length=length or config.length_tokens,
        step_rows=step_rows,
        several=step_rows > rows if rollout is None else taught_rows(config) > rows,
        looked=0 if rollout else max(1, min(ROWS_AT_ONCE_TOKENS, config.validation.tokens) // config.length_tokens),
        packed=config.document_mask and rollout is None,
        precision=precision,
        device=device,
        optimizer=config.optimizer,
        objective=config.objective.grpo or of_text(config.objective),
        dropout=config.dropout,
        average=config.average,
        recompute=bool(config.recompute),
        reply_tokens=rollout.reply_tokens if rollout else 0,
    )


def affordable(asked: Asked) -> bool:
    """Whether asking costs a few seconds at most."""
    return any(_flops(asked, rows) < MOST_FLOPS for rows in ([asked.rows], _few_rows(asked)))


def _few_rows(asked: Asked) -> list[int]:
    """Two numbers of rows, from the first of which on memory grows evenly."""
    slice_tokens = max(64, SLICE // int(dict(asked.shape)["vocab_size"]))
    few = max(1, math.ceil(slice_tokens / (asked.reply_tokens or asked.length)))
    return [few, 2 * few]


def _has_room(asked: Asked) -> bool:
    """Whether two layers with all rows can be tried where a limit may end the process: by formula, twice over."""
    free = available_memory() if asked.device == "cpu" else int(torch.cuda.mem_get_info()[0])
    shape = _shape_of(asked, min(2, int(dict(asked.shape)["num_hidden_layers"])))
    width = torch.finfo(asked.precision).bits // 8
    plan = plan_memory(shape, count_parameters(shape), asked.rows * asked.length, asked.length, width)
    return 2 * plan.peak < free


def _flops(asked: Asked, amounts: Sequence[int]) -> float:
    """Of all steps that are gone through."""
    shape = dict(asked.shape)
    inner = count_parameters({**shape, "num_hidden_layers": 3}) - count_parameters({**shape, "num_hidden_layers": 0})
    table = int(shape["vocab_size"]) * int(shape["hidden_size"])
    orthogonal = 2 * 15 * inner * int(shape["hidden_size"]) if asked.optimizer.kind == "muon" else 0
    return 6.0 * sum(amounts) * asked.length * (inner + 2 * table) + orthogonal * len(amounts)


def step_flops(asked: Asked, layers: int) -> float:
    """Arithmetic of one step of one piece, roughly."""
    shape = dict(asked.shape)
    inner = count_parameters({**shape, "num_hidden_layers": layers}) - count_parameters(
        {**shape, "num_hidden_layers": 0}
    )
    table = int(shape["vocab_size"]) * int(shape["hidden_size"])
    return 6.0 * asked.rows * asked.length * (inner + table)


@lru_cache(maxsize=64)
def probe(asked: Asked) -> Probed:
    """Measure.  Takes from a tenth of a second to a few seconds; leaves the random state as it was.

    Raises Blind where the profiler sees nothing.
    """
    layers = int(dict(asked.shape)["num_hidden_layers"])
    depths = [layers] if layers <= 2 else [1, 2]
    few = _few_rows(asked)
    large = _flops(asked, [asked.rows]) > MOST_FLOPS or not _has_room(asked)
    amounts = few if sum(few) < asked.rows and large else [asked.rows]
    with team.alone(), torch.random.fork_rng(devices=[]):
        found = [[_trimmed(_step(asked, depth, rows)) for rows in amounts] for depth in depths]

    def whole(of: Callable[[_Step], int]) -> int:
        return along(layers, depths, [along(asked.rows, amounts, [of(step) for step in line]) for line in found])

    state = whole(lambda step: step.state)
    if asked.device == "cuda":
        return Probed(whole(lambda step: step.peak), 0, state)
    tops = {part: whole(partial(_highest, part=part)) for part in PARTS}
    weights = 4 * count_parameters(_shape_of(asked, layers))
    learning = weights * asked.several + max(tops["update"], state + max(tops["forward"], tops["backward"]))
    looking = state + whole(lambda step: step.looking)
    return Probed(weights + max(learning, looking), weights + whole(lambda step: step.checking), state)


def _trimmed(step: _Step) -> _Step:
    """With nothing left of what it took: a run begins in the same process."""
    trim_memory()
    return step


def along(wanted: int, places: Sequence[int], values: Sequence[float]) -> int:
    """The value at `wanted` of the straight line through two points, or of the one point there is."""
    if len(places) == 1:
        return round(values[0])
    return round(values[0] + (values[1] - values[0]) * (wanted - places[0]) / (places[1] - places[0]))


def _highest(step: _Step, part: str) -> int:
    """The most alive at once in one part of a step, of what the step took."""
    before = {"forward": [], "backward": step.forward, "update": step.forward + step.backward}[part]
    return max(itertools.accumulate(getattr(step, part), initial=sum(before)))


def _step(asked: Asked, layers: int, rows: int) -> _Step:
    trainer = build_trainer(asked, layers, rows)
    step = _Step()
    if asked.device == "cuda":
        trainer.step()
        torch.cuda.reset_peak_memory_stats()
        trainer.step()
        step.peak = torch.cuda.max_memory_allocated()
    else:
        _watch(trainer, step)
        few = _few_rows(asked)
        looks = few if few[1] < asked.looked else [asked.looked]
        if asked.looked:
            step.looking = along(asked.looked, looks, [top(partial(_look, trainer, asked, count)) for count in looks])
        checked = piece_of(asked, min(rows_checked(asked.length), asked.step_rows), trainer.network.vocab_size)
        first = sum(parameter.nbytes for parameter in trainer.network.parameters())  # the one it is compared with
        step.checking = first + top(lambda: gradient_of(trainer.network, asked.objective, [checked]))
    step.state = sum(tensor.nbytes for name, tensor in trainer.tensors()["optimizer"].items() if name != "random")
    return step


def _watch(trainer: Trainer, step: _Step) -> None:
    """Every block that PyTorch takes and gives back in one step."""
    from torch.profiler import record_function

    penalise, objective = trainer.optimizer.penalise, trainer.objective

    class Marked:
        figures, count = objective.figures, objective.count

        def __call__(self, model: Any, batch: Batch) -> Any:
            loss = objective(model, batch)
            with record_function(MARK + "backward"):
                return loss

    def marked() -> None:
        with record_function(MARK + "update"):
            penalise()

    trainer.objective = Marked()
    trainer.optimizer.penalise = marked  # type: ignore[method-assign]
    there = [parameter.grad for parameter in trainer.optimizer.named.values()]  # or it warns of blocks it never saw
    events = profiled(trainer.step)
    del there
    trainer.objective = objective
    part = "forward"
    for name, size in events:
        part = name or part
        if size:
            getattr(step, part).append(size)


def profiled(work: Callable[[], object]) -> list[tuple[str, int]]:
    """The marks and the blocks of some work, in order."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # or the profiler writes lines of its own to the terminal
    from torch.profiler import ProfilerActivity, profile

    events: list[tuple[int, str, int]] = []
    for _ in range(TRIES):
        gc.collect()  # what lies about from before would count as given back by this
        with _ONE_SESSION, profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
            work()
        events = []
        for event in profiler.profiler.kineto_results.events():
            if event.name() == "[memory]" and "CPU" in str(event.device_type()):
                events.append((event.start_ns(), "", int(event.nbytes())))
            elif event.name().startswith(MARK):
                events.append((event.start_ns(), event.name().removeprefix(MARK), 0))
        if any(size for _, _, size in events):
            return [(name, size) for _, name, size in sorted(events, key=lambda one: one[0])]
    raise Blind(f"{TRIES} profiles of one step without a block of memory")


def top(work: Callable[[], object]) -> int:
    """The most that some work holds at once, in bytes."""
    return max(itertools.accumulate((size for _, size in profiled(work)), initial=0))


def _look(trainer: Trainer, asked: Asked, rows: int) -> None:
    """What measuring held-out data does with so many rows."""
    with torch.no_grad(), trainer.autocast():
        asked.objective(trainer.network, piece_of(asked, rows, trainer.network.vocab_size))


def _shape_of(asked: Asked, layers: int) -> dict[str, Any]:
    return {key: thawed(value) for key, value in asked.shape} | {"num_hidden_layers": layers}


def build_trainer(asked: Asked, layers: int, rows: int) -> Trainer:
    """A trainer of a network of so many layers; of several pieces, gradients lie there already."""
    shape = _shape_of(asked, layers)
    network = Network(shape).initialise(0).to(asked.device)
    network.model.recompute = asked.recompute
    optimizer = Optimizer(network, asked.optimizer, 1e-6)
    if asked.several:
        for parameter in optimizer.named.values():
            parameter.grad = torch.zeros_like(parameter)
    return Trainer(
        network=network,
        source=Pieces(piece_of(asked, rows, int(shape["vocab_size"])).to(asked.device)),
        objective=asked.objective,
        optimizer=optimizer,
        schedule=Schedule(),
        steps=10,
        precision=asked.precision,
        dropout=Dropout(asked.dropout, 0) if asked.dropout else None,
        average=Average(asked.average) if asked.average is not None else None,
    )


def piece_of(asked: Asked, rows: int, vocabulary: int) -> Batch:
    """Rows of two documents, so that attention needs its mask."""
    place_T = torch.arange(asked.length)
    half = max(1, asked.length // 2) if asked.packed else asked.length
    tokens_BT = torch.randint(0, vocabulary, (rows, asked.length))
    documents_BT = (place_T // half).expand(rows, -1).contiguous().int()
    positions_BT = (place_T % half).expand(rows, -1).contiguous()
    labels_BT = tokens_BT.clone()
    if isinstance(asked.objective, Masked):
        taught = max(1, round(asked.objective.share * asked.length))
        labels_BT[:, taught:] = IGNORED
    extra: dict[str, torch.Tensor] = {}
    if isinstance(asked.objective, Grpo):
        labels_BT[:, : -asked.reply_tokens] = IGNORED
        names = ["advantages", "sampler_logprobs", *(["reference_logprobs"] if asked.objective.kl else [])]
        extra = {name: torch.full((rows, asked.length), -1.0) for name in names}
    return Batch(tokens_BT, labels_BT, positions_BT, documents_BT, sample_ids=list(range(rows)), extra=extra)


def frozen(value: Any) -> Any:
    if isinstance(value, dict):
        return ("dict", tuple(sorted((key, frozen(item)) for key, item in value.items())))
    return ("list", tuple(value)) if isinstance(value, list) else value


def thawed(value: Any) -> Any:
    if isinstance(value, tuple) and len(value) == 2 and value[0] == "dict":
        return {key: thawed(item) for key, item in value[1]}
    return list(value[1]) if isinstance(value, tuple) and len(value) == 2 and value[0] == "list" else value
