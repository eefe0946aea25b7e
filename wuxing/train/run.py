"""A training run: the trainer, and around it the log, the measurements, the checkpoints and the stop signal."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from wuxing.compute import team
from wuxing.core.context import Context
from wuxing.core.error import WuxingError
from wuxing.core.file import append_line, read_lines, write_text
from wuxing.core.progress import Bar
from wuxing.data.source import PackedSource
from wuxing.model.network import Network
from wuxing.train.config import Stop, Validation
from wuxing.train.plan.memory import Watch
from wuxing.train.plan.origin import Passage
from wuxing.train.plan.ramp import first_sample
from wuxing.train.save.checkpoint import Checkpoint, Checkpoints
from wuxing.train.trainer import AVERAGE, StepReport, Trainer
from wuxing.train.update.average import swapped
from wuxing.train.update.guard import level, overfits
from wuxing.train.update.mixture import Mixer
from wuxing.train.update.optimizer import PATH_MEAN
from wuxing.train.validate import Validator
from wuxing.train.watch.adjust import Knobs, turn

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
    validation: Validation
    """When is measured after the start."""
    save_every_seconds: float
    history: list[dict[str, Any]] = field(default_factory=list)
    """Measurements on held-out data: {"step": n, metric: value, ...}."""
    best_step: int = 0
    spikes: int = 0
    seconds: float = 0.0
    """Wall time of all attempts, up to the last checkpoint of each."""
    pause_seconds: float = 0.0
    """Time in which training waited for checkpoints."""
    stop: Stop | None = None
    keep: str = "last"
    """`best`: the checkpoint of the best measurement is written at once, so that it can be found again."""
    kept_steps: frozenset[int] = frozenset()
    """Steps whose checkpoints stay for good."""
    rewinds: list[dict[str, Any]] = field(default_factory=list)
    """Leaps of the loss after which the run went back."""
    losses: list[float | None] = field(default_factory=list)
    """The level of the training loss at each measurement; None before there was one."""
    memory: Watch = field(default_factory=Watch)
    identity: str = ""
    """The fingerprint of what is made: a checkpoint of something else is refused."""
    passages: list[Passage] = field(default_factory=list)
    """After which steps it went on with other libraries, processors or processes."""
    mixer: Mixer | None = None
    """Shifts the shares of the data sets."""

    def __post_init__(self) -> None:
        self.knobs = Knobs(self.directory)
        self.checkpoints.held = self.kept_steps

    def resume(self) -> bool:
        """Take up the newest whole checkpoint; False when there is none."""
        if self.leads:
            self.knobs.read()
        self.knobs.applied = team.from_lead(lambda: self.knobs.applied)
        checkpoint = self.checkpoints.latest(self.context.progress.say) if self.saves else None
        found = bool(team.from_lead(lambda: checkpoint is not None))
        if checkpoint is not None:
            self._refuse_foreign(checkpoint)
            self.passages = checkpoint.state["passages"]
        if found:
            self._take_up(checkpoint)
            self.context.progress.say(f"{self.name}: going on after step {self.trainer.done} of {self.trainer.steps}")
        self._forget_after(self.trainer.done if found else -1)
        self.knobs.restore(self.trainer, self.trainer.done)
        if self.context.lost:
            self._log({"step": self.trainer.done, "lost": self.context.lost, "processes": team.ranks()})
        return found

    def _refuse_foreign(self, checkpoint: Checkpoint) -> None:
        if checkpoint.state["run"] != self.identity:
            place = self.checkpoints.path(checkpoint.step)
            raise WuxingError(f"checkpoint {place.name} belongs to another run than {self.name}", f"Take away {place}")

    @property
    def leads(self) -> bool:
        """Whether this process keeps the log and the checkpoints."""
        return team.rank() == 0

    @property
    def saves(self) -> bool:
        """Whether this process takes part in saving: the lead, or all where each has a share of the state."""
        return self.leads or self.checkpoints.everyone

    def _forget_after(self, step: int) -> None:
        """Drop what the logs say about what will be done again; the run's state is that of `step`."""
        measured = {line["step"] for line in self.history}

        def known(line: dict[str, Any]) -> bool:
            if line["step"] > step or ("validation" in line and line["step"] not in measured):
                return False
            return "rewound" not in line or line["rewound"] in self.rewinds

        for name in (LOG, ROLLOUTS) if self.leads else ():
            keep_lines(self.directory / name, known)

    def _adjust(self, fresh: bool) -> None:
        """Turn the knobs that belong to this moment; `fresh`: some were asked for just now."""
        done = self.trainer.done
        if fresh:
            self.knobs.applied += team.from_lead(lambda: self.knobs.take(done))
        for line in self.knobs.at(done):
            turn(self.trainer, line)
            if fresh:
                said = f"{line['knob']} is {line['value']:g} from step {done + 1} on ({line['who']}: {line['why']})"
                self.context.progress.say(f"{self.name}: {said}")

    def _take_up(self, checkpoint: Checkpoint | None) -> None:
        """Go on from the lead's checkpoint, on every rank."""
        state = team.from_lead(lambda: checkpoint.state if checkpoint else {})
        self.trainer.load(self.checkpoints.taken_up(checkpoint, int(state["done"])), state)
        self.history, self.best_step = state["history"], state["best_step"]
        self.spikes, self.seconds = state["spikes"], state["seconds"]
        self.rewinds, self.losses = state["rewinds"], state["losses"]
        if self.mixer is not None:
            self.mixer.load(state["mixer"])
        self.knobs.restore(self.trainer, self.trainer.done)

    def finish(self, until: int | None = None) -> None:
        """All steps that are left, or those up to step `until`.

        Raises Interrupted, with its state saved, when a stop is asked for.
        """
        trainer, started = self.trainer, time.monotonic()
        before, saved, begun = self.seconds, started, trainer.done
        asked = team.any_of([self.leads and self.knobs.pending()])[0]
        with self.context.progress.bar(self.name, self._way(trainer.steps)) as bar:
            bar.set(self._way(trainer.done))
            if not self.history:
                self.measure()
                self._mix()
                self._mark()
            while not self.ended and (until is None or trainer.done < until):
                self._adjust(asked)
                if self.ended:  # a knob ends the run here
                    self.measure()
                    self.save()
                    break
                report = trainer.step()
                self.checkpoints.check()
                if begun == trainer.done - 1 and self.saves:
                    self.checkpoints.prepare(trainer.tensors())
                self._tell(report, bar)
                if report.spike and trainer.guard.spike == "rewind":
                    self._rewind(report)
                    continue
                if trainer.done in self._measured:
                    self.measure()
                self._mix()
                now = time.monotonic()
                self.seconds = before + now - started
                last = bool(self.ended)
                due = self.leads and now - saved >= self.save_every_seconds and not self.checkpoints.busy
                pending = self.leads and self.knobs.pending()
                stop, due, asked = team.any_of([self.context.stop.requested, due, pending])
                if last or stop or due or self._worth_saving:
                    self.save(must=last or stop or self._worth_saving)
                    saved = time.monotonic()
                if stop and not last:
                    self.context.stop.request()
                    self.checkpoints.wait()
                    self.context.stop.leave(f"{self.name} saved a checkpoint at step {trainer.done}")
        self.checkpoints.wait()

    def _way(self, step: int) -> int:
        """How far a step is, in rows where steps grow: a bar that counted steps would promise too early an end."""
        source = self.trainer.source
        if not isinstance(source, PackedSource) or not source.stages:
            return step
        return first_sample(source.stages, source.step_rows, step)

    @property
    def ended(self) -> str:
        """Why the run is over; empty while it is not.  A function of what is in the checkpoint."""
        if self.stop is not None and (reason := stop_reason(self.stop, self.trainer.measured, self._sign)):
            return reason
        return "the budget is spent" if self.trainer.done >= self.trainer.steps else ""

    @property
    def _measured(self) -> set[int]:
        """The steps after which is measured."""
        return self.validation.moments(self.trainer.steps)

    @property
    def _sign(self) -> int:
        return 1 if self.validate.lower_is_better else -1

    @property
    def _worth_saving(self) -> bool:
        """Whether this moment may have to be found again: the best so far, or a mark to go back to."""
        done, guard = self.trainer.done, self.trainer.guard
        mark = guard.spike == "rewind" and done % guard.rewind_steps == 0
        mark = mark or done in self.kept_steps
        return mark or (self.keep == "best" and self.history[-1]["step"] == done == self.best_step)

    def _mark(self) -> None:
        if self._worth_saving:
            self.save()

    def _rewind(self, report: StepReport) -> None:
        """Back to the last mark, and on from there with the samples behind the leap."""
        trainer, guard = self.trainer, self.trainer.guard
        rewinds = [*self.rewinds, {"step": report.step, "records": report.spike[:8]}]
        if len(rewinds) > guard.max_rewinds:
            raise WuxingError(
                f"the loss leapt at step {report.step}, and before that at {[r['step'] for r in self.rewinds]}: "
                "going back does not help",
                "Lower optimizer.learning_rate, or look at the records named in the log",
            )
        behind = dict(trainer.source.state_dict())
        mark = (report.step - 1) // guard.rewind_steps * guard.rewind_steps
        self._take_up(self.checkpoints.load(mark) if self.saves else None)
        trainer.source.load_state_dict(behind)
        self.rewinds = rewinds[:-1]
        self._forget_after(mark)
        self.rewinds = rewinds
        self._log({"step": mark, "rewound": rewinds[-1]})
        self.save()
        if self.saves:
            self.checkpoints.forget_after(mark)
        self.context.progress.say(f"{self.name}: back to step {mark}, past the samples that made the loss leap")

    @property
    def kept(self) -> dict[str, Any]:
        """The measurement of the weights that become the model."""
        step = self.best_step if self.keep == "best" else self.history[-1]["step"]
        return next(line for line in reversed(self.history) if line["step"] == step)

    @contextmanager
    def chosen(self) -> Iterator[Network]:
        """The network with the weights that become the model."""
        step, trainer = self.kept["step"], self.trainer
        if step == trainer.done:
            with trainer.judged() as network:
                yield network
            return
        with swapped(trainer.optimizer.named, judged_weights(self.checkpoints.load(step).tensors)):
            yield trainer.network

    def measure(self) -> None:
        """Measure on held-out data and keep the result."""
        started = time.monotonic()
        with self.trainer.judged() as network:
            figures = self.validate(network)
        self.history.append({"step": self.trainer.done, **{name: round(v, 6) for name, v in figures.items()}})
        seconds = round(time.monotonic() - started, 4)
        self._log({"step": self.trainer.done, "validation": figures, "seconds": seconds})
        metric = self.validate.metric
        self.trainer.measured.append(self._sign * figures[metric])
        self._call_overfitting()
        choose: Callable[..., dict[str, Any]] = min if self.validate.lower_is_better else max
        self.best_step = int(choose(self.history, key=lambda line: line[metric])["step"])

    def _mix(self) -> None:
        """Let the shares of the data sets follow their losses, where this is the moment."""
        trainer = self.trainer
        if self.mixer is None or not self.mixer.due(trainer.done, trainer.steps):
            return
        assert isinstance(trainer.source, PackedSource)
        started = time.monotonic()
        turned = self.mixer.turn(trainer.network, trainer.source)
        self._log({"step": trainer.done, "mixture": turned, "seconds": round(time.monotonic() - started, 4)})

    def _log(self, line: dict[str, Any]) -> None:
        if self.leads:
            append_line(self.directory / LOG, line)

    def _call_overfitting(self) -> None:
        """Say early that the model learns its data by heart."""
        self.losses.append(level(self.trainer.recent))
        if overfits(self.trainer.measured, self.losses):
            self.context.progress.say(
                f"{self.name}: overfitting since step {self.best_step}: the training loss falls, the held-out "
                f"{self.validate.metric.replace('_', ' ')} gets worse; stop: {{patience: 2}} or more data would help"
            )

    def save(self, must: bool = True) -> None:
        """Begin to write a checkpoint of this moment; `must`: the run cannot do without it."""
        if not self.saves:
            return
        started = time.monotonic()
        state = {
            **self.trainer.state(),
            "history": list(self.history),
            "best_step": self.best_step,
            "spikes": self.spikes,
            "rewinds": list(self.rewinds),
            "losses": list(self.losses),
            "seconds": self.seconds,
            "run": self.identity,
            "passages": self.passages,
            "mixer": self.mixer.state() if self.mixer else None,
        }
        best = self.best_step == self.trainer.done
        guard = self.trainer.guard
        if guard.spike == "rewind":
            self.checkpoints.held = self.kept_steps | {self.trainer.done // guard.rewind_steps * guard.rewind_steps}
        self.checkpoints.save(self.trainer.done, self.trainer.tensors(), state, best, must)
        self.pause_seconds += time.monotonic() - started

    def _tell(self, report: StepReport, bar: Bar) -> None:
        line: dict[str, Any] = {
            "step": report.step,
            "loss": report.loss,
            "learning_rate": self.trainer.optimizer.rate * report.rate,
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
        self._log(line)
        bar.set(self._way(report.step))
        bar.note(self._note(line))

    def _note(self, line: dict[str, Any]) -> str:
        metric = self.validate.metric
        learnt = f"reward {line['reward']:.2f}" if "reward" in line else f"loss {line['loss']:.3f}"
        held_out = f"{metric.replace('_', ' ')} {self.history[-1][metric]:.3f}" if self.history else ""
        return f"{learnt}  {held_out}  {line['tokens_per_second']:,.0f} tok/s"


def judged_weights(tensors: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The weights of a checkpoint that were measured: the averaged ones, where there are some."""
    moments = tensors["optimizer"]
    average = {name.removeprefix(AVERAGE): tensor for name, tensor in moments.items() if name.startswith(AVERAGE)}
    path = {name.removesuffix(PATH_MEAN): tensor for name, tensor in moments.items() if name.endswith(PATH_MEAN)}
    return {**tensors["model"], **(average or path)}


def stop_reason(stop: Stop, measured: Sequence[float], sign: int) -> str:
    """Why a run stops before its budget is spent; empty when it goes on.

    `measured`: the held-out measure so far, the start first, lower is better (times `sign`: as it is called).
    """
    if not measured:
        return ""
    if stop.target is not None and measured[-1] <= sign * stop.target:
        return f"the target {stop.target:g} is reached"
    best, waited = measured[0], 0
    for value in measured[1:]:
        waited = 0 if value < best - stop.min_improvement else waited + 1
        best = min(best, value)
    if stop.patience is not None and waited >= stop.patience:
        return f"{waited} measurements in a row brought no improvement"
    return ""


def keep_lines(path: Path, known: Callable[[dict[str, Any]], bool]) -> None:
    """Drop the other lines of a log: they will be written again."""
    if not path.exists():
        return
    lines = read_lines(path)
    kept = [line for line in lines if known(line)]
    if not kept:
        path.unlink()
    elif len(kept) < len(lines) or not path.read_bytes().endswith(b"\n"):
        write_text(path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in kept))
