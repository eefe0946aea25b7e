"""Shares that follow the losses, and shares turned by hand: events of the sample plan, the same after a kill."""

from __future__ import annotations

import shutil
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from small_run import base_config, base_parents, make_in, signed
from test_model_kind import stopped_after
from test_offers import adjusted
from test_together import along
from torch import Tensor

from wuxing.core.artifact import Artifact
from wuxing.core.context import Context
from wuxing.core.error import Interrupted, UsageError
from wuxing.core.file import read_json, read_lines
from wuxing.core.record import Record
from wuxing.core.splits import write_records
from wuxing.data.packing import pack
from wuxing.data.plan import Phase, SamplePlan
from wuxing.data.source import PackedSource
from wuxing.data.tokens import open_tokens
from wuxing.data.tokens_kind import TokensKind
from wuxing.train.assemble import Parts, assemble, mixer_of
from wuxing.train.config import ModelConfig
from wuxing.train.model_kind import ModelKind
from wuxing.train.save.share import is_shared
from wuxing.train.trainer import Trainer
from wuxing.train.update import mixture
from wuxing.train.update.law import settled
from wuxing.train.update.mixture import bounded, by_excess, by_progress, in_percent, normalised, with_share
from wuxing.train.update.optimizer import Optimizer
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
    followed: Artifact, world: dict[str, Artifact], couple: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shares, samples and every bit of the weights: what follows the losses must not know how many add them up."""
    again = config(save_every_seconds=0.001)
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        stopped = along(stopped_after(13, patch, tmp_path), couple)
        make_in(tmp_path / "m", ModelKind(), again, base_parents(world), stopped)
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
    again = config(sharding="shard")
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


def verses(count: int) -> list[str]:
    """A book of 40 verses of made-up words, over and over: to be learnt by heart, a little with every pass."""
    draw = Random("verses")
    syllables = [a + b for a in "bcdfgklmnprst" for b in "aeiou"]
    book = [" ".join("".join(draw.choices(syllables, k=2)) for _ in range(12)) + "." for _ in range(40)]
    return [book[number % len(book)] for number in range(count)]


STEPS, SEEDS = 60, (1, 2, 3)
BOTH = {"articles": 0.5, "verses": 0.5}
GAIN = 0.03
"""Bits per byte: 0.07 measured, and none with the shares reversed."""


@dataclass
class World:
    """Sentences that are known, and verses that nobody has seen."""

    parents: dict[str, Artifact]
    known: dict[str, Tensor]
    """The weights of a network that has learnt the sentences."""

    def end(self, seed: int, mixture: dict[str, Any] | None) -> tuple[dict[str, float], list[float]]:
        """Held-out bits per byte of each data set after training on halves, and the shares that the verses had."""
        plain = base_config(data=BOTH, mixture=mixture, budget={"steps": STEPS}, exact_sums=False)
        config = ModelConfig.model_validate({"make": "model", **plain})
        parts = assemble(config, self.parents, seed, torch.device("cpu"), torch.float32, None)
        parts.network.load_state_dict(self.known)
        trainer = trainer_of(config, parts)
        mixer, shares = mixer_of(config, self.parents, parts), []
        while trainer.done < STEPS:
            if mixer is not None and mixer.due(trainer.done, STEPS):
                mixer.turn(trainer.network, trainer.source)
                shares.append(mixer.shares["verses"])
            trainer.step()
        figures = parts.validate(trainer.network)
        return {name: figures[f"bits_per_byte/{name}"] for name in ("articles", "verses")}, shares


def trainer_of(config: ModelConfig, parts: Parts) -> Trainer:
    optimizer = Optimizer(parts.network, settled(config), 0.01)
    return Trainer(parts.network, parts.source, parts.objective, optimizer, config.schedule, STEPS)


@pytest.fixture(scope="module")
def known(world: dict[str, Artifact], tmp_path_factory: pytest.TempPathFactory) -> World:
    root = tmp_path_factory.mktemp("known")
    (root / "verses").mkdir()
    for split, count in {"train": 400, "validation": 40, "test": 40}.items():
        records = [Record(f"{split}-{i}", "verses", text=text) for i, text in enumerate(verses(count))]
        write_records(root / "verses", split, records)
    parents = {"tokenizer": world["vocabulary"], "data": signed(root / "verses", "corpus", "verses")}
    tokens = {"tokenizer": "vocabulary", "data": "verses"}
    book = make_in(root / "tokens", TokensKind(), tokens, parents, Context(home=root))
    config = ModelConfig.model_validate({"make": "model", **base_config(data={"articles": 1.0})})
    parts = assemble(config, base_parents(world), 5, torch.device("cpu"), torch.float32, None)
    trainer = trainer_of(config, parts)
    while trainer.done < STEPS:
        trainer.step()
    return World({**base_parents(world), "data.verses": book}, parts.network.state_dict())


def mean(found: list[tuple[dict[str, float], list[float]]]) -> float:
    """Over both data sets and all seeds."""
    return statistics.mean(value for figures, _ in found for value in figures.values())


PROGRESS = {"rule": "progress", "times": 10, "tokens": 1024}


@pytest.fixture(scope="module")
def fixed(known: World) -> list[tuple[dict[str, float], list[float]]]:
    """What halves lead to."""
    return [known.end(seed, None) for seed in SEEDS]


def test_what_is_known_gives_way_to_what_is_being_learnt(
    known: World, fixed: list[tuple[dict[str, float], list[float]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three seeds, each against fixed shares and against the rule with its shares reversed."""
    followed = [known.end(seed, PROGRESS) for seed in SEEDS]
    for (before, _), (after, shares) in zip(fixed, followed, strict=True):
        assert shares[0] == 0.5 and statistics.mean(shares[1:]) > 0.6
        assert after["verses"] < before["verses"]
    assert mean(followed) < mean(fixed) - GAIN, (mean(followed), mean(fixed))

    def turned(*given: Any) -> dict[str, float]:
        return normalised({name: 1 / share for name, share in by_progress(*given).items()})

    monkeypatch.setattr(mixture, "by_progress", turned)
    assert mean([known.end(seed, PROGRESS) for seed in SEEDS[:2]]) > mean(fixed[:2]) - GAIN


def test_what_lies_above_a_reference_model_gets_more(
    known: World, fixed: list[tuple[dict[str, float], list[float]]], tmp_path: Path
) -> None:
    halves = base_config(data=BOTH, budget={"steps": STEPS})
    reference = make_in(tmp_path / "reference", ModelKind(), halves, known.parents, Context(home=tmp_path))
    beside = World({**known.parents, "mixture.reference": reference}, known.known)
    followed = [beside.end(seed, {**PROGRESS, "rule": "excess", "reference": "reference"}) for seed in SEEDS[:2]]
    for (before, _), (after, shares) in zip(fixed, followed, strict=False):
        assert shares[0] == 0.5 and statistics.mean(shares[1:]) > 0.6 and after["verses"] < before["verses"]


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
