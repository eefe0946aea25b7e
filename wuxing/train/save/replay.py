"""A trained model's run, done again in part: the same samples, losses and weights, or it is not what it says.

What several processes trained is done again by as many, on this host; what they leave is compared by this one.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import torch
from safetensors import safe_open

from wuxing.compute import team
from wuxing.compute.device import pick_device, threads_set
from wuxing.compute.memory import available_memory
from wuxing.compute.place import LocalPlace
from wuxing.compute.team import Team
from wuxing.core.amount import bytes_text
from wuxing.core.artifact import Artifact
from wuxing.core.context import Context
from wuxing.core.error import RefusedError, WuxingError
from wuxing.core.file import read_json, read_lines, write_json
from wuxing.core.step import Draft
from wuxing.model.files import save_network
from wuxing.train.config import ModelConfig
from wuxing.train.fleet import watch_job
from wuxing.train.make import Setting, begin
from wuxing.train.plan.budget import START, Start
from wuxing.train.plan.memory import Watch
from wuxing.train.plan.origin import Passage, made_with, passage, told
from wuxing.train.run import LOG, Run
from wuxing.train.shard.build import topology_of
from wuxing.train.together import hand_out, job_of, marked, own_device
from wuxing.train.watch.adjust import ADJUSTED

REPLAYED = "replayed.json"
MODEL = "model.safetensors"
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
    processes: int = 1
    """How many did it, as many as had trained."""
    until: str = ""
    """Why it ends before as many steps as were asked for; empty when it does not."""

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
    start, found = Start.read(model.path), Replay(model.id, first, first)
    assert start is not None
    passages: list[Passage] = read_json(model.file("training.json"))["passages"]
    until = first + steps
    for one in passages:
        now = one["changed"].get("processes")
        if now and first < one["after"] < until:
            until, found.until = one["after"], f"from there on {now[1]} processes trained, not {now[0]}"
    found.processes = processes_at(start, passages, first)
    _refuse_other_topology(model, start, found.processes, context)
    with tempfile.TemporaryDirectory(prefix="wuxing-replay-") as holder:
        room = Path(holder) / "model"
        room.mkdir()
        _replay(model, parents, found, until, context, room)
        _compare_all(model, found, room, logged)
    return found


def processes_at(start: Start, passages: list[Passage], step: int) -> int:
    """How many processes trained what follows a step."""
    found = start.made_with.get("processes", "1")
    for one in passages:
        if one["after"] <= step and "processes" in one["changed"]:
            found = one["changed"]["processes"][1]
    return int(found)


def _refuse_other_topology(model: Artifact, start: Start, processes: int, context: Context) -> None:
    """Raises RefusedError where as many processes, with the state as it lay, cannot be had here."""
    if processes == 1:
        return
    elsewhere = "Replay it where it was trained, or run its recipe again in another home (--home): wuxing diff compares"
    held = int(start.topology.get("replicas", 1)) * int(start.topology.get("shards", 1))
    if start.topology.get("sharding", "auto") == "auto" and held != processes:
        raise RefusedError(
            f"{model.id} was trained by {processes} processes here and by others later: how the state lay on the first "
            "is no longer known",
            "Replay it from a kept step behind that (--first)",
        )
    device = pick_device(context.device)
    if device.type == "cuda" and torch.cuda.device_count() < processes:
        raise RefusedError(
            f"{model.id} was trained by {processes} processes, each with a GPU, and this host has "
            f"{torch.cuda.device_count()}: sums would have another order",
            elsewhere,
        )
    needed, free = processes * start.planned_bytes, available_memory()
    if device.type == "cpu" and needed > free:
        raise RefusedError(
            f"{model.id} was trained by {processes} processes, which need {bytes_text(needed)} together; this host "
            f"has {bytes_text(free)} free, and fewer would add up in another order",
            elsewhere,
        )


def _replay(
    model: Artifact, parents: Mapping[str, Artifact], found: Replay, until: int, context: Context, room: Path
) -> None:
    """Do it again in `room`."""
    for name in (START, ADJUSTED):
        if (model.path / name).exists():
            shutil.copy(model.path / name, room / name)
    kept = f"step-{found.first:08d}"
    if found.first:
        shutil.copytree(model.path / "checkpoints" / kept, room / "checkpoints" / kept)
    config = recorded_config(model)
    draft = Draft(room, model.kind, model.name, model.fingerprint, int(model.record["slice"]["seed"]))
    if found.processes == 1:
        repeat(config, parents, draft, context, until)
    else:
        with marked(room) as mark:
            job = {**job_of(config, parents, draft, context), "mark": mark, "lost": "", "until": until}
            places = [LocalPlace() for _ in range(found.processes)]
            ending = watch_job(places, json.dumps(job), context)
        if ending.error is not None:
            raise ending.error
        if ending.lost:
            raise WuxingError(f"the replay stopped: {ending.lost}", "Type the same command again")
    said = read_json(room / REPLAYED)
    found.last, found.elsewhere = int(said["done"]), said["elsewhere"]


def repeat(
    config: ModelConfig,
    parents: Mapping[str, Artifact],
    draft: Draft,
    context: Context,
    until: int,
    processes: Team | None = None,
) -> None:
    """Go on with the run in `draft` up to a step, as the only process or one of several; the state then lies there."""
    if processes is not None and processes.rank == 0:
        hand_out(processes, {**job_of(config, parents, draft, context), "until": until})
    with ExitStack() as stack:
        device = pick_device(context.device)
        if processes is not None:
            device = own_device(context.device)
            stack.enter_context(processes.working(device))
        start = Start(**team.from_lead(lambda: read_json(draft.file(START))))
        stack.enter_context(threads_set(start.threads))
        setting = Setting(config, parents, draft, context, device, time.monotonic())
        local = processes.local_ranks if processes is not None else 1
        setting.topology = topology_of(config, setting.plan, device, start.topology, local)
        run = begin(setting, start, Watch())
        torch.manual_seed(setting.seed)
        run.resume()
        elsewhere = passage(start.made_with, run.passages, run.trainer.done, made_with(device))
        try:
            run.finish(until)
            run.save()
        finally:
            run.checkpoints.wait()
        if run.leads:
            _leave(run, setting, told(elsewhere) if elsewhere else "")


def _leave(run: Run, setting: Setting, elsewhere: str) -> None:
    """What came of it, for `_compare_all`; the model too where the run is over."""
    room, done = setting.draft.path, run.trainer.done
    if run.ended and run.kept["step"] == done:
        if setting.topology.shards > 1:
            from wuxing.train.save.share import save_judged

            save_judged(run.checkpoints.path(done), run.trainer.network, room)
        else:
            with run.chosen() as network:
                save_network(network, room)
    write_json(room / REPLAYED, {"done": done, "elsewhere": elsewhere})


def _compare_all(model: Artifact, found: Replay, room: Path, logged: Mapping[int, dict[str, Any]]) -> None:
    again = {line["step"]: line for line in read_lines(room / LOG) if "loss" in line}
    for step in range(found.first + 1, found.last + 1):
        for name in COMPARED:
            one, other = logged.get(step, {}).get(name), again[step][name]
            if one != other:
                found.differences.append(f"step {step}: {name} was {one}, is {other}")
    found.differences += _measured_otherwise(model.path / LOG, room / LOG, found)
    at_last = Path("checkpoints") / f"step-{found.last:08d}"
    if (model.path / at_last).is_dir():
        _compare(found, _tensors(model.path / at_last), _tensors(room / at_last))
    if (room / MODEL).exists() and found.last == read_json(model.file("training.json"))["steps"]:
        _compare(found, _tensors(model.path, MODEL), _tensors(room, MODEL))


def _measured_otherwise(log: Path, again: Path, found: Replay) -> list[str]:
    """Measurements on held-out data, of the steps that were repeated."""
    before, now = (
        {line["step"]: line["validation"] for line in read_lines(path) if "validation" in line} for path in (log, again)
    )
    steps = [step for step in now if found.first < step <= found.last]
    return [
        f"step {step}: held-out {before.get(step)}, is {now[step]}" for step in steps if before.get(step) != now[step]
    ]


Tensors = dict[str, Callable[[], torch.Tensor]]


def _tensors(path: Path, pattern: str = "*.safetensors") -> Tensors:
    """How to read each tensor that lies there, put together where processes wrote shares: one at a time in memory."""
    from wuxing.train.save.share import Reader, is_shared  # torch.distributed.checkpoint takes a second to import

    if is_shared(path):
        reader = Reader(path)
        return {name: _of(reader.whole, name) for name in reader.described}
    found: Tensors = {}
    for file in sorted(path.glob(pattern)):
        opened = safe_open(file, "pt")
        found |= {name: _of(opened.get_tensor, name) for name in opened.keys()}  # noqa: SIM118
    return found


def _of(read: Callable[[str], torch.Tensor], name: str) -> Callable[[], torch.Tensor]:
    return lambda: read(name)


def _compare(found: Replay, before: Tensors, now: Tensors) -> None:
    """Every bit of these tensors, against those of the repetition."""
    found.weights = True
    names = sorted(before.keys() | now.keys())
    found.differences += [
        f"step {found.last}: {name} differs"
        for name in names
        if name not in before or name not in now or not torch.equal(before[name](), now[name]())
    ]


def recorded_config(model: Artifact) -> ModelConfig:
    """What the recipe of a trained model said."""
    return ModelConfig.model_validate(_without_none(model.record["config"]))


def _without_none(value: Any) -> Any:
    """A config as its recipe wrote it: what was not chosen is not there."""
    if isinstance(value, dict):
        return {key: _without_none(item) for key, item in value.items() if item is not None}
    return [_without_none(item) for item in value] if isinstance(value, list) else value
