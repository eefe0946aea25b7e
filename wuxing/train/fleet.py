"""A model trained by processes that this one only watches: placed, heard, and replaced when one of them is lost.

The process of rank 0 leads, as it does under torchrun; all of them end and start anew from the last save when one is
lost, so a lead is replaced like any other.  What they leave in the draft is what a single process leaves there.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from wuxing.compute.fleet import Attempt, Ending, error_to_json, is_lost
from wuxing.compute.place import LOST, Ground, LocalGround, LostError, Place, end_with_parent
from wuxing.core.artifact import Artifact
from wuxing.core.context import Context
from wuxing.core.error import WuxingError
from wuxing.core.exchange import now
from wuxing.core.file import append_line
from wuxing.core.lease import lease
from wuxing.core.progress import Bar, Progress
from wuxing.core.step import Draft
from wuxing.train.config import ModelConfig

ATTEMPTS = "attempts.jsonl"
LEAD, FOLLOWER = "wuxing.train.fleet", "wuxing.train.together"
WAIT_SECONDS = 600.0
"""How long a run waits for free places before it ends: a cluster may need minutes to bring a host."""
SHRINK_SECONDS = 30.0
"""How long it waits when it may go on with fewer processes."""
LEASE_SECONDS = 150.0
"""How long a new lead waits for the lease of one that was lost: a file server keeps a dead host's for some 90 s."""
STALE_SECONDS = 5.0
"""A draft of a checkpoint that has not grown for so long is nobody's."""
TELL_SECONDS = 0.2


def has_fleet(context: Context) -> bool:
    """Whether a model of this run is trained by processes that this one watches."""
    if context.team is not None or int(os.environ.get("WORLD_SIZE", "1")) > 1:
        return False
    return context.processes > 1 or (context.on == "ray" and context.min_processes > 0)


# --------------------------------------------------------------------------------------------------- who watches
def train_on_fleet(config: ModelConfig, parents: Mapping[str, Artifact], draft: Draft, context: Context) -> None:
    """Have processes train until the draft holds the finished model; the files are theirs.

    Raises WuxingError when more were lost than may be replaced, when no place is free, and what rank 0 raised.
    """
    ground = _ground(context)
    try:
        fleet = _Fleet(config, parents, draft, context, ground)
        while not fleet.attempt():
            pass
    finally:
        ground.give_back()


def watch_job(
    places: Sequence[Place],
    job: str,
    context: Context,
    saving: Callable[[], bool] = lambda: False,
    started: Callable[[Attempt], None] = lambda attempt: None,
) -> Ending:
    """Start a process at each place, show what rank 0 says, and wait until all have ended."""
    stage = _Stage(context.progress)
    attempt = Attempt(
        places=places,
        timeout_seconds=float(os.environ.get("WUXING_TIMEOUT_SECONDS", "120")),
        hear=stage.hear,
        asked_to_stop=lambda: context.stop.requested,
        saving=saving,
    )
    with stage.open():
        return attempt.run(LEAD, FOLLOWER, job, _environment(), started)


def _ground(context: Context) -> Ground:
    if context.on != "ray":
        return LocalGround()
    from wuxing.compute.cluster import RayGround

    return RayGround(context.device)


@dataclass
class _Fleet:
    config: ModelConfig
    parents: Mapping[str, Artifact]
    draft: Draft
    context: Context
    ground: Ground
    losses: list[str] = field(default_factory=list)

    def attempt(self) -> bool:
        """Start all processes and watch them; False: one was lost, and may be replaced."""
        from wuxing.train.together import job_of, marked

        places = self._places()
        context, checkpoints = self.context, self.draft.path / "checkpoints"
        job = job_of(self.config, self.parents, self.draft, context)
        with marked(self.draft.path) as mark:
            whole = json.dumps({**job, "mark": mark, "lost": "".join(self.losses[-1:])})
            ending = watch_job(places, whole, context, lambda: _is_written(checkpoints), self._record)
        if ending.error is not None:
            raise ending.error
        if not ending.lost:
            return True
        self.ground.give_back()
        self._lose(ending.lost)
        return False

    def _lose(self, who: str) -> None:
        """Note a loss; WuxingError when there have been too many."""
        self.losses.append(who)
        most, name = self.context.replacements, self.draft.name
        self._write({"lost": who})
        if len(self.losses) > most:
            many = f"{most} replacements are used up" if most else "--replacements is 0"
            hint = "; SIGKILL is how a system ends a process when memory runs out" if "SIGKILL" in who else ""
            raise LostError(
                f"{name}: training stopped: {who} ({many}{hint})",
                "Type the same command again: it goes on from the last save",
            )
        self.context.progress.say(
            f"{name}: {who}: starting all processes anew, from the last save (replacement {len(self.losses)} of {most})"
        )

    def _places(self) -> list[Place]:
        """Places for as many processes as there can be."""
        context, name, said = self.context, self.draft.name, ""
        most, least = context.processes, min(context.min_processes or context.processes, context.processes)
        began = time.monotonic()
        limit = float(os.environ.get("WUXING_WAIT_SECONDS") or (SHRINK_SECONDS if least < most else WAIT_SECONDS))
        while True:
            waited = time.monotonic() - began
            for wanted in range(most, (least if waited >= limit else most) - 1, -1):
                if (places := self.ground.places(wanted)) is not None:
                    if wanted < most:
                        context.progress.say(f"{name}: going on with {wanted} of {most} processes")
                    return places
            short = self.ground.short_of(most)
            if waited >= limit:
                raise WuxingError(
                    f"{name}: no place for {least} processes after {waited:.0f} s: {short}",
                    "Bring hosts back or start more (ray start --address=...), then type the same command again: it "
                    "goes on from the last save",
                )
            if short != said:
                context.progress.say(f"{name}: waiting for places, at most {limit:.0f} s: {short}")
                said = short
            context.stop.leave("the last save is in the store")
            time.sleep(0.5)

    def _record(self, attempt: Attempt) -> None:
        both = zip(attempt.places, attempt.pids, strict=True)
        seats = [{"rank": rank, "place": place.name, "process": pid} for rank, (place, pid) in enumerate(both)]
        self._write({"attempt": len(self.losses) + 1, "processes": seats})

    def _write(self, line: dict[str, Any]) -> None:
        append_line(self.draft.path / ATTEMPTS, {"time": now(), **line}, sync=True)


