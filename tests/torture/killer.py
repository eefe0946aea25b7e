"""A life in a process of its own that says where it stands, and the ways in which it is ended.

The child is forked from a process that has imported everything and computed nothing.  It leaves marks in shared memory:
what its main thread does, what the writer of checkpoints does, how many events of its files it has seen.  So a kill can
be aimed, and afterwards the table says what was hit.
"""

from __future__ import annotations

import mmap
import os
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any

import numpy as np

LABELS = (
    "setting up",
    "resuming",
    "learning",
    "measuring",
    "copying for a save",
    "rewinding",
    "writing the files",
    "signing",
    "waiting for the writer",
)
SIZE, TEXT = 512, 64
ALONE_SECONDS = 120.0
"""In which a rank must end by itself once the other is gone: one whose lead has never come waits for a minute."""
EVENTS = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "shutil.rmtree", "os.link")


class Marks:
    """The shared memory between a life and whoever kills it."""

    def __init__(self) -> None:
        self.memory = mmap.mmap(-1, SIZE)

    @property
    def label(self) -> str:
        return LABELS[self.memory[0]]

    @property
    def writing(self) -> bool:
        """Whether a checkpoint is being written beside."""
        return bool(self.memory[1])

    @property
    def hit(self) -> str:
        """What it was doing when the kill came: a signal from outside, or its own hand."""
        label, writing = (self.memory[2], self.memory[3]) if not self.text else (self.memory[0], self.memory[1])
        return "writing a checkpoint" if writing else LABELS[label]

    @property
    def began(self) -> float:
        """When training began: `time.monotonic()` at the first look for checkpoints."""
        return float(np.frombuffer(self.memory[24:32], dtype=np.float64)[0])

    @property
    def events(self) -> int:
        return int.from_bytes(self.memory[16:24], "little")

    @property
    def text(self) -> str:
        """What a life that killed itself at an event of its files was about to do."""
        return self.memory[TEXT:].rstrip(b"\0").decode(errors="replace")

    def count(self, place: int) -> int:
        number = int.from_bytes(self.memory[place : place + 8], "little") + 1
        self.memory[place : place + 8] = number.to_bytes(8, "little")
        return number


@dataclass
class Kill:
    """How a life ends: by a signal after `seconds`, or of its own hand at its event number `event` or after `step`."""

    kind: str
    seconds: float = 0.0
    label: str | None = None
    """Count the seconds from the moment in which the life does this, for the `turn`-th time."""
    turn: int = 1
    number: int = signal.SIGKILL
    event: int = 0
    step: int = 0
    """The step of this life, however fast the machine is."""
    whom: str = "all"
    """With two ranks: `all`, `lead` or `other`."""


def labelled(owner: Any, name: str, label: str) -> None:
    """While the function runs, the mark says `label`."""
    work, number = getattr(owner, name), LABELS.index(label)

    @wraps(work)
    def marked(*arguments: Any, **settings: Any) -> Any:
        memory = marks.memory
        before, memory[0] = memory[0], number
        try:
            return work(*arguments, **settings)
        finally:
            memory[0] = before

    setattr(owner, name, marked)


marks = Marks()


def watch_phases(kill: Kill | None) -> None:
    """Put the marks in.  The functions themselves stay as they are."""
    from wuxing.core.store import Store
    from wuxing.train import make
    from wuxing.train.run import Run
    from wuxing.train.save.checkpoint import Checkpoints
    from wuxing.train.save.share import SharedCheckpoints
    from wuxing.train.trainer import Trainer

    for owner, name, label in (
        (Run, "resume", "resuming"),
        (Trainer, "step", "learning"),
        (Run, "measure", "measuring"),
        (Run, "save", "copying for a save"),
        (Run, "_rewind", "rewinding"),
        (Checkpoints, "wait", "waiting for the writer"),
        (SharedCheckpoints, "wait", "waiting for the writer"),
        (make, "_write", "writing the files"),
        (Store, "sign", "signing"),
    ):
        labelled(owner, name, label)
    tell, resume = Run._tell, Run.resume

    @wraps(resume)
    def resuming(self: Any) -> Any:
        marks.memory[24:32] = np.float64(time.monotonic()).tobytes()
        return resume(self)

    def writing(write: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(write)
        def marked(*arguments: Any, **settings: Any) -> Any:
            marks.memory[1] = 1
            try:
                return write(*arguments, **settings)
            finally:
                marks.memory[1] = 0

        return marked

    @wraps(tell)
    def told(self: Any, report: Any, bar: Any) -> None:
        tell(self, report, bar)
        if marks.count(8) == (kill.step if kill else 0):
            assert kill is not None
            os.kill(os.getpid(), kill.number)

    Checkpoints._write = writing(Checkpoints._write)  # type: ignore[method-assign]
    SharedCheckpoints._write_share = writing(SharedCheckpoints._write_share)  # type: ignore[method-assign]
    Run._tell = told  # type: ignore[method-assign]
    Run.resume = resuming  # type: ignore[method-assign]


def watch_files(home: Path, last: int) -> None:
    """Count what happens to files below `home`; with `last`, die before event number `last` happens."""
    root = str(home)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event not in EVENTS or not str(arguments[0]).startswith(root):
            return
        if event == "open" and not (isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)):
            return
        if marks.count(16) == last:
            said = f"{event.removeprefix('os.')} {Path(str(arguments[0])).relative_to(root)}".encode()
            marks.memory[TEXT : TEXT + min(len(said), SIZE - TEXT)] = said[: SIZE - TEXT]
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def live(work: Callable[[int], int], home: Path, kill: Kill | None, ranks: int = 1, log: Path | None = None) -> str:
    """Run `work(rank)` in a process for each rank and end it as `kill` says.

    Returns `done`, `killed`, `stopped` (by a signal, with its state saved) or `lost` (a rank went, the others said so).
    """
    statuses, alone = _lived(work, home, kill, ranks, log)
    if alone and kill is not None:
        kept = statuses[0] if kill.whom == "other" else statuses[1]
        if os.WIFSIGNALED(kept):
            raise SystemExit("a rank did not end by itself after the other was killed")
        return "done" if os.WEXITSTATUS(kept) == 0 else "lost"
    return _meaning(statuses, kill.number if kill else 0)


