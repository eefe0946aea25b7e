"""A trained model's run, done again in part: the same samples, losses and weights, or it is not what it says."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import torch
from safetensors.torch import load_file

from wuxing.compute.device import pick_device
from wuxing.core.artifact import Artifact
from wuxing.core.context import Context
from wuxing.core.error import WuxingError
from wuxing.core.file import read_json, read_lines
from wuxing.core.step import Draft
from wuxing.train.config import ModelConfig
from wuxing.train.make import Setting, begin, threads_set
from wuxing.train.plan.budget import START, Start
from wuxing.train.plan.memory import Watch
from wuxing.train.plan.origin import Passage, made_with, passage, told
from wuxing.train.run import LOG
from wuxing.train.save.checkpoint import Checkpoints
from wuxing.train.watch.adjust import ADJUSTED

COMPARED = ("loss", "gradient_norm", "learning_rate", "tokens", "taught")


@dataclass
class Replay:
    """What came of it."""

    model: str
    first: int
    """The step after which it began: 0, or that of a checkpoint which the artifact keeps."""
    last: int
    differences: list[str] = field(default_factory=list)
    """Where the repetition says something else than the log; empty when every bit is the same."""
    weights: bool = False
    """Whether weights were compared too: a checkpoint of the last step, or the model itself, was there."""
    elsewhere: str = ""
    """What is not as it was when the run began: differences may come from that."""

    def to_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {**vars(self), "same": not self.differences}


def replay(
    model: Artifact, parents: Mapping[str, Artifact], steps: int, context: Context, first: int | None = None
) -> Replay:
    """Do `steps` steps again, from the start or a kept checkpoint (chosen at random unless `first` says it).

    Raises WuxingError when the artifact has no log or the checkpoint is not there.
    """
    if not (model.path / START).exists() or not (model.path / LOG).exists():
        raise WuxingError(
            f"{model.id} keeps no log of its training", "Only models that were trained here can be replayed"
        )
    kept = sorted(int(path.name.removeprefix("step-")) for path in (model.path / "checkpoints").glob("step-*"))
    logged = {line["step"]: line for line in read_lines(model.path / LOG) if "loss" in line}
    if first is None:
        first = Random(time.time_ns()).choice([0, *(step for step in kept if step < max(logged, default=0))])
    if first and first not in kept:
        known = ", ".join(map(str, [0, *kept]))
        raise WuxingError(f"{model.id} keeps no checkpoint of step {first}", f"It can be replayed from {known}")
    start = Start.read(model.path)
    processes = start.made_with.get("processes", "1") if start else "1"
    if processes != "1":
        raise WuxingError(
            f"{model.id} was trained by {processes} processes, and a replay is made by one: the order of sums differs",
            "Run its recipe again in another home (--home) with as many processes, and compare: wuxing diff",
        )
    with tempfile.TemporaryDirectory(prefix="wuxing-replay-") as room:
        return _replay(model, parents, Replay(model.id, first, first), steps, context, Path(room), logged)


def _replay(
    model: Artifact,
    parents: Mapping[str, Artifact],
    found: Replay,
    steps: int,
    context: Context,
    room: Path,
    logged: Mapping[int, dict[str, Any]],
) -> Replay:
    for name in (START, ADJUSTED):
        if (model.path / name).exists():
            shutil.copy(model.path / name, room / name)
    kept = f"step-{found.first:08d}"
    if found.first:
        shutil.copytree(model.path / "checkpoints" / kept, room / "checkpoints" / kept)
    config = recorded_config(model)
    draft = Draft(room, model.kind, model.name, model.fingerprint, int(model.record["slice"]["seed"]))
    start = Start.read(room)
    assert start is not None
    setting = Setting(config, parents, draft, context, pick_device(context.device), time.monotonic())
    changed = passage(start.made_with, _passages(room, found.first), found.first, made_with(setting.device))
    found.elsewhere = told(changed) if changed else ""
    with threads_set(start.threads):
        run = begin(setting, start, Watch())
        torch.manual_seed(draft.seed)
        run.resume()
        run.finish(until=found.first + steps)
    found.last = run.trainer.done
    again = {line["step"]: line for line in read_lines(room / LOG) if "loss" in line}
    for step in range(found.first + 1, found.last + 1):
        for name in COMPARED:
            one, other = logged.get(step, {}).get(name), again[step][name]
            if one != other:
                found.differences.append(f"step {step}: {name} was {one}, is {other}")
    found.differences += _measured_otherwise(model.path / LOG, room / LOG, found)
    at_last = model.path / "checkpoints" / f"step-{found.last:08d}"
    if at_last.is_dir():
        before, now = Checkpoints(model.path / "checkpoints").load(found.last).tensors, run.trainer.tensors()
        for group, tensors in before.items():
            _compare(found, tensors, now[group])
    if found.last == read_json(model.file("training.json"))["steps"] and run.kept["step"] == found.last:
        with run.chosen() as network:
            _compare(found, load_file(model.path / "model.safetensors"), dict(network.named_parameters()))
    return found


def _passages(room: Path, first: int) -> list[Passage]:
    """Those behind the checkpoint that the replay begins with."""
    path = room / "checkpoints" / f"step-{first:08d}" / "state.json"
    return list(read_json(path)["passages"]) if first else []


def _measured_otherwise(log: Path, again: Path, found: Replay) -> list[str]:
    """Measurements on held-out data, of the steps that were repeated."""
    before, now = (
        {line["step"]: line["validation"] for line in read_lines(path) if "validation" in line} for path in (log, again)
    )
    steps = [step for step in now if found.first < step <= found.last]
    return [
        f"step {step}: held-out {before.get(step)}, is {now[step]}" for step in steps if before.get(step) != now[step]
    ]


def _compare(found: Replay, before: Mapping[str, torch.Tensor], now: Mapping[str, torch.Tensor]) -> None:
    """Every bit of these tensors, against those of the repetition."""
    found.weights = True
    found.differences += [
        f"step {found.last}: {name} differs"
        for name, value in before.items()
        if not torch.equal(value, now[name].detach().cpu())
    ]


def recorded_config(model: Artifact) -> ModelConfig:
    """What the recipe of a trained model said."""
    return ModelConfig.model_validate(_without_none(model.record["config"]))


def _without_none(value: Any) -> Any:
    """A config as its recipe wrote it: what was not chosen is not there."""
    if isinstance(value, dict):
        return {key: _without_none(item) for key, item in value.items() if item is not None}
    return [_without_none(item) for item in value] if isinstance(value, list) else value
