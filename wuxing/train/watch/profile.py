"""Where the time of a training step goes: by part of the step, by kind of operation, by operation, and as a trace.

The steps are the model's own, on its own samples, in a directory that is thrown away; nothing in the store changes.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from wuxing.compute.device import pick_device, threads_set
from wuxing.core.artifact import Artifact
from wuxing.core.context import Context
from wuxing.core.error import WuxingError
from wuxing.core.step import Draft
from wuxing.train.config import Budget, ModelConfig
from wuxing.train.make import Setting, begin, decide
from wuxing.train.plan.budget import Start
from wuxing.train.plan.memory import Watch
from wuxing.train.trainer import Trainer

WARM_STEPS = 2
PARTS = ("data", "blocks", "loss", "backward", "optimizer", "rest")
"""Waiting for a batch (with a task: drawing replies); forward through the blocks; the loss on top of them; backward;
the update; clipping, counting and all that is left."""
KINDS = {
    "products": ("aten::*mm", "aten::*addmm*", "aten::*matmul", "aten::linear", "mkldnn*linear*", "aten::_scaled_mm*"),
    "attention": ("*scaled_dot_product*", "*flash*", "*flex*", "*softmax*", "*_efficient_attention*"),
    "loss": ("*cross_entropy*", "*nll_loss*", "*log_softmax*", "*logsumexp*", "aten::scatter_add*"),
    "copies and casts": ("aten::copy_", "aten::_to_copy", "aten::clone", "aten::cat", "aten::contiguous", "*memcpy*"),
    "fills": ("aten::fill_", "aten::zero_", "aten::zeros*", "aten::empty*", "aten::ones*", "aten::resize_", "*memset*"),
    "sums": ("aten::sum", "aten::mean", "aten::*norm*", "aten::max", "aten::argmax", "aten::all", "aten::any"),
    "look-ups": ("aten::index*", "aten::embedding*", "aten::gather", "aten::scatter*", "aten::masked*"),
    "between processes": ("*gloo*", "*nccl*", "c10d::*"),
    "compiled": ("*graph*", "*triton*", "*inductor*", "Torch-Compiled Region*"),
}
"""Patterns of the profiler's names, the first that fits; what fits none is `element by element`."""


@dataclass(frozen=True)
class Operation:
    """One kind of operation, for all steps together."""

    name: str
    kind: str
    calls: float
    """In one step."""
    milliseconds: float
    """Of one step, without what it calls."""
    shapes: str
    """Of the largest share's inputs."""


@dataclass(frozen=True)
class Profile:
    """Of one step, the median or mean of those that were looked at."""

    model: str
    device: str
    precision: str
    threads: int
    compiled: bool
    steps: int
    step_milliseconds: float
    """Without the profiler."""
    tokens_per_second: float
    gflops: float
    """The model's arithmetic per second."""
    reached: float | None
    """As a share of the measured rate of products; None where that is not known."""
    peak_bytes: int
    """Beyond what was held before."""
    parts: dict[str, float]
    """Milliseconds of each part of a step."""
    kinds: dict[str, float]
    """Milliseconds of each kind of operation under the profiler, which slows small ones down."""
    operations: list[Operation] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """For `--json`."""
        return asdict(self)


def profile_model(
    name: str,
    config: ModelConfig,
    parents: Mapping[str, Artifact],
    seed: int,
    context: Context,
    steps: int = 5,
    trace: Path | None = None,
    gflops: float | None = None,
    start: Start | None = None,
) -> Profile:
    """Train `steps` steps of a model by the clock, and as many under PyTorch's profiler.

    `start`: what an earlier run decided about threads and precision; `gflops`: the machine's rate of products;
    `trace`: where to write the profiler's trace (JSON of Chrome's trace format).
    """
    if trace is not None and not trace.parent.is_dir():
        raise WuxingError(f"the directory {trace.parent} is not there", f"Make it: mkdir -p {trace.parent}")
    config = config.model_copy(update={"budget": Budget(steps=WARM_STEPS + 2 * steps)})
    with tempfile.TemporaryDirectory(prefix="wuxing-profile-") as room:
        draft = Draft(Path(room), "model", name, "", seed)
        setting = Setting(config, parents, draft, context, pick_device(context.device), time.monotonic())
        with threads_set(start.threads if start else torch.get_num_threads()):
            torch.manual_seed(seed)
            watch = Watch()
            start = start or decide(setting, torch.get_num_threads())
            trainer = begin(setting, start, watch).trainer
            for _ in range(WARM_STEPS):
                trainer.step()
            with timed(trainer) as spent:
                reports = [trainer.step() for _ in range(steps)]
            watch.now()
            operations = _operations(trainer, steps, trace)
    seconds = statistics.median(report.seconds for report in reports)
    tokens = statistics.fmean(report.positions for report in reports)
    rate = tokens * start.position_flops / seconds / 1e9
    parts = {part: 1000 * spent.get(part, 0.0) / steps for part in PARTS[:-1]}
    whole = 1000 * statistics.fmean(report.seconds for report in reports)
    parts["rest"] = max(0.0, whole - sum(parts.values()))
    kinds: dict[str, float] = {}
    for operation in operations:
        kinds[operation.kind] = kinds.get(operation.kind, 0.0) + operation.milliseconds
    return Profile(
        model=name,
        device=start.device,
        precision=start.precision,
        threads=start.threads,
        compiled=start.compiled,
        steps=steps,
        step_milliseconds=1000 * seconds,
        tokens_per_second=tokens / seconds,
        gflops=rate,
        reached=rate / gflops if gflops else None,
        peak_bytes=watch.peak(),
        parts=parts,
        kinds=dict(sorted(kinds.items(), key=lambda item: -item[1])),
        operations=operations,
    )


