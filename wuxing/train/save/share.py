"""Checkpoints to which every process writes its own share, and which any number of processes can read.

The files are those of torch.distributed.checkpoint in its safetensors layout (the offsets of each part stand in the
file's header; there is no pickle), so its planners find what a process needs, whatever the number of shares was, and
its `HuggingFaceStorageReader` reads them without Wuxing.  Writing is ours: one pass with a digest, in a thread, and the
directory gets its name from the lead once every process has said that its share is on the disk.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import threading
import warnings
import zlib
from collections.abc import Callable, Collection, Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.checkpoint.metadata import Metadata, TensorStorageMetadata
from torch.distributed.tensor import DTensor

from wuxing.compute import team
from wuxing.core.digest import digest_of_file
from wuxing.core.error import WuxingError
from wuxing.core.file import read_json
from wuxing.model.files import save_config
from wuxing.model.network import Network
from wuxing.train.save.checkpoint import TRIES, Checkpoint, Checkpoints, damage, forget_cached, sign
from wuxing.train.save.snapshot import Groups, stream_tensors, write_tensors
from wuxing.train.shard.cut import Shards
from wuxing.train.update.optimizer import PATH_MEAN

WHOLE_KEYS = ("step", "weight", "col_var")
"""State of a matrix that is not cut: counters, and Adafactor's means of columns."""
AVERAGE = "average|"
_OFFSETS = "DCP_SHARDING_INFO"


class Reader(dcp.HuggingFaceStorageReader):
    """Reads the headers of all files once, though many tensors are asked for one by one."""

    def __init__(self, path: Path):
        super().__init__(str(path))
        self._known: Metadata | None = None

    def read_metadata(self) -> Metadata:
        if self._known is None:
            self._known = super().read_metadata()
        return self._known

    @property
    def described(self) -> dict[str, tuple[torch.dtype, torch.Size]]:
        """Type and whole shape of every tensor."""
        found = self.read_metadata().state_dict_metadata
        return {
            name: (said.properties.dtype, said.size)
            for name, said in found.items()
            if isinstance(said, TensorStorageMetadata)
        }

    def fill(self, targets: Mapping[str, Tensor]) -> None:
        """Read into these: whole tensors, or the parts here of cut ones."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "torch.distributed is disabled")  # each process reads for itself
            dcp.load(dict(targets), storage_reader=self, no_dist=True)

    def whole(self, name: str) -> Tensor:
        """One whole tensor."""
        dtype, shape = self.described[name]
        target = torch.empty(shape, dtype=dtype)
        self.fill({name: target})
        return target


def is_shared(path: Path) -> bool:
    """Whether a checkpoint directory holds shares."""
    return any(path.glob("model-*-of-*.safetensors"))


def read_whole(path: Path) -> dict[str, dict[str, Tensor]]:
    """Everything, put together: for one process that goes on where several were."""
    reader = Reader(path)
    targets = {name: torch.empty(shape, dtype=dtype) for name, (dtype, shape) in reader.described.items()}
    reader.fill(targets)
    return _grouped(reader, targets)


def read_share(path: Path, shards: Shards) -> dict[str, dict[str, Tensor]]:
    """This process's rows of everything, whoever wrote it, on the CPU."""
    reader = Reader(path)
    mine: dict[str, Tensor] = {}
    targets: dict[str, Tensor] = {}
    for name, (dtype, shape) in reader.described.items():
        if not _is_cut(name, shards):
            mine[name] = targets[name] = torch.empty(shape, dtype=dtype)
            continue
        first, last = shards.rows(shape[0])
        mine[name] = torch.empty((last - first, *shape[1:]), dtype=dtype)
        if mine[name].numel():
            stride = torch.empty(shape, device="meta").stride()
            targets[name] = DTensor.from_local(
                mine[name], shards.reading_mesh, shards.placements, run_check=False, shape=shape, stride=stride
            )
    reader.fill(targets)
    return _grouped(reader, mine)


