"""Knobs of a running job: asked for by a command, applied at the next step, recorded, and applied there again after a
kill.

`wuxing adjust` appends to `asked.jsonl` in the job's draft; the job writes the step into `adjusted.jsonl` before it
acts.  What was adjusted when is part of `training.json`, and so of the model's content.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wuxing.core.error import UsageError, WuxingError, nearest
from wuxing.core.file import append_line, read_json, read_lines

if TYPE_CHECKING:
    from wuxing.data.batch import BatchSource
    from wuxing.train.trainer import Trainer

SHARE = "share."
"""Before the name of a data set."""
ASKED, ADJUSTED = "asked.jsonl", "adjusted.jsonl"
KNOBS = {
    "learning_rate": "highest learning rate; the schedule goes on scaling it",
    "clip": "largest norm of the gradient",
    "share.DATA": "share of a data set; the others keep their proportions",
    "steps": "where the run ends, and with it the schedule; the present step ends it now",
}


@dataclass
class Knobs:
    """The adjustments of one run."""

    directory: Path
    applied: list[dict[str, Any]] = field(default_factory=list)
    """In the order of their steps: {"step", "knob", "value", "who", "why", "time"}."""
    first: dict[str, float] = field(default_factory=dict)
    """Every knob as the recipe set it."""
    _size: int = -1

    def read(self) -> None:
        """Take up what an earlier attempt has applied."""
        path = self.directory / ADJUSTED
        self.applied = list(read_lines(path)) if path.exists() else []

    def pending(self) -> bool:
        """Whether something new was asked for: one look at a file's size."""
        path = self.directory / ASKED
        size = path.stat().st_size if path.exists() else 0
        changed, self._size = size != self._size, size
        return changed and len(list(read_lines(path))) > len(self.applied) if size else False

    def take(self, step: int) -> list[dict[str, Any]]:
        """What was newly asked for, written down with the step at which it is applied."""
        fresh = list(read_lines(self.directory / ASKED))[len(self.applied) :]
        step = max([step, *(line["step"] for line in self.applied)])  # in the order in which they were asked for
        for line in fresh:
            append_line(self.directory / ADJUSTED, {"step": step, **line}, sync=True)
        return [{"step": step, **line} for line in fresh]

    def at(self, step: int) -> list[dict[str, Any]]:
        """What is to be applied before the step that follows `step` finished ones."""
        return [line for line in self.applied if line["step"] == step]

    def restore(self, trainer: Trainer, before: int) -> None:
        """Everything as it stood at step `before`, after going there."""
        if not self.first:
            self.first = {"learning_rate": trainer.optimizer.rate, "clip": trainer.clip, "steps": trainer.steps}
        for knob, value in self.first.items():
            turn(trainer, {"knob": knob, "value": value})
        for line in self.applied:
            if line["step"] < before and not line["knob"].startswith(SHARE):  # the source's state holds them
                turn(trainer, line)


def mix(source: BatchSource, name: str, share: float) -> None:
    """Give a data set another share from the next step on."""
    from wuxing.data.source import PackedSource
    from wuxing.train.update.mixture import with_share

    assert isinstance(source, PackedSource), "only data sets have shares"
    source.mix(with_share(source, name, share))


def turn(trainer: Trainer, line: dict[str, Any]) -> None:
    """Apply one adjustment."""
    value = line["value"]
    if line["knob"] == "learning_rate":
        trainer.optimizer.set_rate(float(value))
    elif line["knob"] == "clip":
        trainer.clip = float(value)
    elif line["knob"] == "steps":
        trainer.steps = max(int(value), trainer.done)
    elif line["knob"].startswith(SHARE):
        mix(trainer.source, line["knob"].removeprefix(SHARE), float(value))


def _known(draft: Path, knob: str) -> None:
    """Raises UsageError for a knob that the job does not have."""
    if not knob.startswith(SHARE):
        if knob not in KNOBS:
            raise UsageError(f'there is no knob "{knob}"', nearest(knob, KNOBS))
        return
    data = read_json(draft / "start.json").get("data", [])
    if knob.removeprefix(SHARE) not in data or len(data) < 2:
        several = f"It learns from {', '.join(data)}" if data else "It has one data set, or a task"
        raise UsageError(f'this job has no share of "{knob.removeprefix(SHARE)}" to be turned', several)


def ask(draft: Path, settings: dict[str, str], who: str, why: str, time: str) -> list[dict[str, Any]]:
    """Ask the job that writes `draft` to turn knobs.  Raises UsageError for a knob or value that makes no sense."""
    if not (draft / "start.json").exists():
        raise WuxingError(f"nothing is being trained in {draft}", "Look at the name; the job may not have begun yet")
    lines = []
    for knob, text in settings.items():
        _known(draft, knob)
        try:
            value: float = int(text) if knob == "steps" else float(text)
        except ValueError:
            raise UsageError(f'{knob}: "{text}" is no number', f"Write {knob}=0.001") from None
        if not 0 < value < (1 if knob.startswith(SHARE) else float("inf")):
            below = ", and below 1" if knob.startswith(SHARE) else ""
            raise UsageError(f"{knob} must be above 0{below}", f"Write {knob}=0.001")
        lines.append({"knob": knob, "value": value, "who": who, "why": why, "time": time})
    for line in lines:
        append_line(draft / ASKED, line, sync=True)
    return lines
