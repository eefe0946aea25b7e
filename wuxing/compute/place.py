"""Places where a process of several can run: this host here, the nodes of a Ray cluster in `compute.cluster`."""

from __future__ import annotations

import os
import platform
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Protocol

from wuxing.core.error import WuxingError

LOST = 75
"""The exit code of a process that ended because another one was lost (EX_TEMPFAIL of sysexits.h)."""
TAIL_LINES = 40


class LostError(WuxingError):
    """Another process is gone: nothing is wrong with this one, and the work can go on from the last save."""


def end_with_parent() -> None:
    """End this process when the one that started it is gone: a killed parent cannot say good-bye."""
    parent = int(os.environ.get("WUXING_PARENT") or os.getppid())

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.25)
        os._exit(LOST)

    threading.Thread(target=watch, name="parent", daemon=True).start()


@dataclass
class News:
    """What a process has said since it was last asked, and how it ended."""

    lines: list[str]
    code: int | None
    """Negative: the signal that ended it; None while it runs."""
    tail: str = ""
    """The last lines of its standard error, once it has ended."""


class Agent:
    """Starts one process on the host where it is itself, keeps what that says, and ends it."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._lines: deque[str] = deque()
        self._tail: deque[str] = deque(maxlen=TAIL_LINES)
        self._readers: list[threading.Thread] = []

    def host(self) -> str:
        """What people call this host."""
        return platform.node() or "this host"

    def free_port(self) -> int:
        """A port of this host that nobody listens on."""
        with socket.socket() as free:
            free.bind(("", 0))
            return int(free.getsockname()[1])

    def start(self, module: str, job: str, environment: Mapping[str, str], speaks: bool) -> int:
        """Run `python -m module` with the job on its standard input; its process id.  `speaks`: its errors are told."""
        here = {**os.environ, **environment, "WUXING_PARENT": str(os.getpid())}
        process = subprocess.Popen(
            [sys.executable, "-m", module],
            env=here,
            text=True,
            errors="replace",
            start_new_session=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert process.stdin and process.stdout and process.stderr
        keeps: list[tuple[IO[str], list[deque[str]]]] = [
            (process.stdout, [self._lines] if speaks else [self._tail]),
            (process.stderr, [self._lines, self._tail] if speaks else [self._tail]),
        ]
        for pipe, to in keeps:
            self._readers.append(threading.Thread(target=_keep, args=(pipe, to), daemon=True))
            self._readers[-1].start()
        try:
            process.stdin.write(job)
            process.stdin.close()
        except BrokenPipeError:
            pass  # it has ended already: `news` says how
        self._process = process
        return process.pid

    def news(self) -> News:
        """What is new."""
        assert self._process is not None
        code = self._process.poll()
        if code is not None:
            for reader in self._readers:
                reader.join(2)
        lines = [self._lines.popleft() for _ in range(len(self._lines))]
        return News(lines, code, "\n".join(self._tail) if code else "")

    def signal(self, number: int) -> None:
        """Send the process a signal, if it still runs."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)

    def end(self) -> None:
        """End the process, whatever it does."""
        self.signal(signal.SIGKILL)
        if self._process is not None:
            self._process.wait()


def _keep(pipe: IO[str], to: Sequence[deque[str]]) -> None:
    for line in pipe:
        for kept in to:
            kept.append(line.rstrip("\n"))


class Place(Protocol):
    """Where one process of the job runs."""

    @property
    def name(self) -> str:
        """What people call it: the host, and the node where there is one."""

    @property
    def address(self) -> str: ...
    @property
    def threads(self) -> int:
        """Threads that belong to it; 0: a share of those of its host."""

    def free_port(self) -> int: ...
    def start(self, module: str, job: str, environment: Mapping[str, str], speaks: bool) -> int: ...
    def news(self) -> News | None:
        """None: no answer yet.  Raises LostError when the place itself is gone."""

    def signal(self, number: int) -> None: ...
    def end(self) -> None: ...


class Ground(Protocol):
    """Where places are found."""

    def places(self, wanted: int) -> list[Place] | None:
        """So many places, those of one host side by side; None while there are not as many."""

    def short_of(self, wanted: int) -> str:
        """Why there are not, for people."""

    def give_back(self) -> None:
        """The places are no longer needed."""


class LocalPlace(Agent):
    """A place on this host."""

    address, threads = "127.0.0.1", 0

    @property
    def name(self) -> str:
        return self.host()


class LocalGround:
    """This host, which has a place for as many as were asked for."""

    def places(self, wanted: int) -> list[Place] | None:
        return [LocalPlace() for _ in range(wanted)]

    def short_of(self, wanted: int) -> str:
        return ""

    def give_back(self) -> None:
        pass
