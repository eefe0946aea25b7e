"""Where things run: the machine's side of a run.  Nothing in here ever enters a fingerprint."""

from __future__ import annotations

import os
import signal
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from wuxing.core.error import Interrupted
from wuxing.core.progress import Progress


class StopSignal:
    """Set by Ctrl-C or SIGTERM.  Long loops ask `requested` between pieces of work, save, and call `leave()`."""

    def __init__(self) -> None:
        self._event = threading.Event()

    @property
    def requested(self) -> bool:
        return self._event.is_set()

    def request(self) -> None:
        self._event.set()

    def leave(self, saved: str) -> None:
        """Raise Interrupted when a stop was requested; `saved` says where the work stands."""
        if self.requested:
            raise Interrupted(saved, "Type the same command again to go on")

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Within: the first SIGINT, SIGTERM or SIGHUP only sets the flag, a second SIGINT interrupts at once.

        A SIGHUP that is ignored (nohup) stays ignored.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def handle(number: int, frame: FrameType | None) -> None:
            if self.requested and number == signal.SIGINT:
                raise KeyboardInterrupt
            if number == signal.SIGHUP:
                _leave_terminal()
            self.request()

        numbers = [signal.SIGINT, signal.SIGTERM]
        if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
            numbers.append(signal.SIGHUP)
        before = {number: signal.signal(number, handle) for number in numbers}
        try:
            yield
        finally:
            for number, old in before.items():
                signal.signal(number, old)


def _leave_terminal() -> None:
    """What is said from here on goes nowhere: writing to a terminal that is gone is an error."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for output in (1, 2):
        if stat.S_ISCHR(os.fstat(output).st_mode):
            os.dup2(nowhere, output)
    os.close(nowhere)


def default_home() -> Path:
    """`$WUXING_HOME`, or `./.wuxing`."""
    return Path(os.environ.get("WUXING_HOME") or ".wuxing")


@dataclass
class Context:
    """Handed to every step: where its store is, what it may use, how it tells people where it stands."""

    home: Path = field(default_factory=default_home)
    device: str = "auto"
    """"cpu", "cuda", "cuda:1", or "auto": the best that is there."""
    workers: int = field(default_factory=lambda: len(os.sched_getaffinity(0)))
    """Processes or threads that a step may use at once."""
    progress: Progress = field(default_factory=Progress)
    stop: StopSignal = field(default_factory=StopSignal)
    cache: Path | None = None
    on: str = field(default_factory=lambda: os.environ.get("WUXING_ON") or "local")
    """Where work that can be spread runs: "local" (this process, or a pool of processes) or "ray" (a cluster)."""
    processes: int = 1
    """Processes that train one model together."""
    min_processes: int = 0
    """With how few of them a run goes on when places are lost; 0: with no fewer."""
    replacements: int = 3
    """How often in one model lost processes are replaced before the run ends."""
    lost: str = ""
    """Who was lost before this start; a run writes it into its log."""
    team: Any = None
    """Those processes (`compute.team.Team`), once they were needed."""

    @property
    def cache_directory(self) -> Path:
        """Downloads that any run may use again: `$WUXING_CACHE`, or `cache/` of the home."""
        return (self.cache or Path(os.environ.get("WUXING_CACHE") or self.home / "cache")).resolve()
