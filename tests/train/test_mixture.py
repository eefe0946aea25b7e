"""Shares that follow the losses, and shares turned by hand: events of the sample plan, the same after a kill."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from small_run import base_config, base_parents, make_in, train_base
from test_model_kind import stopped_after
from test_offers import adjusted
from test_together import along, several

from wuxing.core.artifact import Artifact
from wuxing.core.context import Context
from wuxing.core.error import Interrupted, UsageError
from wuxing.core.file import read_json, read_lines
from wuxing.data.packing import pack
from wuxing.data.plan import Phase, SamplePlan
from wuxing.data.source import PackedSource
from wuxing.data.tokens import open_tokens
from wuxing.data.tokens_kind import TokensKind
from wuxing.task.task_kind import TaskKind
from wuxing.train.config import ModelConfig
from wuxing.train.model_kind import ModelKind
from wuxing.train.save.share import is_shared
from wuxing.train.trainer import Trainer
from wuxing.train.update.mixture import bounded, by_excess, by_progress, in_percent, with_share
from wuxing.train.watch.adjust import ask

HALF = {"articles": 0.5, "dialogues": 0.5}
FOLLOW = {"rule": "progress", "times": 6, "tokens": 512, "inertia": 0.3}


def test_the_rules_are_their_formulas() -> None:
    shares, before, now = {"a": 0.25, "b": 0.75}, {"a": 2.0, "b": 1.0}, {"a": 1.5, "b": 1.0}
    found = by_excess(shares, now, {"a": 1.2, "b": 1.4}, 2.0)
    assert found["a"] == pytest.approx(0.25 * torch.e**0.6 / (0.25 * torch.e**0.6 + 0.75))
    found = by_progress(shares, {"a": 1, "b": 1}, before, now, 1.0)
    assert found == pytest.approx({"a": 1 / 1.01, "b": 0.01 / 1.01})  # b stood still
    assert by_progress(shares, {"a": 1, "b": 1}, before, before, 1.0) == shares
    worse = by_progress(shares, {"a": 1, "b": 1}, {"a": 1.0, "b": 1.0}, {"a": 1.1, "b": 0.9}, 1.0)
    assert worse["b"] == pytest.approx(3**0.5 / (3**0.5 + 1))  # forgetting counts as learning does


def test_bounds_and_percents_keep_the_sum() -> None:
    found = bounded({"a": 0.90, "b": 0.06, "c": 0.03, "d": 0.01}, 0.05)
    assert min(found.values()) == 0.05 and sum(found.values()) == pytest.approx(1)
    assert found["a"] > found["b"] > found["c"] == found["d"]
    assert bounded({"a": 0.2, "b": 0.8}, 0.5) == {"a": 0.5, "b": 0.5}
    for shares in ({"a": 1 / 3, "b": 1 / 3, "c": 1 / 3}, {"a": 0.996, "b": 0.002, "c": 0.002}, {"a": 0.5, "b": 0.5}):
        whole = in_percent(shares)
        assert round(100 * sum(whole.values())) == 100 and min(whole.values()) >= 0.01
        assert all(abs(whole[name] - share) <= 0.02 for name, share in shares.items())


def source(world: dict[str, Artifact]) -> PackedSource:
    packings = {name: pack(open_tokens(world[name].path, "train"), 64) for name in HALF}
    made = PackedSource(packings, HALF, 7, 8, 8)
    made.ahead = 2
    return made


def test_a_change_is_an_event_of_the_plan(world: dict[str, Artifact]) -> None:
    """Slow truth: a plan that was told of the change beforehand."""
    one = source(world)
    begun = one.digest
    for _ in range(3):
        next(one)
    one.mix(with_share(one, "articles", 0.9))
    pieces = [next(one) for _ in range(4)]
    told = SamplePlan(
        7,
        {name: packing.rows for name, packing in one.packings.items()},
        {name: packing.digest for name, packing in one.packings.items()},
        HALF,
        [Phase(24, {"articles": 0.9, "dialogues": 0.1})],
    )
    assert one.digest == told.digest != begun and one.begun_as == begun
    assert [one.plan[place] for place in range(200)] == [told[place] for place in range(200)]
    assert one.figures["share/articles"] == 0.9
    ids = [sample for step in pieces for piece in step for sample in piece.sample_ids]
    assert ids == list(range(24, 56))
    other = source(world)
    other.load_state_dict(one.state_dict())
    assert other.digest == one.digest
    for mine, theirs in zip(next(one), next(other), strict=True):
        assert torch.equal(mine.tokens_BT, theirs.tokens_BT)


def test_a_share_at_the_first_sample_replaces_that_of_the_recipe(world: dict[str, Artifact]) -> None:
    one = source(world)
    one.mix({"articles": 1.0})
    assert {one.plan[place].data for place in range(100)} == {"articles"}
    one.mix({"dialogues": 1.0})
    assert {one.plan[place].data for place in range(100)} == {"dialogues"} and len(one.events) == 1


def config(**changes: Any) -> dict[str, Any]:
    return base_config(data=HALF, mixture=FOLLOW, **changes)


def shares(directory: Path) -> list[tuple[int, float]]:
    lines = [line for line in read_lines(directory / "log.jsonl") if "mixture" in line]
    return [(line["step"], line["mixture"]["shares"]["articles"]) for line in lines]


@pytest.fixture(scope="module")
def followed(world: dict[str, Artifact], tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    directory = tmp_path_factory.mktemp("mixture") / "base"
    return make_in(directory, ModelKind(), config(), base_parents(world), Context(home=directory))


def test_shares_move_and_are_logged(followed: Artifact) -> None:
    assert followed.record["failures"] == []
    assert [step for step, _ in shares(followed.path)] == [0, 4, 8, 12, 16, 20]
    assert shares(followed.path)[0][1] == 0.5 and {share for _, share in shares(followed.path)} != {0.5}
    lines = {line["step"]: line for line in read_lines(followed.path / "log.jsonl") if "loss" in line}
    for step, share in shares(followed.path)[1:]:
        assert lines[step + 1]["share/articles"] == share


@pytest.mark.parametrize("after", [4, 13])
def test_killed_and_resumed_is_the_same_to_the_bit(
    followed: Artifact, world: dict[str, Artifact], tmp_path: Path, after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    again = config(save_every_seconds=0.001)
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        make_in(tmp_path / "base", ModelKind(), again, base_parents(world), stopped_after(after, patch, tmp_path))
    made = make_in(tmp_path / "base", ModelKind(), again, base_parents(world), Context(home=tmp_path))
    for name in ("model.safetensors", "training.json"):
        assert (made.path / name).read_bytes() == (followed.path / name).read_bytes()
    assert shares(made.path) == shares(followed.path)


def test_a_run_of_two_processes_goes_on_alone_and_is_that_of_one(
    followed: Artifact, world: dict[str, Artifact], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shares, samples and every bit of the weights: what follows the losses must not know how many add them up."""
    again = config(save_every_seconds=0.001)
    with (
        monkeypatch.context() as patch,
        several(stopped_after(13, patch, tmp_path), 2) as context,
        pytest.raises(Interrupted),
    ):
        make_in(tmp_path / "m", ModelKind(), again, base_parents(world), context)
    assert shares(tmp_path / "m") == shares(followed.path)[:4]
    made = make_in(tmp_path / "m", ModelKind(), again, base_parents(world), Context(home=tmp_path))
    assert shares(made.path) == shares(followed.path) and made.record["failures"] == []
    assert (made.path / "model.safetensors").read_bytes() == (followed.path / "model.safetensors").read_bytes()
    one, other = (read_json(path / "training.json") for path in (made.path, followed.path))
    assert one["plan"] == other["plan"] and one["validation"] == other["validation"]
    assert one["passages"][0]["changed"] == {"processes": ["2", "1"]}