def exit_code(work: Callable[[int], int], home: Path, kill: Kill | None, log: Path) -> int:
    """The same for one process; its exit code, that of a shell for a signal."""
    (status,), _ = _lived(work, home, kill, 1, log)
    return 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def _lived(
    work: Callable[[int], int], home: Path, kill: Kill | None, ranks: int, log: Path | None
) -> tuple[list[int], bool]:
    """The statuses of all ranks, and whether only some of them were killed."""
    marks.memory[:] = bytes(SIZE)
    before = {name: os.environ.get(name) for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")}
    if ranks > 1:
        place = {"WORLD_SIZE": ranks, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
        os.environ.update({name: str(value) for name, value in place.items()})
    children = [_fork(work, home, kill, rank, log) for rank in range(ranks)]
    for name, value in before.items():
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value
    due = _due(kill)
    while True:
        if due():
            assert kill is not None
            marks.memory[2:4] = marks.memory[0:2]
            chosen = {"all": children, "lead": children[:1], "other": children[1:]}[kill.whom]
            for child in chosen:
                with suppress(ProcessLookupError):
                    os.kill(child, kill.number)
            return [_wait(child, ALONE_SECONDS) for child in children], kill.whom != "all" and ranks > 1
        found, status = os.waitpid(children[0], os.WNOHANG)
        if found:
            return [status, *(_wait(child, ALONE_SECONDS) for child in children[1:])], False
        time.sleep(0.0005)


def _fork(work: Callable[[int], int], home: Path, kill: Kill | None, rank: int, log: Path | None) -> int:
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        if log is not None:
            handle = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
            os.dup2(handle, 1)
            os.dup2(handle, 2)
        os.environ["RANK"] = str(rank)
        if rank == 0:
            watch_phases(kill)
            watch_files(home, kill.event if kill else 0)
        status = work(rank)
    except (Exception, SystemExit, KeyboardInterrupt):
        import traceback

        traceback.print_exc()
        raise
    finally:
        sys.stderr.flush()
        os._exit(status)


def _due(kill: Kill | None) -> Callable[[], bool]:
    if kill is None or kill.event or kill.step:
        return lambda: False
    began: list[float] = [] if kill.label else [time.monotonic()]
    turns, inside = [0], [False]

    def due() -> bool:
        if not began:
            now = marks.writing if kill.label == "writing a checkpoint" else marks.label == kill.label
            turns[0] += now and not inside[0]
            inside[0] = now
            if now and turns[0] >= kill.turn:
                began.append(time.monotonic())
        return bool(began) and time.monotonic() - began[0] >= kill.seconds

    return due


def _meaning(statuses: list[int], number: int) -> str:
    first = statuses[0]
    if os.WIFSIGNALED(first):  # by SIGTERM only before anything has begun that could be saved
        if os.WTERMSIG(first) != number:
            raise SystemExit(f"a life ended by signal {os.WTERMSIG(first)}")
        return "killed"
    code = os.WEXITSTATUS(first)
    if code not in (0, 130):
        raise SystemExit("a life failed by itself: see the log")
    return "stopped" if code else "done"


def _wait(child: int, seconds: float) -> int:
    """The status of a child that should end by itself; one that does not is killed."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return status
        time.sleep(0.001)
    os.kill(child, signal.SIGKILL)
    return os.waitpid(child, 0)[1]


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def scratch() -> Path:
    """A folder for one torture."""
    return Path(tempfile.mkdtemp(prefix="wuxing-torture-"))


def remove(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)
