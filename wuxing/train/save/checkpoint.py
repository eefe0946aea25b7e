"""Checkpoints: written beside the training, whole or not at all, and checked before they are believed.

`checkpoints/step-00000120/` holds `model.safetensors`, `optimizer.safetensors`, `state.json`, and `digest.json` with
the SHA-256 of the three, written last.  The directory has its name only once all of it is on the disk.
"""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from wuxing.core.digest import digest_of_file
from wuxing.core.error import WuxingError
from wuxing.core.file import read_json, sync, write_json
from wuxing.train.save.snapshot import Groups, Snapshot, write_tensors

DIGEST = "digest.json"


@dataclass(frozen=True)
class Checkpoint:
    """A whole, verified checkpoint."""

    step: int
    tensors: dict[str, dict[str, Tensor]]
    state: dict[str, Any]


@dataclass
class Checkpoints:
    """The checkpoints of one run.  `save` copies the tensors and returns; a thread writes the copy, one at a time."""

    directory: Path
    keep: int = 2
    asynchronous: bool = True
    """False: `save` returns once all is on the disk.  The files are the same."""
    held: frozenset[int] = frozenset()
    """Steps whose checkpoints stay, besides the last ones and the best."""
    _thread: threading.Thread | None = None
    _error: BaseException | None = None
    _best: int | None = field(default=None)
    _snapshot: Snapshot = field(default_factory=Snapshot)

    def prepare(self, tensors: Groups) -> None:
        """Get the memory for the first copy while training goes on: these tensors' shapes, whatever they hold."""
        self._snapshot.prepare(tensors)

    @property
    def busy(self) -> bool:
        """Whether the last `save` is still being written: another one would wait for it."""
        return self._thread is not None and self._thread.is_alive()

    def check(self) -> None:
        """Raise what went wrong with the last `save`, if it has come to its end."""
        if not self.busy:
            self.wait()

    def save(self, step: int, tensors: Groups, state: Mapping[str, Any], best: bool = False) -> None:
        """Begin to write a checkpoint; waits for the one before.  Raises what went wrong with that one."""
        self.wait()
        copied = self._snapshot.take(tensors)
        if best:
            self._best = step
        if not self.asynchronous:
            self._write(step, copied, dict(state))
            self.wait()
            return
        self._thread = threading.Thread(target=self._write, args=(step, copied, dict(state)), name="checkpoint")
        self._thread.start()

    def wait(self) -> None:
        """Until the last `save` is on the disk.  Raises what went wrong with it."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def latest(self, say: Callable[[str], None]) -> Checkpoint | None:
        """The newest whole checkpoint.  Damaged ones are named to `say` and put away; half-written ones never count."""
        if not self.directory.is_dir():
            return None
        self._sweep()
        for path in sorted(self._paths(), reverse=True):
            wrong = damage(path)
            if not wrong:
                checkpoint = _load(path)
                self._best = checkpoint.state.get("best_step")
                return checkpoint
            say(f"checkpoint {path.name} is damaged ({wrong}): going on from the one before it")
            self._remove(path)
        return None

    def load(self, step: int) -> Checkpoint:
        """The checkpoint of one step.  Raises WuxingError when it is not there whole."""
        self.wait()
        path = self.directory / f"step-{step:08d}"
        wrong = damage(path)
        if wrong:
            raise WuxingError(f"checkpoint {path.name} is damaged ({wrong})", "Remove it and run again")
        return _load(path)

    def forget_after(self, step: int) -> None:
        """Take away what was saved after a step: the run went back to it."""
        self.wait()
        for path in self._paths():
            if path.name > f"step-{step:08d}":
                self._remove(path)

    def remove_all(self, but: Collection[int] = ()) -> None:
        """Take every checkpoint away, when the run no longer needs them; those of the steps in `but` stay."""
        self.wait()
        if not but:
            shutil.rmtree(self.directory, ignore_errors=True)
            return
        self._sweep()
        for path in self._paths():
            if int(path.name.removeprefix("step-")) not in but:
                self._remove(path)

    def _paths(self) -> list[Path]:
        return sorted(self.directory.glob("step-*"))

    def _write(self, step: int, tensors: dict[str, dict[str, Tensor]], state: dict[str, Any]) -> None:
        try:
            draft = self.directory / f".draft-{step:08d}"
            shutil.rmtree(draft, ignore_errors=True)
            draft.mkdir(parents=True)
            digests = {}
            for file, group in tensors.items():
                digests[f"{file}.safetensors"] = write_tensors(draft / f"{file}.safetensors", group)
            write_json(draft / "state.json", state)
            digests["state.json"] = digest_of_file(draft / "state.json")
            write_json(draft / DIGEST, dict(sorted(digests.items())))
            final = self.directory / f"step-{step:08d}"
            if final.exists():
                self._remove(final)
            os.replace(draft, final)
            sync(self.directory)
            self._prune()
        except BaseException as error:  # handed to the training thread by `wait`
            self._error = error

    def _prune(self) -> None:
        paths = self._paths()
        stay = {f"step-{step:08d}" for step in (*self.held, *(() if self._best is None else (self._best,)))}
        for path in paths[: -self.keep]:
            if path.name not in stay:
                self._remove(path)

    def _remove(self, path: Path) -> None:
        """Under another name first: a kill while deleting must not leave something that looks like a checkpoint."""
        gone = path.with_name(f".gone-{path.name}")
        shutil.rmtree(gone, ignore_errors=True)
        os.replace(path, gone)
        shutil.rmtree(gone)

    def _sweep(self) -> None:
        for path in [*self.directory.glob(".draft-*"), *self.directory.glob(".gone-*")]:
            shutil.rmtree(path)


def damage(path: Path) -> str:
    """What is wrong with a checkpoint directory; empty when every file has its digest."""
    if not (path / DIGEST).is_file():
        return f"{DIGEST} is missing"
    try:
        digests = read_json(path / DIGEST)
    except ValueError:
        return f"{DIGEST} is not JSON"
    for name in ("model.safetensors", "optimizer.safetensors", "state.json"):
        if name not in digests or not (path / name).is_file():
            return f"{name} is missing"
    for name, digest in digests.items():
        if digest_of_file(path / name) != digest:
            return f"{name} was changed after it was written"
    return ""


def _load(path: Path) -> Checkpoint:
    state = read_json(path / "state.json")
    tensors = {file.stem: load_file(file) for file in sorted(path.glob("*.safetensors"))}
    return Checkpoint(int(state["done"]), tensors, state)