def test_a_state_cut_over_two_processes_gives_the_same_file_and_goes_on_as_one(
    followed: Artifact, world: dict[str, Artifact], couple: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    again = config(save_every_seconds=0.001, sharding="shard")
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        stopped = along(stopped_after(13, patch, tmp_path), couple)
        make_in(tmp_path / "m", ModelKind(), again, base_parents(world), stopped)
    assert is_shared(tmp_path / "m" / "checkpoints" / "step-00000013")
    shutil.copytree(tmp_path / "m", tmp_path / "one" / "m")
    made = make_in(tmp_path / "m", ModelKind(), again, base_parents(world), couple)
    alone = make_in(tmp_path / "one" / "m", ModelKind(), again, base_parents(world), Context(home=tmp_path))
    for one in (made, alone):
        assert one.record["failures"] == [] and shares(one.path) == shares(followed.path)
        assert (one.path / "model.safetensors").read_bytes() == (followed.path / "model.safetensors").read_bytes()
        plan, other = (read_json(path / "training.json") for path in (one.path, followed.path))
        assert plan["plan"] == other["plan"] and plan["validation"] == other["validation"]


@pytest.fixture(scope="module")
def foreign(world: dict[str, Artifact], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artifact]:
    """The parents of a run on sentences, which the first model has learnt, and on sums, which it has never seen."""
    root = tmp_path_factory.mktemp("foreign")
    task = {"task": "arithmetic", "operations": [{"operation": "add", "high": 30}]}
    task["examples"] = {"train": 800, "validation": 64, "test": 4}
    arithmetic = make_in(root / "arithmetic", TaskKind(), task, {}, Context(home=root))
    parents = {"tokenizer": world["vocabulary"], "data": arithmetic}
    sums = {"tokenizer": "vocabulary", "data": "arithmetic"}
    found = {
        "data.sums": make_in(root / "sums", TokensKind(), sums, parents, Context(home=root)),
        "data.articles": world["articles"],
    }
    found["start_from"] = train_base(root / "known", world, data={"articles": 1.0}, budget={"steps": 60})
    mixed = base_config(data={"articles": 0.5, "sums": 0.5}, budget={"steps": 90})
    more = {**found, "tokenizer": world["vocabulary"]}
    found["mixture.reference"] = make_in(root / "reference", ModelKind(), mixed, more, Context(home=root))
    return found


@pytest.mark.parametrize("rule", ["progress", "excess"])
def test_what_is_known_gives_way_and_the_rest_is_learnt_better(
    foreign: dict[str, Artifact], tmp_path: Path, rule: str
) -> None:
    """Seeded: one data set was learnt before, the other is new."""
    figures = {}
    follow = {**FOLLOW, "rule": rule}
    follow |= {"reference": "reference"} if rule == "excess" else {}
    plain = {key: value for key, value in base_config().items() if key not in ("architecture", "tokenizer")}
    for name, mixture in (("fixed", None), ("followed", follow)):
        changes = {"start_from": "known", "data": {"articles": 0.5, "sums": 0.5}, "mixture": mixture}
        changes["exact_sums"] = False  # the trajectory that this was written for: 24 steps differ by luck
        made = make_in(tmp_path / name, ModelKind(), plain | changes, foreign, Context(home=tmp_path))
        figures[name] = read_json(made.path / "training.json")["validation"][-1]
    assert shares(tmp_path / "followed")[2][1] < 0.4, shares(tmp_path / "followed")
    fixed, followed = ([line[f"bits_per_byte/{name}"] for name in ("sums", "articles")] for line in figures.values())
    assert followed[0] < fixed[0] - 0.1 and sum(followed) < sum(fixed) - 0.1


def test_a_share_is_turned_by_hand_and_again_after_a_kill(world: dict[str, Artifact], tmp_path: Path) -> None:
    def begin(name: str, steps: int | None) -> Artifact:
        run: Callable[[Trainer], Any] = adjusted(tmp_path / name, 5, **{"share.articles": "0.9"})
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Trainer, "step", run)
            context = Context(home=tmp_path)
            if steps is not None:
                with pytest.raises(Interrupted):
                    again = stopped_after(steps, patch, tmp_path)
                    make_in(tmp_path / name, ModelKind(), plain, base_parents(world), again)
            return make_in(tmp_path / name, ModelKind(), plain, base_parents(world), context)

    plain = base_config(data=HALF, save_every_seconds=0.001)
    straight, killed = begin("straight", None), begin("killed", 9)
    assert (straight.path / "model.safetensors").read_bytes() == (killed.path / "model.safetensors").read_bytes()
    one, other = (read_json(made.path / "training.json") for made in (straight, killed))
    assert one["plan"] == other["plan"] and [line["knob"] for line in one["adjustments"]] == ["share.articles"]
    lines = [line for line in read_lines(straight.path / "log.jsonl") if "loss" in line]
    assert ["share/articles" in line for line in lines] == [line["step"] > 5 for line in lines]
    for knobs, said in (({"share.artikles": "0.2"}, "no share of"), ({"share.articles": "1.5"}, "below 1")):
        with pytest.raises(UsageError, match=said):
            ask(straight.path, knobs, "me", "why", "now")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"mixture": {"rule": "excess"}}, "needs it"),
        ({"mixture": FOLLOW, "phases": [{"after": 0.5, "data": {"articles": 1.0}}]}, "contradict each other"),
        ({"mixture": FOLLOW, "data": {"articles": 1.0}}, "several data sets"),
    ],
)
def test_rules_that_make_no_sense_are_named(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        ModelConfig.model_validate({"make": "model", **base_config(**changes)})