def save_judged(path: Path, network: Network, directory: Path) -> None:
    """Write the model of a checkpoint's shares as `save_network` would, with one tensor in memory at a time."""
    reader = Reader(path)
    described = reader.described
    names = judged_names(described, [name for name, _ in network.named_parameters()])
    file = directory / "model.safetensors"
    partial = file.with_suffix(".partial")
    whole = {name: (network.dtype, described[source][1]) for name, source in names.items()}
    stream_tensors(partial, whole, lambda name: reader.whole(names[name]).to(network.dtype), {"format": "pt"})
    os.replace(partial, file)
    save_config(network.config, directory, network.dtype)


def judged_names(names: Collection[str], weights: Iterable[str]) -> dict[str, str]:
    """Where a checkpoint keeps the weights that are measured: averaged ones, where there are some."""
    held = set(names)
    found = {}
    for name in weights:
        candidates = (f"{AVERAGE}{name}", f"{name}{PATH_MEAN}", name)
        found[name] = next(candidate for candidate in candidates if candidate in held)
    return found


def _grouped(reader: Reader, tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """By file: `model` and `optimizer`."""
    groups: dict[str, dict[str, Tensor]] = {"model": {}, "optimizer": {}}
    for index, said in (reader.read_metadata().storage_data or {}).items():
        file = Path(said.relative_path).stem.partition("-")[0]
        groups[file][index.fqn] = tensors[index.fqn]
    return groups


def _is_cut(name: str, shards: Shards) -> bool:
    """Whether a tensor of a checkpoint is in rows on the processes."""
    base, _, key = name.removeprefix(AVERAGE).partition("|")
    return base in shards.matrices and key not in WHOLE_KEYS


@dataclass
class SharedCheckpoints(Checkpoints):
    """The checkpoints of a run whose state is cut over processes.

    All processes call `save`, `check`, `wait`, `latest`, `load` and `forget_after` at the same places.
    """

    shards: Shards | None = None
    everyone: ClassVar[bool] = True
    _pending: tuple[int, dict[str, Any], bool] | None = None
    _digests: dict[str, str] = field(default_factory=dict)

    def prepare(self, tensors: Groups) -> None:
        self._snapshot.prepare(self._mine(tensors)[0])

    @property
    def busy(self) -> bool:
        return self._pending is not None

    def check(self) -> None:
        """Publish the last `save` when every process has written its share; all of them learn at the same step."""
        if self._pending is not None and not team.any_of([super().busy])[0]:
            self.wait()

    def save(self, step: int, tensors: Groups, state: Mapping[str, Any], best: bool = False, must: bool = True) -> None:
        self.wait()
        draft = self._draft(step)
        if team.rank() == 0:
            shutil.rmtree(draft, ignore_errors=True)
            draft.mkdir(parents=True)
        team.any_of([False])  # nobody writes before the draft is there
        mine, offsets = self._mine(tensors)
        copied = self._snapshot.take(mine)
        self._must = must
        self._pending = (step, deepcopy(dict(state)), best)  # what is in it grows until it is signed
        self._digests = {}
        self._thread = threading.Thread(target=self._write_share, args=(draft, copied, offsets), name="checkpoint")
        self._thread.start()
        if not self.asynchronous:
            self.wait()

    def wait(self) -> None:
        if self._pending is None:
            return
        step, state, best = self._pending
        self.settle()
        self._thread = None
        self._pending = None
        error, self._error = self._error, None
        wrong = "" if error is None else str(getattr(error, "strerror", None) or error)
        said = team.of_everyone({"digests": self._digests, "wrong": wrong})
        failed = [rank for rank, share in enumerate(said) if share["wrong"]]
        self._failures = self._failures + 1 if failed else 0
        if failed:
            self._give_up(step, f"rank {failed[0]} could not write its share: {said[failed[0]]['wrong']}", error)
            return
        if team.rank() == 0:
            digests = {name: digest for share in said for name, digest in share["digests"].items()}
            sign(self._draft(step), digests, state)
            self._publish(self._draft(step), step, best)
        self._best = step if best else self._best
        team.any_of([False])  # it has its name before anyone looks for it

    def _give_up(self, step: int, wrong: str, error: Exception | None) -> None:
        if team.rank() == 0:
            shutil.rmtree(self._draft(step), ignore_errors=True)  # a full disk has room for the log again
        if self._must or self._failures >= TRIES:
            raise WuxingError(
                f"the checkpoint of step {step} could not be written: {wrong}",
                "Make room there and type the same command again: it goes on from the save before",
            ) from error
        self.say(f"the checkpoint of step {step} could not be written ({wrong}): the last whole one stays")

    def latest(self, say: Callable[[str], None]) -> Checkpoint | None:
        """On every process; the tensors are left to `read_share`."""
        leads = team.rank() == 0
        if leads and self.directory.is_dir():
            self._sweep()
        names = team.from_lead(lambda: [path.name for path in sorted(self._paths(), reverse=True)])
        for name in names:
            path = self.directory / name
            wrong = self._damage(path)
            if not wrong:
                return self._found(path)
            say(f"checkpoint {name} is damaged ({wrong}): going on from the one before it")
            if leads:
                self._remove(path)
        return None

    def load(self, step: int) -> Checkpoint:
        self.wait()
        path = self.path(step)
        if wrong := self._damage(path):
            raise WuxingError(f"checkpoint {path.name} is damaged ({wrong})", "Remove it and run again")
        return self._found(path)

    def forget_after(self, step: int) -> None:
        self.wait()
        if team.rank() == 0:
            super().forget_after(step)

    def taken_up(self, checkpoint: Checkpoint | None, step: int) -> dict[str, dict[str, Tensor]]:
        """This process's rows, whoever wrote them."""
        assert self.shards is not None
        return read_share(self.path(step), self.shards)

    def _found(self, path: Path) -> Checkpoint:
        state = read_json(path / "state.json")
        self._best = state.get("best_step")
        return Checkpoint(int(state["done"]), {}, state)

    def _damage(self, path: Path) -> str:
        """Each process reads some of the files."""
        said = team.of_everyone(damage(path, team.rank(), team.ranks()))
        return next((wrong for wrong in said if wrong), "")

    def _draft(self, step: int) -> Path:
        return self.directory / f".draft-{step:08d}"

    def _mine(self, tensors: Groups) -> tuple[dict[str, dict[str, Tensor]], dict[str, list[int]]]:
        """What this process writes, by file, and where cut tensors begin.  Groups that repeat one another share."""
        assert self.shards is not None
        shards, groups, offsets = self.shards, {}, {}
        for file, group in tensors.items():
            groups[file] = kept = dict[str, Tensor]()
            for name, tensor in group.items():
                if not _is_cut(name, shards):
                    if team.rank() == 0:
                        kept[name], offsets[name] = tensor, [0] * tensor.ndim
                elif zlib.crc32(name.encode()) % shards.topology.replicas == shards.replica and tensor.numel():
                    first, _ = shards.rows(shards.shape(name.removeprefix(AVERAGE).partition("|")[0])[0])
                    kept[name], offsets[name] = tensor, [first] + [0] * (tensor.ndim - 1)
        return groups, offsets

    def _write_share(self, draft: Path, groups: dict[str, dict[str, Tensor]], offsets: dict[str, list[int]]) -> None:
        try:
            for file, group in groups.items():
                if not group:
                    continue
                place = {name: {"saved_offsets": offsets[name]} for name in sorted(group)}  # however it was loaded
                metadata = {"format": "pt", "DCP_VERSION": "1.0", _OFFSETS: json.dumps(place)}
                name = f"{file}-{team.rank() + 1:05d}-of-{team.ranks():05d}.safetensors"
                self._digests[name] = write_tensors(draft / name, group, metadata)
                forget_cached(draft / name)
                if digest_of_file(draft / name) != self._digests[name]:
                    raise OSError(errno.EIO, f"{name} reads differently from the disk")
        except Exception as error:  # told to all processes by `wait`
            self._error = error
