"""Rewards and tasks where the state is cut over processes: each draws its replies from a whole copy."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from small_run import base_config, base_parents, make_in, solver_config, train_solver
from test_model_kind import stopped_after
from test_replay import trained
from test_together import TOLERANCE, along, difference

from wuxing.core.artifact import Artifact
from wuxing.core.context import Context
from wuxing.core.error import Interrupted
from wuxing.core.file import read_json, read_lines
from wuxing.train.model_kind import ModelKind
from wuxing.train.run import ROLLOUTS
from wuxing.train.save.replay import replay
from wuxing.train.save.share import is_shared

CUT = {"sharding": "shard", "budget": {"steps": 6}}


@pytest.fixture(scope="module")
def solver(couple: Context, world: dict[str, Artifact], base: Artifact) -> tuple[Artifact, dict[str, Artifact]]:
    """Six steps of rewards with half of the state on each of two processes."""
    parents = {"start_from": base, "task": world["arithmetic"]}
    return trained(couple.home / "solver", solver_config(**CUT, keep_for_replay=1), parents, couple)


def failures(made: Artifact) -> list[str]:
    """Of its evidence, but for sums being learnt: six steps of so small a model teach none."""
    return [failure for failure in made.record["failures"] if not failure.startswith("held_out_improved")]


def replies(directory: Path) -> list[dict[str, Any]]:
    return read_lines(directory / ROLLOUTS)


def test_replies_are_those_of_whole_processes(
    solver: tuple[Artifact, dict[str, Artifact]], couple: Context, world: dict[str, Artifact], base: Artifact
) -> None:
    model, _ = solver
    whole = train_solver(couple.home / "whole", world, base, couple, **{**CUT, "sharding": "replicate"})
    alone = train_solver(couple.home / "alone", world, base, **CUT)
    assert read_json(model.path / "start.json")["topology"]["shards"] == 2 and failures(model) == []
    mine, theirs, single = (replies(one.path) for one in (model, whole, alone))
    assert mine[:16] == theirs[:16]  # of the first step: the weights are the same, so every bit is
    places = [[(line["step"], line["sample"], line["id"]) for line in lines] for lines in (mine, theirs, single)]
    assert places[0] == places[1] == places[2] and len(mine) == 6 * 16
    same = sum(one["reply"] == other["reply"] for one, other in zip(mine, theirs, strict=True))
    assert same > 0.8 * len(mine), same  # all of them here; another last bit of a weight may turn a token
    assert difference(model.path, whole.path) < TOLERANCE
    assert difference(model.path, alone.path) < TOLERANCE


def test_killed_and_resumed_is_the_same_to_the_bit_and_goes_on_alone(
    solver: tuple[Artifact, dict[str, Artifact]],
    couple: Context,
    world: dict[str, Artifact],
    base: Artifact,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = solver[0]
    with monkeypatch.context() as patch, pytest.raises(Interrupted, match="step 4"):
        train_solver(tmp_path / "solver", world, base, along(stopped_after(4, patch, tmp_path), couple), **CUT)
    assert is_shared(tmp_path / "solver" / "checkpoints" / "step-00000004")
    shutil.copytree(tmp_path / "solver", tmp_path / "one" / "solver")
    again = train_solver(tmp_path / "solver", world, base, couple, **CUT)
    for name in ("model.safetensors", ROLLOUTS):
        assert (again.path / name).read_bytes() == (model.path / name).read_bytes()
    alone = train_solver(tmp_path / "one" / "solver", world, base, Context(home=tmp_path), **CUT)
    assert failures(alone) == [] and difference(alone.path, model.path) < TOLERANCE
    assert [line["sample"] for line in replies(alone.path)] == [line["sample"] for line in replies(model.path)]
    assert replies(alone.path)[:64] == replies(model.path)[:64]


def test_one_process_began_and_two_go_on_with_half_each(
    solver: tuple[Artifact, dict[str, Artifact]],
    couple: Context,
    world: dict[str, Artifact],
    base: Artifact,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as patch, pytest.raises(Interrupted, match="step 4"):
        train_solver(tmp_path / "solver", world, base, stopped_after(4, patch, tmp_path), **CUT)
    assert not is_shared(tmp_path / "solver" / "checkpoints" / "step-00000004")
    made = train_solver(tmp_path / "solver", world, base, couple, **CUT)
    assert failures(made) == [] and difference(made.path, solver[0].path) < TOLERANCE


def test_two_processes_replay_it(solver: tuple[Artifact, dict[str, Artifact]], tmp_path: Path) -> None:
    model, parents = solver
    found = replay(model, parents, 3, Context(home=tmp_path), 3)
    assert (found.differences, found.until, found.last, found.processes) == ([], "", 6, 2) and found.weights


def test_more_processes_than_prompts_have_something_to_do(
    couple: Context, world: dict[str, Artifact], base: Artifact
) -> None:
    """The second one draws nothing, and goes through all passes with the first."""
    rollout = {"prompts": 1, "group": 4, "reply_tokens": 6, "reward": {"correct": 1.0, "answered": 0.5}}
    few = {**CUT, "budget": {"steps": 2}, "rollout": rollout}
    one = train_solver(couple.home / "few", world, base, couple, **few)
    other = train_solver(couple.home / "few-alone", world, base, **few)
    assert replies(one.path)[:4] == replies(other.path)[:4] and difference(one.path, other.path) < TOLERANCE


def test_tasks_are_answered_by_a_network_that_is_cut(
    couple: Context, world: dict[str, Artifact], tmp_path: Path
) -> None:
    validation = {"times": 1, "tokens": 512, "tasks": ["arithmetic"], "prompts": 9, "reply_tokens": 6}
    config = base_config(validation=validation, budget={"steps": 4})
    parents = {**base_parents(world), "validation.arithmetic": world["arithmetic"]}
    cut = make_in(couple.home / "asked", ModelKind(), {**config, "sharding": "shard"}, parents, couple)
    whole = make_in(tmp_path / "asked", ModelKind(), config, parents, Context(home=tmp_path))
    ours, others = (read_json(one.path / "training.json")["validation"] for one in (cut, whole))
    for name in ("accuracy/arithmetic", "reply_tokens/arithmetic"):
        assert ours[0][name] == others[0][name]  # before the first step: the same bits
    assert difference(cut.path, whole.path) < TOLERANCE
