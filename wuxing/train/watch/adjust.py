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
from wuxing.core.file import append_line, read_lines

if TYPE_CHECKING:
    from wuxing.train.trainer import Trainer

ASKED, ADJUSTED = "asked.jsonl", "adjusted.jsonl"
KNOBS = {
    "learning_rate": "highest learning rate; the schedule goes on scaling it",
    "clip": "largest norm of the gradient",
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
            if line["step"] < before:
                turn(trainer, line)


def turn(trainer: Trainer, line: dict[str, Any]) -> None:
    """Apply one adjustment."""
    value = line["value"]
    if line["knob"] == "learning_rate":
        trainer.optimizer.set_rate(float(value))
    elif line["knob"] == "clip":
        trainer.clip = float(value)
    elif line["knob"] == "steps":
        trainer.steps = max(int(value), trainer.done)


def ask(draft: Path, settings: dict[str, str], who: str, why: str, time: str) -> list[dict[str, Any]]:
    """Ask the job that writes `draft` to turn knobs.  Raises UsageError for a knob or value that makes no sense."""
    if not (draft / "start.json").exists():
        raise WuxingError(f"nothing is being trained in {draft}", "Look at the name; the job may not have begun yet")
    lines = []
    for knob, text in settings.items():
        if knob not in KNOBS:
            raise UsageError(f'there is no knob "{knob}"', nearest(knob, KNOBS))
        try:
            value: float = int(text) if knob == "steps" else float(text)
        except ValueError:
            raise UsageError(f'{knob}: "{text}" is no number', f"Write {knob}=0.001") from None
        if not 0 < value < float("inf"):
            raise UsageError(f"{knob} must be above 0", f"Write {knob}=0.001")
        lines.append({"knob": knob, "value": value, "who": who, "why": why, "time": time})
    for line in lines:
        append_line(draft / ASKED, line, sync=True)
    return lines
