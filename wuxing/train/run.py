"""A training run: the trainer, and around it the log, the measurements, the checkpoints and the stop signal."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wuxing.core.context import Context
from wuxing.core.file import append_line, read_lines, write_text
from wuxing.core.progress import Bar
from wuxing.train.checkpoint import Checkpoints
from wuxing.train.memory import Watch
from wuxing.train.trainer import StepReport, Trainer
from wuxing.train.validate import Validator

LOG = "log.jsonl"
ROLLOUTS = "rollouts/train.jsonl"


@dataclass
class Run:
    """Takes a trainer to its last step.  After a kill, `resume` goes on from the newest whole checkpoint."""

    trainer: Trainer
    validate: Validator
    checkpoints: Checkpoints
    directory: Path
    context: Context
    name: str
    learning_rate: float
    times: int
    """How often is measured after the start."""
    save_every_seconds: float
    history: list[dict[str, Any]] = field(default_factory=list)
    """Measurements on held-out data: {"step": n, metric: value, ...}."""
    best_step: int = 0
    spikes: int = 0
    seconds: float = 0.0
    """Wall time of all attempts, up to the last checkpoint of each."""
    pause_seconds: float = 0.0
    """Time in which training waited for checkpoints."""
    memory: Watch = field(default_factory=Watch)

    def resume(self) -> bool:
        """Take up the newest whole checkpoint; False when there is none."""
        checkpoint = self.checkpoints.latest(self.context.progress.say)
        if checkpoint is not None:
            self.trainer.load(checkpoint.tensors, checkpoint.state)
            self.history, self.best_step = checkpoint.state["history"], checkpoint.state["best_step"]
            self.spikes, self.seconds = checkpoint.state["spikes"], checkpoint.state["seconds"]
            self.context.progress.say(f"{self.name}: going on after step {self.trainer.done} of {self.trainer.steps}")
        for name in (LOG, ROLLOUTS):
            forget_after(self.directory / name, self.trainer.done if checkpoint else -1)
        return checkpoint is not None

    def finish(self) -> None:
        """All steps that are left.  Raises Interrupted, with its state saved, when a stop is asked for."""
        trainer, started = self.trainer, time.monotonic()
        before, saved = self.seconds, started
        measured = {round(trainer.steps * turn / self.times) for turn in range(1, self.times + 1)}
        with self.context.progress.bar(self.name, trainer.steps) as bar:
            bar.set(trainer.done)
            if not self.history:
                self.measure()
            while trainer.done < trainer.steps:
                report = trainer.step()
                self._tell(report, bar)
                if trainer.done in measured:
                    self.measure()
                now = time.monotonic()
                self.seconds = before + now - started
                last = trainer.done == trainer.steps
                if last or self.context.stop.requested or now - saved >= self.save_every_seconds:
                    self.save()
                    saved = time.monotonic()
                if self.context.stop.requested and not last:
                    self.checkpoints.wait()
                    self.context.stop.leave(f"{self.name} saved a checkpoint at step {trainer.done}")
        self.checkpoints.wait()

    def measure(self) -> None:
        """Measure on held-out data and keep the result."""
        figures = self.validate(self.trainer.network)
        self.history.append({"step": self.trainer.done, **{name: round(v, 6) for name, v in figures.items()}})
        append_line(self.directory / LOG, {"step": self.trainer.done, "validation": figures})
        metric = self.validate.metric
        choose: Callable[..., dict[str, Any]] = min if self.validate.lower_is_better else max
        self.best_step = int(choose(self.history, key=lambda line: line[metric])["step"])

    def save(self) -> None:
        """Begin to write a checkpoint of this moment."""
        started = time.monotonic()
        state = {
            **self.trainer.state(),
            "history": list(self.history),
            "best_step": self.best_step,
            "spikes": self.spikes,
            "seconds": self.seconds,
        }
        best = self.best_step == self.trainer.done
        self.checkpoints.save(self.trainer.done, self.trainer.tensors(), state, best)
        self.pause_seconds += time.monotonic() - started

    def _tell(self, report: StepReport, bar: Bar) -> None:
        line: dict[str, Any] = {
            "step": report.step,
            "loss": report.loss,
            "learning_rate": self.learning_rate * report.rate,
            "gradient_norm": report.gradient_norm,
            "tokens": report.positions,
            "taught": report.count,
            "tokens_per_second": round(report.positions / report.seconds, 1),
            "seconds": round(report.seconds, 4),
            "memory_bytes": self.memory.now(),
            **report.figures,
        }
        if report.spike:
            self.spikes += 1
            line["spike"] = report.spike
            shown = ", ".join(report.spike[:4])
            self.context.progress.say(f"{self.name}: loss {report.loss:.3g} leapt at step {report.step}: {shown}")
        append_line(self.directory / LOG, line)
        bar.set(report.step)
        bar.note(self._note(line))

    def _note(self, line: dict[str, Any]) -> str:
        metric = self.validate.metric
        learnt = f"reward {line['reward']:.2f}" if "reward" in line else f"loss {line['loss']:.3f}"
        held_out = f"{metric.replace('_', ' ')} {self.history[-1][metric]:.3f}" if self.history else ""
        return f"{learnt}  {held_out}  {line['tokens_per_second']:,.0f} tok/s"


def forget_after(path: Path, step: int) -> None:
    """Drop the lines of a log that belong to steps after `step`: they will be written again."""
    if not path.exists():
        return
    if step < 0:
        path.unlink()
        return
    import json

    kept = [line for line in read_lines(path) if line["step"] <= step]
    write_text(path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in kept))
