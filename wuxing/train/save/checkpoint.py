"""Checkpoints: written beside the training, whole or not at all, and checked before they are believed.

`checkpoints/step-00000120/` holds `model.safetensors`, `optimizer.safetensors`, `state.json`, and `digest.json` with
the SHA-256 of the three, written last.  The directory has its name only once all of it is on the disk and has been read
back from there.
"""

from __future__ import annotations

import errno
import os
import shutil
import threading
from collections.abc import Callable, Collection, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from safetensors.torch import load_file
from torch import Tensor

from wuxing.compute import team
from wuxing.core.digest import digest_of_file
from wuxing.core.error import WuxingError
from wuxing.core.file import read_json, sync, write_json
from wuxing.train.save.snapshot import Groups, Snapshot, write_tensors

DIGEST = "digest.json"
TRIES = 3
"""Saves in a row that may fail before the run stops, where none of them must be found again."""


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
    say: Callable[[str], None] = lambda line: None
    """Hears of a save that failed and will be tried again."""
    _must: bool = True
    _failures: int = 0
    _thread: threading.Thread | None = None
    _error: Exception | None = None
    _best: int | None = field(default=None)
    _snapshot: Snapshot = field(default_factory=Snapshot)

    everyone: ClassVar[bool] = False
    """Whether every process saves and reads a share, not the lead alone."""

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

    def save(self, step: int, tensors: Groups, state: Mapping[str, Any], best: bool = False, must: bool = True) -> None:
        """Begin to write a checkpoint; waits for the one before.  Raises what went wrong with that one.

        `must`: it will be needed, so a failure is an error.  Of the others `TRIES` in a row may fail.
        """
        self.wait()
        copied = self._snapshot.take(tensors)
        self._must = must
        moment = deepcopy(dict(state))  # what is in it grows while it is being written
        self._thread = threading.Thread(target=self._write, args=(step, copied, moment, best), name="checkpoint")
        self._thread.start()
        if not self.asynchronous:
            self.wait()

    def wait(self) -> None:
        """Until the last `save` is on the disk.  Raises what went wrong with it."""
        if self._thread is None:
            return
        self._thread.join()
        self._thread = None
        error, self._error = self._error, None
        self._failures = self._failures + 1 if error else 0
        if isinstance(error, OSError) and not self._must and self._failures < TRIES:
            self.say(
                f"a checkpoint could not be written ({error.strerror}): the last whole one stays, training goes on"
            )
        elif error is not None:
            raise error

    def settle(self) -> None:
        """Until nothing is being written, whatever came of it: who goes on from here must not meet a writer."""
        if self._thread is not None:
            self._thread.join()

    def release(self) -> None:
        """Give back the memory of the copies, once nothing is being written: the next `save` takes it anew."""
        self.wait()
        self._snapshot = Snapshot()

    def latest(self, say: Callable[[str], None]) -> Checkpoint | None:
        """The newest whole checkpoint.  Damaged ones are named to `say` and put away; half-written ones never count."""
        if not self.directory.is_dir():
            return None
        self._sweep()
        paths = self._paths()
        while paths:
            path = paths.pop()
            wrong = damage(path)
            if not wrong:
                checkpoint = _load(path)
                self._best = checkpoint.state.get("best_step")
                return checkpoint
            say(f"checkpoint {path.name} is damaged ({wrong}): {_after(len(paths))}")
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
            if step_of(path) > step:
                self._remove(path)

    def remove_all(self, but: Collection[int] = ()) -> None:
        """Take every checkpoint away, when the run no longer needs them; those of the steps in `but` stay."""
        self.wait()
        self._sweep()
        for path in self._paths():
            if step_of(path) not in but:
                self._remove(path)
        if not but:
            shutil.rmtree(self.directory, ignore_errors=True)

    def taken_up(self, checkpoint: Checkpoint | None, step: int) -> dict[str, dict[str, Tensor]]:
        """The tensors of the lead's checkpoint of a step, on every process."""
        groups = checkpoint.tensors if checkpoint else {"model": {}, "optimizer": {}}
        return {name: team.tensors_from_lead(groups[name]) for name in ("model", "optimizer")}

    def path(self, step: int) -> Path:
        """Where the checkpoint of a step is, or would be."""
        return self.directory / f"step-{step:08d}"

    def _paths(self) -> list[Path]:
        return sorted((path for path in self.directory.glob("step-*") if step_of(path) >= 0), key=step_of)

    def _write(
        self, step: int, tensors: dict[str, dict[str, Tensor]], state: dict[str, Any], best: bool = False
    ) -> None:
        draft = self.directory / f".draft-{step:08d}"
        try:
            shutil.rmtree(draft, ignore_errors=True)
            draft.mkdir(parents=True)
            digests = {}
            for file, group in tensors.items():
                digests[f"{file}.safetensors"] = write_tensors(draft / f"{file}.safetensors", group)
            sign(draft, digests, state)
            if wrong := damage(draft):
                raise OSError(errno.EIO, f"read back from the disk, {wrong}", str(draft))
            self._publish(draft, step, best)
        except Exception as error:  # handed to the training thread by `wait`
            shutil.rmtree(draft, ignore_errors=True)  # a full disk has room for the log again
            self._error = error

    def _publish(self, draft: Path, step: int, best: bool) -> None:
        self._put(draft, self.path(step))
        self._best = step if best else self._best
        self._prune()

    def _put(self, draft: Path, final: Path) -> None:
        """Give a checkpoint its name.  One of the same step stays whole until then, and `_sweep` finds it again."""
        old = final.with_name(f".old-{final.name}")
        if final.exists():
            os.replace(final, old)
        os.replace(draft, final)
        sync(self.directory)
        shutil.rmtree(old, ignore_errors=True)

    def _prune(self) -> None:
        paths = self._paths()
        for path in paths[: -self.keep]:
            if step_of(path) not in (*self.held, self._best):
                self._remove(path)

    def _remove(self, path: Path) -> None:
        """Under another name first: a kill while deleting must not leave something that looks like a checkpoint."""
        gone = path.with_name(f".gone-{path.name}")
        shutil.rmtree(gone, ignore_errors=True)
        os.replace(path, gone)
        shutil.rmtree(gone)

    def _sweep(self) -> None:
        for old in self.directory.glob(".old-*"):
            final = old.with_name(old.name.removeprefix(".old-"))
            if final.exists():
                shutil.rmtree(old)
            else:
                os.replace(old, final)
        for path in [*self.directory.glob(".draft-*"), *self.directory.glob(".gone-*")]:
            shutil.rmtree(path)


