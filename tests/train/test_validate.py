"""Measuring while training: tasks answered on the way, any figure as the one that counts, and no trace left."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from small_run import base_config, base_parents, make_in
from test_together import several

from wuxing.core.artifact import Artifact
from wuxing.core.context import Context
from wuxing.core.error import RefusedError, UsageError
from wuxing.core.file import read_json, read_lines
from wuxing.train.config import Validation
from wuxing.train.model_kind import ModelKind

ASKED = {"every_steps": 5, "tokens": 1024, "tasks": ["arithmetic"], "reply_tokens": 6, "rows": 4}


def trained(directory: Path, world: dict[str, Artifact], context: Context | None = None, **changes: Any) -> Artifact:
    parents = {**base_parents(world), "validation.arithmetic": world["arithmetic"]}
    return make_in(directory, ModelKind(), base_config(**changes), parents, context or Context(home=directory))


def test_moments() -> None:
    assert Validation(every_steps=5).moments(24) == {5, 10, 15, 20, 24}
    assert Validation(every_steps=30).moments(24) == {24} and Validation(times=3).moments(24) == {8, 16, 24}


def test_tasks_are_answered_on_the_way_and_leave_no_trace(
    base: Artifact, world: dict[str, Artifact], tmp_path: Path
) -> None:
    """Dropout draws, the sample plan and the weights are those of a run that measured less, and other things."""
    asked = trained(tmp_path / "base", world, validation=ASKED)
    assert (asked.path / "model.safetensors").read_bytes() == (base.path / "model.safetensors").read_bytes()
    history = read_json(asked.path / "training.json")["validation"]
    assert [line["step"] for line in history] == [0, 5, 10, 15, 20, 24]
    assert all(0 <= line["accuracy/arithmetic"] <= 1 and line["bits_per_byte"] > 0 for line in history)
    one, other = ([line for line in read_lines(made.path / "log.jsonl") if "loss" in line] for made in (asked, base))
    assert [line["loss"] for line in one] == [line["loss"] for line in other]


def test_any_figure_can_be_the_one_that_counts(base: Artifact, world: dict[str, Artifact], tmp_path: Path) -> None:
    at_8 = read_json(base.path / "training.json")["validation"][1]["bits_per_byte/dialogues"]
    validation = {**ASKED, "every_steps": 8, "metric": "bits_per_byte/dialogues"}
    made = trained(tmp_path / "m", world, validation=validation, keep="best", stop={"target": at_8 + 1e-5})
    training = read_json(made.path / "training.json")
    assert training["ended"].startswith("the target") and training["steps"] == training["kept_step"] == 8
    assert made.evidence.value("held_out_improved") == training["validation"][1]["bits_per_byte/dialogues"]
    backwards = {**ASKED, "metric": "accuracy/arithmetic"}
    stopped = trained(tmp_path / "n", world, validation=backwards, stop={"target": 0.0})
    assert read_json(stopped.path / "training.json")["steps"] == 0  # 0.0 and more is reached at once


def test_two_processes_answer_as_one(world: dict[str, Artifact], tmp_path: Path) -> None:
    figures = []
    for processes in (1, 2):
        with several(Context(home=tmp_path), processes) as context:
            directory = tmp_path / f"m{processes}"
            made = trained(directory, world, context, validation=ASKED, budget={"steps": 1})
            figures.append(read_json(made.path / "training.json")["validation"][0])
    assert figures[0] == figures[1]


def test_a_figure_that_nothing_measures_is_named(world: dict[str, Artifact], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nothing measures"):
        trained(tmp_path / "m", world, validation={**ASKED, "metric": "accuracy/arithmetics"})
    with pytest.raises(RefusedError, match="fits into 64 positions"):
        trained(tmp_path / "n", world, validation={**ASKED, "reply_tokens": 63})


MEASURE = """
import sys
sys.path.insert(0, sys.argv[1])
import numpy as np, torch
from pathlib import Path
from wuxing.data.packing import Row
from wuxing.model.architecture import Architecture, resolve
from wuxing.model.network import Network
from wuxing.train.plan.memory import Watch
from wuxing.train.validate import BitsPerByte

class Words:
    special_ids = frozenset({0})
    token_bytes = [b"x"] * 100_000

class Rows:
    rows = 16
    def __getitem__(self, row):
        ids = np.random.default_rng(row).integers(1, 100_000, 513)
        return Row(ids[:-1], ids[1:], np.arange(512), np.zeros(512, np.int64))

torch.set_num_threads(1)
network = Network(resolve(Architecture(size="4m", width=32, layers=2), 100_000)).initialise(1)
watch = Watch()
BitsPerByte({"a": Rows()}, Words(), 512, 8192, torch.float32)(network)
print(watch.peak())
"""


def test_logits_are_never_held() -> None:
    """8,192 positions of a vocabulary of 100,000 would be 3.3 GB of logits at once."""
    command = [sys.executable, "-c", MEASURE, str(Path(__file__).parent)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert int(done.stdout) < 300 << 20
