"""Golden losses: the first steps of each objective, in fp32, as they were recorded.

    python tests/train/test_golden.py        records them anew (after a change that is meant to change them)

Another processor, number of threads or release of torch adds in another order.  Cutting steps into pieces of one row,
which reorders every sum of the gradient, moves these losses by 1e-7 at most, relative; two threads, or no oneDNN, by
nothing.  TOLERANCE leaves 200 times that to other instruction sets; the smallest planted change below moves a loss by
more than three times TOLERANCE.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from small_run import base_config, base_parents, build_world, signed, solver_config

from wuxing.core.artifact import Artifact
from wuxing.core.context import Context
from wuxing.core.step import Draft
from wuxing.generate import engine
from wuxing.model.files import save_network
from wuxing.train.config import ModelConfig
from wuxing.train.make import Setting, begin
from wuxing.train.plan.budget import Start
from wuxing.train.plan.memory import Watch
from wuxing.train.run import Run
from wuxing.train.update import optimizer

IN_BF16 = (engine, optimizer)
"""What multiplies in bf16 of its own accord, where the machine has it."""
GOLDEN = Path(__file__).with_name("golden.json")
TOLERANCE = 2e-5
STEPS = {"pretrain": 10, "tuning": 10, "grpo": 4}
MUON = {"learning_rate": 0.01, "embedding_rate": 2.0}


def run_of(directory: Path, config: dict[str, Any], parents: Mapping[str, Artifact], steps: int, seed: int = 7) -> Run:
    """A run in fp32, at its first step."""
    directory.mkdir(parents=True, exist_ok=True)
    draft = Draft(directory, "model", directory.name, "0" * 64, seed)
    whole = ModelConfig.model_validate({"make": "model", **config})
    setting = Setting(whole, parents, draft, Context(home=directory), torch.device("cpu"), 0.0)
    start = Start(steps, 1, "cpu", "float32", False, 0.0, 0.0, 0.0, 0, {})
    torch.manual_seed(seed)
    return begin(setting, start, Watch())


def losses(run: Run, steps: int) -> list[float]:
    """Of replies the entropy: their loss is a difference around zero, in which nothing but rounding may be left."""
    reports = [run.trainer.step() for _ in range(steps)]
    return [float(f"{report.figures.get('entropy', report.loss):.9g}") for report in reports]


def recorded(root: Path, world: dict[str, Artifact], **changes: Any) -> dict[str, list[float]]:
    """The losses of each objective; the tuning and the replies go on from what was pretrained."""
    parents = base_parents(world)
    config = base_config(optimizer=MUON, objective={"next_token": {"smoothing": 0.05, "z_weight": 1e-3}})
    run = run_of(root / "base", config | changes, parents, STEPS["pretrain"])
    found = {"pretrain": losses(run, STEPS["pretrain"])}
    save_network(run.trainer.network, root / "base")
    for file in world["vocabulary"].path.iterdir():
        (root / "base" / file.name).write_bytes(file.read_bytes())
    start = signed(root / "base", "model", "base")
    tuning = base_config(start_from="base", data={"dialogues": 1.0}, dropout=0.1)
    tuning["optimizer"] = {"kind": "adamw", "learning_rate": 0.002, "embedding_rate": 1.0}
    tuning = {key: value for key, value in tuning.items() if key not in ("architecture", "tokenizer")}
    chat = {"start_from": start, "data.dialogues": world["dialogues"]}
    found["tuning"] = losses(run_of(root / "chat", tuning | changes, chat, STEPS["tuning"]), STEPS["tuning"])
    solver = solver_config(optimizer={"learning_rate": 0.002, "embedding_rate": 1.0}, **changes)
    task = {"start_from": start, "task": world["arithmetic"]}
    found["grpo"] = losses(run_of(root / "solver", solver, task, STEPS["grpo"]), STEPS["grpo"])
    return found


def worst(one: list[float], other: list[float]) -> float:
    """Largest relative difference."""
    return max(abs(a / b - 1) for a, b in zip(one, other, strict=True))


@pytest.fixture(autouse=True)
def in_fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in IN_BF16:
        monkeypatch.setattr(module, "pick_precision", lambda device: torch.float32)


def test_losses_are_those_that_were_recorded(world: dict[str, Artifact], tmp_path: Path) -> None:
    golden, found = json.loads(GOLDEN.read_text()), recorded(tmp_path, world)
    assert golden.keys() == found.keys()
    for name, expected in golden.items():
        assert worst(found[name], expected) < TOLERANCE, (name, found[name], expected)


@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer": {"learning_rate": 0.0101, "embedding_rate": 2.0}},
        {"optimizer": MUON | {"weight_decay": 0.2}},
        {"objective": {"next_token": {"smoothing": 0.051, "z_weight": 1e-3}}},
        {"document_mask": False},
    ],
    ids=["rate", "decay", "smoothing", "mask"],
)
def test_a_small_change_is_seen(changes: dict[str, Any], world: dict[str, Artifact], tmp_path: Path) -> None:
    config = base_config(optimizer=MUON, objective={"next_token": {"smoothing": 0.05, "z_weight": 1e-3}})
    run = run_of(tmp_path / "base", config | changes, base_parents(world), STEPS["pretrain"])
    golden = json.loads(GOLDEN.read_text())["pretrain"]
    assert worst(losses(run, STEPS["pretrain"]), golden) > 3 * TOLERANCE


if __name__ == "__main__":
    torch.set_num_threads(1)
    for one in IN_BF16:
        one.pick_precision = lambda device: torch.float32
    with tempfile.TemporaryDirectory() as place:
        made = recorded(Path(place) / "runs", build_world(Path(place) / "world"))
    GOLDEN.write_text(json.dumps(made, indent=1) + "\n")
    print(f"wrote {GOLDEN}")