def sign(draft: Path, digests: dict[str, str], state: Mapping[str, Any]) -> None:
    """Beside the tensors, the state, and the digests of all of it."""
    write_json(draft / "state.json", state)
    digests["state.json"] = digest_of_file(draft / "state.json")
    write_json(draft / DIGEST, dict(sorted(digests.items())))


def step_of(path: Path) -> int:
    """The step of a checkpoint directory; -1 for what somebody else put beside them."""
    number = path.name.removeprefix("step-")
    return int(number) if len(number) >= 8 and number.isdecimal() else -1


def _after(left: int) -> str:
    return "going on from the one before it" if left else "none is left, training begins anew"


def damage(path: Path, part: int = 0, parts: int = 1) -> str:
    """What is wrong with a checkpoint directory; empty when every file, read from the disk, has its digest.

    Of several processes that look at it together each reads the files of its `part`.
    """
    if not path.is_dir() or not any(path.iterdir()):
        return "it is empty" if path.is_dir() else "it is missing"
    try:
        return _damage(path, part, parts)
    except OSError as error:
        return f"{Path(error.filename or path).name} cannot be read: {error.strerror}"


def _damage(path: Path, part: int, parts: int) -> str:
    if not (path / DIGEST).is_file():
        return f"{DIGEST} is missing"
    try:
        digests = read_json(path / DIGEST)
    except ValueError:
        return f"{DIGEST} is not JSON"
    named = digests if isinstance(digests, dict) else {}
    if "state.json" not in named or not any(name.startswith("model") for name in named):
        return f"{DIGEST} does not name the files of a checkpoint"
    for name in digests:
        if not (path / name).is_file():
            return f"{name} is missing"
    for name in sorted(digests)[part::parts]:
        forget_cached(path / name)
        if digest_of_file(path / name) != digests[name]:
            return f"{name} was changed after it was written"
    return ""


def forget_cached(path: Path) -> None:
    """Let the next reader ask the disk, not the memory of the last writer."""
    if hasattr(os, "posix_fadvise"):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(handle)


def _load(path: Path) -> Checkpoint:
    from wuxing.train.save.share import is_shared, read_whole  # torch.distributed.checkpoint takes a second to import

    state = read_json(path / "state.json")
    files = sorted(path.glob("*.safetensors"))
    tensors = read_whole(path) if is_shared(path) else {file.stem: load_file(file) for file in files}
    return Checkpoint(int(state["done"]), tensors, state)
