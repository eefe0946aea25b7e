"""Trackers that people already look at: TensorBoard, Weights & Biases, MLflow.  Nothing leaves this machine unasked."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from wuxing.core.error import UsageError, WuxingError
from wuxing.train.watch.mirror import Setting, Subject, Tracker

REMEDY = "pip install 'wuxing[track]'"


class TensorBoard:
    """Event files in a directory per run; look at them with `tensorboard --logdir`."""

    def __init__(self, into: Path, project: str):
        self._into = into
        self._writer: Any = None

    def begin(self, subject: Subject) -> None:
        self._place = self._into / subject.name / subject.identity[:12]
        self._open(None)

    def settings(self, values: Mapping[str, Setting]) -> None:
        lines = [f"| {name} | {value} |" for name, value in values.items()]
        self._writer.add_text("settings", "\n".join(["| setting | value |", "|---|---|", *lines]), 0)

    def _open(self, purge: int | None) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise WuxingError("TensorBoard is not installed", REMEDY) from error
        writer: Any = SummaryWriter
        self._writer = writer(str(self._place), purge_step=purge)

    def scalars(self, step: int, seconds: float, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step, walltime=seconds)

    def note(self, step: int, text: str) -> None:
        self._writer.add_text("events", text, step)

    def rewind(self, step: int) -> None:
        self._writer.close()
        self._open(step + 1)

    def end(self, finished: bool) -> None:
        self._writer.close()


class WeightsAndBiases:
    """A run of W&B, offline unless asked otherwise: `wandb sync DIRECTORY` sends it later."""

    def __init__(self, into: Path, project: str, online: bool = False):
        self._into, self._project, self._online = into, project, online
        self._run: Any = None
        self._notes: list[tuple[int, str]] = []

    def begin(self, subject: Subject) -> None:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        os.environ.setdefault("WANDB_SILENT", "true")
        try:
            import wandb
        except ImportError as error:
            raise WuxingError("W&B is not installed", REMEDY) from error
        self._into.mkdir(parents=True, exist_ok=True)
        self._table: Callable[..., Any] = wandb.Table
        name = hashlib.sha256(f"{subject.name}/{subject.identity}".encode()).hexdigest()[:16]
        while list(self._into.glob(f"wandb/*-{time.strftime('%Y%m%d_%H%M%S')}-{name}")):
            time.sleep(0.1)  # W&B calls its directory by the second, and would write over an earlier part of this run
        quiet = wandb.Settings(
            console="off", disable_git=True, save_code=False, x_disable_stats=True, x_disable_meta=True
        )
        self._run = wandb.init(
            project=self._project,
            name=subject.name,
            id=name,
            resume="allow" if self._online else None,
            mode="online" if self._online else "offline",
            dir=str(self._into),
            settings=quiet,
        )
        self._run.define_metric("step", hidden=True)
        self._run.define_metric("*", step_metric="step")

    def settings(self, values: Mapping[str, Setting]) -> None:
        self._run.config.update(dict(values), allow_val_change=True)

    def scalars(self, step: int, seconds: float, values: Mapping[str, float]) -> None:
        self._run.log({**values, "step": step})

    def note(self, step: int, text: str) -> None:
        self._notes.append((step, text))
        self._run.log({"events": self._table(columns=["step", "event"], data=list(self._notes)), "step": step})

    def rewind(self, step: int) -> None:
        self.note(step, f"the run went back to step {step}: later points before this one are not of its path")

    def end(self, finished: bool) -> None:
        self._run.finish(exit_code=0 if finished else 1)


class MLflow:
    """A run of MLflow, in a directory or at a server's address (`http://...`, `sqlite:///...`)."""

    def __init__(self, into: str, project: str):
        self._into, self._project = into, project
        self._client: Any = None
        self._id = ""

    def begin(self, subject: Subject) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        try:
            from mlflow import MlflowClient
        except ImportError as error:
            raise WuxingError("MLflow is not installed", REMEDY) from error
        address = self._into if "://" in self._into else Path(self._into).resolve().as_uri()
        self._client = MlflowClient(tracking_uri=address)
        known = self._client.get_experiment_by_name(self._project)
        experiment = known.experiment_id if known else self._client.create_experiment(self._project)
        same = self._client.search_runs([experiment], f"tags.wuxing_identity = '{subject.identity}'")
        if same:
            self._id = same[0].info.run_id
            self._client.update_run(self._id, "RUNNING")
            return
        tags = {"wuxing_identity": subject.identity, "wuxing_model": subject.name}
        self._id = self._client.create_run(experiment, run_name=subject.name, tags=tags).info.run_id

    def settings(self, values: Mapping[str, Setting]) -> None:
        from mlflow.entities import Param

        settings = [Param(name, str(value)[:500]) for name, value in values.items()]
        for place in range(0, len(settings), 100):
            self._client.log_batch(self._id, params=settings[place : place + 100])

    def scalars(self, step: int, seconds: float, values: Mapping[str, float]) -> None:
        from mlflow.entities import Metric

        when = int(1000 * seconds)
        self._client.log_batch(self._id, [Metric(_one_slash(name), v, when, step) for name, v in values.items()])

    def note(self, step: int, text: str) -> None:
        self._client.set_tag(self._id, f"event at step {step}", text)

    def rewind(self, step: int) -> None:
        self.note(step, f"the run went back to step {step}: earlier points of later steps are not of its path")

    def end(self, finished: bool) -> None:
        self._client.set_terminated(self._id, "FINISHED" if finished else "KILLED")


def _one_slash(name: str) -> str:
    """MLflow keeps a metric in a file, so that no metric may be called as another one's directory."""
    group, _, rest = name.partition("/")
    return f"{group}/{rest.replace('/', '.')}"


def make_tracker(to: str, into: str | None, project: str, online: bool = False) -> Tracker:
    """The tracker of that name; `into`: a directory, or MLflow's address.  Raises UsageError for another name."""
    if online and to != "wandb":
        raise UsageError(f"--online and --to {to} contradict each other", "Only wandb has a server of its own")
    place = into or f"runs/{to}"
    if to == "mlflow":
        return MLflow(place, project)
    if "://" in place:
        raise UsageError(f"{to} writes into a directory, not to {place}", "Give a path to --into")
    if to == "tensorboard":
        return TensorBoard(Path(place), project)
    if to == "wandb":
        return WeightsAndBiases(Path(place), project, online)
    raise UsageError(f'there is no tracker called "{to}"', "There are tensorboard, wandb and mlflow")
