"""Processes that work on one job, started, heard and ended by one that only watches.

The process of rank 0 speaks JSON lines on its standard output: how far it is, and what ended it.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from wuxing.compute.place import LOST, LostError, Place
from wuxing.core.error import Interrupted, WuxingError

LOOK_SECONDS = 0.1
LEAD_SECONDS = 20.0
"""Once another process has failed, the lead has so long to say why: finding out who is silent takes it some eight."""
SETTLE_SECONDS = 60.0
"""Once a process is lost, a save that is under way has so long to come to its end."""
ERRORS_NAMED = ("UsageError", "RefusedError", "Interrupted", "LostError", "WuxingError")


def is_lost(error: BaseException) -> bool:
    """Whether an error says that a process, a link or a device was lost, rather than that the work is wrong."""
    import torch
    import torch.distributed as dist

    accelerator: type[BaseException] = getattr(torch, "AcceleratorError", LostError)
    return isinstance(error, LostError | dist.DistError) or (
        isinstance(error, accelerator) and not isinstance(error, torch.OutOfMemoryError)
    )


@dataclass
class Ending:
    """How an attempt ended.  Neither error nor lost: the job is done."""

    error: WuxingError | OSError | MemoryError | None = None
    lost: str = ""
    """Who was lost, with rank, place and process."""


@dataclass
class Attempt:
    """One start of all processes of a job."""

    places: Sequence[Place]
    timeout_seconds: float
    """A place that has not answered for so long is lost."""
    hear: Callable[[dict[str, Any]], None]
    """What rank 0 says."""
    asked_to_stop: Callable[[], bool]
    saving: Callable[[], bool]
    """Whether a save is under way."""
    pids: list[int] = field(default_factory=list)
    _codes: dict[int, int] = field(default_factory=dict)
    _gone: dict[int, str] = field(default_factory=dict)
    """Places that are gone themselves, and why."""
    _tails: dict[int, str] = field(default_factory=dict)
    _heard: dict[int, float] = field(default_factory=dict)
    _error: WuxingError | OSError | MemoryError | None = None
    _told: bool = False

    def run(
        self,
        lead: str,
        follower: str,
        job: str,
        environment: Mapping[str, str],
        started: Callable[[Attempt], None] = lambda attempt: None,
    ) -> Ending:
        """Start the module `lead` at the first place, with the job, and `follower` at the others; watch until all have
        ended.  Nothing is left running."""
        try:
            self._start(lead, follower, job, environment)
            started(self)
            return self._watch()
        except LostError as error:  # a place was lost before its process began
            return Ending(lost=error.what)
        finally:
            for rank, place in enumerate(self.places):
                if rank not in self._gone:
                    place.end()

    def _start(self, lead: str, follower: str, job: str, environment: Mapping[str, str]) -> None:
        ranks, first = len(self.places), self.places[0]
        port = first.free_port() if ranks > 1 else 0
        local: dict[str, int] = {}
        for rank, place in enumerate(self.places):
            of_place: dict[str, object] = {
                "RANK": rank,
                "WORLD_SIZE": ranks,
                "MASTER_ADDR": first.address,
                "MASTER_PORT": port,
            }
            of_place["LOCAL_RANK"] = local.get(place.name, 0)
            local[place.name] = local.get(place.name, 0) + 1
            of_place["LOCAL_WORLD_SIZE"] = sum(other.name == place.name for other in self.places)
            of_place["WUXING_TIMEOUT_SECONDS"] = self.timeout_seconds
            of_place["WUXING_THREADS"] = place.threads or os.environ.get("WUXING_THREADS", "")
            its = {**environment, **{name: str(value) for name, value in of_place.items()}}
            module, given = (lead, job) if rank == 0 else (follower, "")
            self.pids.append(place.start(module, given, its, speaks=rank == 0))

    def _watch(self) -> Ending:
        wrong_since = 0.0
        while True:
            self._listen()
            if len(self._codes) == len(self.places) and not any(self._codes.values()):
                return Ending()
            if self.asked_to_stop() and not self._told:
                self._told = True
                for place in self.places:
                    place.signal(signal.SIGTERM)
            if self._gone or any(self._codes.values()):
                wrong_since = wrong_since or time.monotonic()
                if (ending := self._judge(time.monotonic() - wrong_since)) is not None:
                    return ending
            time.sleep(LOOK_SECONDS)

    def _listen(self) -> None:
        now = time.monotonic()
        for rank, place in enumerate(self.places):
            if rank in self._codes or rank in self._gone:
                continue
            try:
                news = place.news()
            except LostError as error:
                self._gone[rank] = error.what
                continue
            if news is None:
                if now - self._heard.setdefault(rank, now) > self.timeout_seconds:
                    self._gone[rank] = "does not answer"
                continue
            self._heard[rank] = now
            if news.code is not None:
                self._codes[rank], self._tails[rank] = news.code, news.tail
            for line in news.lines if rank == 0 else ():
                self._take(line)

    def _take(self, line: str) -> None:
        said = spoken(line)
        if "error" in said:
            self._error = error_from(said["error"])
        else:
            self.hear(said)

    def _judge(self, since: float) -> Ending | None:
        """What to make of processes that have ended wrongly; None: wait for more."""
        lead_ended = 0 in self._codes or 0 in self._gone
        killed = {rank: code for rank, code in self._codes.items() if code < 0}
        if self._told and not self._gone and set(killed.values()) <= {-signal.SIGTERM} and killed:
            again = "Type the same command again to go on"
            return Ending(error=Interrupted("stopped before training had begun", again))
        if self._gone or killed:
            if not lead_ended and self.saving() and since < SETTLE_SECONDS:
                return None
            if self._error is not None and not isinstance(self._error, LostError):
                return self._ended_by_lead(self._error)
            return Ending(lost=self._named(killed))
        if not lead_ended and since < LEAD_SECONDS:
            return None
        if self._error is not None:
            return self._ended_by_lead(self._error)
        return self._without_word()

    def _ended_by_lead(self, error: WuxingError | OSError | MemoryError) -> Ending:
        if isinstance(error, LostError):
            return Ending(lost=self._with_place(error.what.removeprefix("training stopped: ")))
        if type(error).__name__ == "Interrupted" and not self.asked_to_stop():
            return Ending(lost="a process was asked to stop from outside (SIGTERM): it has saved")
        return Ending(error=error)

    def _without_word(self) -> Ending:
        """The lead has not said what was wrong: those who have ended may have."""
        lost = [rank for rank, code in self._codes.items() if code == LOST]
        failed = [rank for rank, code in self._codes.items() if code not in (0, LOST)]
        if failed:
            rank = failed[0]
            said = (self._tails[rank].strip().splitlines() or ["it has said nothing"])[-1]
            place = f"{self.places[rank].name}, process {self.pids[rank]}"
            return Ending(error=WuxingError(f"training stopped: rank {rank} ({place}) failed: {said}"))
        for rank in lost:
            for line in reversed(self._tails[rank].splitlines()):
                if line.startswith("wuxing: "):
                    said = line.removeprefix(f"wuxing: rank {rank}: ").removeprefix("training stopped: ")
                    return Ending(lost=self._with_place(said.split(". ")[0]))
        return Ending(lost="a process that has not said why it ended")

    def _with_place(self, said: str) -> str:
        """A lead that has fallen silent is known to the others by its address only."""
        lead = self.places[0]
        return said.replace(f"rank 0 ({lead.address})", f"rank 0 ({lead.name}, process {self.pids[0]})")

    def _named(self, killed: Mapping[int, int]) -> str:
        """Those who were lost, rather than those who fell over them."""
        causes = dict(self._gone)
        hard = {rank: code for rank, code in killed.items() if code == -signal.SIGKILL}
        for rank, code in (hard or ({} if causes else killed)).items():
            causes[rank] = f"was ended by {signal.Signals(-code).name}"
        shown = [
            f"rank {rank} ({self.places[rank].name}, process {self.pids[rank]}) {why}"
            for rank, why in sorted(causes.items())
        ]
        return " and ".join(shown[:4]) + (f" and {len(shown) - 4} more" if len(shown) > 4 else "")


def spoken(line: str) -> dict[str, Any]:
    """What rank 0 said: one of its JSON lines, or any other text that was printed there."""
    if line.startswith('{"'):
        try:
            said = json.loads(line)
        except ValueError:
            return {"text": line}
        if isinstance(said, dict):
            return said
    return {"text": line}


def error_to_json(error: BaseException) -> dict[str, Any]:
    """An error, for the process that watches."""
    if isinstance(error, WuxingError):
        name = next(name for kind in type(error).__mro__ if (name := kind.__name__) in ERRORS_NAMED)
        return {"name": name, "what": error.what, "remedy": error.remedy}
    if isinstance(error, OSError):
        return {"name": "OSError", "errno": error.errno, "what": str(error.strerror or error), "file": error.filename}
    return {"name": "MemoryError" if isinstance(error, MemoryError) else "", "what": str(error)}


def error_from(said: Mapping[str, Any]) -> WuxingError | OSError | MemoryError:
    """The error that was told."""
    from wuxing.core import error as errors

    if said["name"] == "OSError":
        return OSError(said["errno"], said["what"], said["file"])
    if said["name"] == "MemoryError":
        return MemoryError(said["what"])
    kind = LostError if said["name"] == "LostError" else getattr(errors, said["name"] or "WuxingError")
    made: WuxingError = kind(said["what"], said.get("remedy"))
    return made