def _is_written(checkpoints: Path) -> bool:
    """Whether a checkpoint is being written: a draft whose files grow, not one that a killed process left."""
    try:
        newest = max((path.stat().st_mtime for path in checkpoints.glob(".draft-*/*")), default=0.0)
    except FileNotFoundError:  # it was finished this very moment
        return True
    return time.time() - newest < STALE_SECONDS


def _environment() -> dict[str, str]:
    """What processes on other hosts must be told of this one's environment."""
    families = ("OMP_", "MKL_", "GLOO_", "NCCL_", "TORCH_", "CUBLAS_", "PYTORCH_")
    names = ("WUXING_DEBUG", "WUXING_CACHE", "HF_HUB_OFFLINE", "TOKENIZERS_PARALLELISM")
    return {name: value for name, value in os.environ.items() if name.startswith(families) or name in names}


class _Stage:
    """Shows here what rank 0 says there."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self._bars: dict[int, tuple[Any, Bar]] = {}

    def hear(self, said: dict[str, Any]) -> None:
        if "say" in said or "text" in said:
            self.progress.say(said.get("say", said.get("text", "")))
        elif "bar" in said:
            number, title, total = said["bar"]
            context = self.progress.bar(title, total)
            self._bars[number] = (context, context.__enter__())
        elif "at" in said and said["at"][0] in self._bars:
            number, done, note = said["at"]
            bar = self._bars[number][1]
            bar.text = note
            bar.set(done)
        elif "end" in said and said["end"] in self._bars:
            self._bars.pop(said["end"])[0].__exit__(None, None, None)

    @contextmanager
    def open(self) -> Iterator[None]:
        """Within: bars may be shown; those that a lost process left open are closed."""
        try:
            yield
        finally:
            for number in sorted(self._bars, reverse=True):
                self._bars.pop(number)[0].__exit__(None, None, None)


# ---------------------------------------------------------------------------------------------------- who works
class Reporter(Progress):
    """Progress for the process that watches, as JSON lines."""

    def __init__(self, out: TextIO) -> None:
        super().__init__("lines")
        self._out, self._opened = out, 0

    def tell(self, line: Mapping[str, Any]) -> None:
        """One line."""
        self._out.write(json.dumps(line) + "\n")
        self._out.flush()

    def say(self, line: str) -> None:
        self.tell({"say": line})

    @contextmanager
    def bar(self, title: str, total: float | None = None) -> Iterator[Bar]:
        self._opened += 1
        number = self._opened
        self.tell({"bar": [number, title, total]})
        try:
            yield _ToldBar(title, total, self, number)
        finally:
            self.tell({"end": number})


class _ToldBar(Bar):
    def __init__(self, title: str, total: float | None, reporter: Reporter, number: int) -> None:
        super().__init__(title, total, None, None, False)
        self._reporter, self._number, self._next = reporter, number, 0.0

    def _show(self) -> None:
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + TELL_SECONDS
            self._reporter.tell({"at": [self._number, self.done, self.text]})


def main() -> None:
    """The process of rank 0: leads one job, which comes on standard input, and says what became of it."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what anything else prints is text
    reporter = Reporter(out)
    end_with_parent()
    code = 0
    try:
        _lead(json.load(sys.stdin), reporter)
    except (WuxingError, OSError, MemoryError) as error:
        reporter.tell({"error": error_to_json(error)})
        code = LOST if is_lost(error) else error.exit_code if isinstance(error, WuxingError) else 1
    except RuntimeError as error:
        if not is_lost(error):
            raise
        reporter.tell({"error": error_to_json(LostError(" ".join(str(error).split())[:500]))})
        code = LOST
    out.flush()
    sys.stderr.flush()
    if code:
        os._exit(code)  # what a broken process group left running must not hold up the end


def _lead(job: dict[str, Any], reporter: Reporter) -> None:
    from wuxing.train.make import make_model
    from wuxing.train.save.replay import repeat
    from wuxing.train.together import lead_of, taken, wrong_here

    if wrong := wrong_here(job["mark"]):
        raise WuxingError(f"rank 0: {wrong}")
    config, parents, draft, context = taken(job)
    context.progress, context.lost = reporter, job["lost"]
    with _fence(draft.path.parent / ".lead", draft.name, reporter), context.stop.listening():
        processes = lead_of(context)
        try:
            if "until" in job:
                repeat(config, parents, draft, context, job["until"], processes)
            else:
                make_model(config, parents, draft, context)
        finally:
            if processes is not None:
                processes.close()


@contextmanager
def _fence(path: Path, name: str, progress: Progress) -> Iterator[None]:
    """Only one lead writes into a draft, also while one that counts as lost still lives behind a cut link."""
    until, said = time.monotonic() + LEASE_SECONDS, False
    with ExitStack() as stack:
        while True:
            try:
                stack.enter_context(lease(path, name))
                break
            except WuxingError as error:
                if time.monotonic() > until:
                    raise
                if not said:
                    progress.say(f"waiting for a lead that was lost: {error.what}")
                    said = True
                time.sleep(0.2)
        yield


if __name__ == "__main__":
    main()
