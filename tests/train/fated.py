"""A process of several that stops at a chosen step, so that whoever hurts it is never too late or too early.

`python -m fated` is the lead or a follower of a fleet, as RANK says; with `synchronous`, every save is on the disk
before the next step.  What is to happen lies beside the model: `write(directory, rank, step, how)`.  `kill`: the
process ends itself by SIGKILL.  `hold`: it waits to be hurt, or to be `release`d.  `hasten 6`: from now on it waits six
seconds for other processes.  All wait for the first checkpoint, for a run that begins anew must have one to go on from.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

WAIT_SECONDS = 180.0


def write(directory: Path, rank: int, step: int, how: str) -> None:
    """After this step this happens, once."""
    directory.mkdir(parents=True, exist_ok=True)
    _place(directory, rank, step).write_text(how)


def wait_for(directory: Path, rank: int, step: int, alive: Callable[[], bool] = lambda: True) -> None:
    """Until the process is held after this step."""
    until = time.monotonic() + WAIT_SECONDS
    while not _place(directory, rank, step).with_suffix(".met").exists():
        assert alive() and time.monotonic() < until, f"rank {rank} has not come to step {step}"
        time.sleep(0.02)


def release(directory: Path, rank: int, step: int) -> None:
    """Let it go on."""
    _place(directory, rank, step).with_suffix(".met").unlink()


def _place(directory: Path, rank: int, step: int) -> Path:
    return directory.parent / f"fate-{directory.name}-{rank}-{step}"


def _meet(directory: Path, rank: int, step: int) -> None:
    from torch.distributed import distributed_c10d

    place = _place(directory, rank, step)
    if not place.exists():
        return
    while not list((directory / "checkpoints").glob("step-*")):
        time.sleep(0.005)
    how, met = place.read_text(), place.with_suffix(".met")
    os.replace(place, met)
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if how.startswith("hasten"):  # only now, for setting up may take a slow machine longer than that
        distributed_c10d._set_pg_timeout(timedelta(seconds=float(how.split()[1])))
        return
    while met.exists():
        time.sleep(0.005)


def watch() -> None:
    """From now on this process meets its fate."""
    from wuxing.train.run import Run

    tell, rank = Run._tell, int(os.environ.get("RANK", "0"))

    def fated(self: Any, report: Any, bar: Any) -> None:
        tell(self, report, bar)
        _meet(self.directory, rank, report.step)

    Run._tell = fated  # type: ignore[method-assign]


def save_at_once() -> None:
    """From now on a save returns when it is on the disk, whatever disk that is."""
    from wuxing.train.save.checkpoint import Checkpoints
    from wuxing.train.save.share import SharedCheckpoints

    for kind in (Checkpoints, SharedCheckpoints):
        kind.save = at_once(kind.save)  # type: ignore[method-assign]


def at_once(save: Callable[..., None]) -> Callable[..., None]:
    """The same save, on the disk when it returns."""

    def saving(self: Any, *arguments: Any, **settings: Any) -> None:
        self.asynchronous = False
        save(self, *arguments, **settings)

    return saving


if __name__ == "__main__":
    from wuxing.train import fleet, together

    watch()
    if "synchronous" in sys.argv:
        save_at_once()
    (together if int(os.environ["RANK"]) else fleet).main()