class _Source:
    """A source whose batches are waited for by the clock."""

    def __init__(self, source: Any, clock: Callable[[str], Any]):
        self._source, self._clock = source, clock

    def __next__(self) -> Any:
        with self._clock("data"):
            return next(self._source)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)


@contextmanager
def timed(trainer: Trainer) -> Iterator[dict[str, float]]:
    """Within: seconds of each part of the trainer's steps, added up; a GPU is waited for at each border."""
    spent: dict[str, float] = {}
    gpu = trainer.network.device.type == "cuda"

    @contextmanager
    def clock(part: str) -> Iterator[None]:
        begun = _now(gpu)
        yield
        spent[part] = spent.get(part, 0.0) + _now(gpu) - begun

    def around(part: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def inner(*given: Any, **named: Any) -> Any:
            with clock(part):
                return call(*given, **named)

        return inner

    source, objective, network = trainer.source, trainer.objective, trainer.network
    hooks = _hooks(network.model, spent, gpu)
    trainer.source = _Source(source, clock)
    trainer.objective = _Objective(objective, around("objective", objective.__call__))  # type: ignore[assignment]
    setattr(trainer, "gradients", around("gradients", trainer.gradients))  # noqa: B010
    setattr(trainer.optimizer, "step", around("optimizer", trainer.optimizer.step))  # noqa: B010
    try:
        yield spent
    finally:
        trainer.source, trainer.objective = source, objective
        for owner, name in ((trainer, "gradients"), (trainer.optimizer, "step")):
            delattr(owner, name)
        for hook in hooks:
            hook.remove()
    forward, whole = spent.pop("objective", 0.0), spent.pop("gradients", 0.0)
    spent["loss"] = max(0.0, forward - spent.get("blocks", 0.0))
    spent["backward"] = max(0.0, whole - forward)


class _Objective:
    """An objective that is called by the clock."""

    def __init__(self, objective: Any, call: Callable[..., Any]):
        self._objective, self._call = objective, call

    def __call__(self, *given: Any) -> Any:
        return self._call(*given)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._objective, name)


def _hooks(body: torch.nn.Module, spent: dict[str, float], gpu: bool) -> list[Any]:
    """Clock the blocks of a network from outside, so that a compiled body stays compiled."""
    begun: list[float] = []

    def before(*_: Any) -> None:
        begun.append(_now(gpu))

    def after(*_: Any) -> None:
        spent["blocks"] = spent.get("blocks", 0.0) + _now(gpu) - begun.pop()

    return [body.register_forward_pre_hook(before), body.register_forward_hook(after)]


def _now(gpu: bool) -> float:
    if gpu:
        torch.cuda.synchronize()
    return time.perf_counter()


def _operations(trainer: Trainer, steps: int, trace: Path | None) -> list[Operation]:
    """What the profiler saw, the longest first."""
    gpu = trainer.network.device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if gpu else [])]
    with profile(activities=activities, record_shapes=True) as profiler:
        for _ in range(steps):
            trainer.step()
    if trace is not None:
        profiler.export_chrome_trace(str(trace))
    found: dict[str, tuple[float, float, float, str]] = {}
    for event in profiler.key_averages(group_by_input_shape=True):
        on_device = event.device_type == DeviceType.CUDA
        if gpu != on_device:
            continue
        spent = event.self_device_time_total if gpu else event.self_cpu_time_total
        calls, total, most, shapes = found.get(event.key, (0.0, 0.0, -1.0, ""))
        if spent > most:
            most, shapes = spent, _shapes(event.input_shapes)
        found[event.key] = (calls + event.count, total + spent, most, shapes)
    rows = [
        Operation(name, kind_of(name), calls / steps, total / 1000 / steps, shapes)
        for name, (calls, total, _, shapes) in found.items()
        if total
    ]
    return sorted(rows, key=lambda row: -row.milliseconds)


def _shapes(shapes: Any) -> str:
    return " · ".join("×".join(map(str, shape)) for shape in shapes or () if isinstance(shape, list) and shape)


def kind_of(name: str) -> str:
    """The kind of an operation by the profiler's name for it."""
    return next((kind for kind, patterns in KINDS.items() if any(fnmatch(name, p) for p in patterns)), _OTHER)


_OTHER = "element by element"
