"""Batch-size and sequence-length warm-up: the same samples in the same order, whatever a step takes of them."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from small_run import base_config, base_parents, make_in
from test_model_kind import stopped_after
from test_together import TOLERANCE, difference, several

from wuxing.core.artifact import Artifact
from wuxing.core.context import Context
from wuxing.core.error import Interrupted
from wuxing.core.file import read_json, read_lines
from wuxing.data.batch import Batch
from wuxing.data.packing import pack
from wuxing.data.plan import Stage
from wuxing.data.source import PackedSource
from wuxing.data.tokens import open_tokens
from wuxing.model.network import Network
from wuxing.objective.next_token import NextToken
from wuxing.train.config import Budget, ModelConfig
from wuxing.train.model_kind import ModelKind
from wuxing.train.plan.budget import Start
from wuxing.train.plan.outcome import forecast
from wuxing.train.plan.ramp import Span, first_sample, resolve, spans_of
from wuxing.train.save.replay import replay
from wuxing.train.update.dropout import Dropout, dropped
from wuxing.train.update.schedule import Schedule
from wuxing.train.watch.left import run_left

BATCHES = [{"until": 0.2, "batch_tokens": 128}, {"until": 0.5, "batch_tokens": 256}]
LENGTHS = [{"until": 0.3, "length_tokens": 16}, {"until": 0.6, "length_tokens": 32}]


def config(**changes: Any) -> dict[str, Any]:
    """Text only: dialogues cannot be cut."""
    return base_config(data={"articles": 1.0}, **changes)


def test_spans_join_both_ramps() -> None:
    spans = spans_of(ModelConfig.model_validate({"make": "model", **config(batch_ramp=BATCHES, length_ramp=LENGTHS)}))
    assert spans == [Span(0.2, 2, 4), Span(0.3, 4, 4), Span(0.5, 4, 2), Span(0.6, 8, 2), Span(1.0, 8, 1)]


@pytest.mark.parametrize(
    ("budget", "plain"), [({"steps": 100}, 100), ({"tokens": 40_000}, 79), ({"epochs": 2}, 75), ({"minutes": 1}, 90)]
)
def test_a_budget_is_spent_to_a_step(budget: dict[str, float], plain: int) -> None:
    """By hand: walk through the stages step by step, and count."""
    spans, seconds = [Span(0.2, 2), Span(0.5, 4), Span(1.0, 8)], [0.3, 0.5, 0.8]
    steps, stages = resolve(Budget.model_validate(budget), plain, spans, 64, 300.0, seconds)
    place, taken, spent = 0, [], 0.0
    for step in range(steps):
        assert first_sample(stages, 8, step) == place
        stage = [stage for stage in stages if stage.start <= place][-1]
        taken.append(stage.rows)
        place, spent = place + stage.rows, spent + {2: 0.3, 4: 0.5, 8: 0.8}[stage.rows]
    assert taken == sorted(taken)
    for (begin, end), span in zip(pairwise([0.0, 0.2, 0.5, 1.0]), spans, strict=True):
        share = sum(rows for rows in taken if rows == span.rows) / place
        assert abs(share - (end - begin)) <= 16 / place
    if "steps" in budget:
        assert steps == 100
    if "tokens" in budget:
        assert 40_000 <= place * 64 < 40_000 + 8 * 64
    if "epochs" in budget:
        assert 600 <= place < 608
    if "minutes" in budget:
        assert plain * 0.8 - 2 * 0.8 < spent <= plain * 0.8 + 0.8


def test_a_span_without_room_for_a_step_is_passed_over() -> None:
    steps, stages = resolve(Budget(steps=3), 3, [Span(0.01, 2), Span(0.02, 4), Span(1.0, 8)], 64, 1.0)
    assert (steps, stages) == (3, [Stage(0, 8)])


def source(world: dict[str, Artifact], stages: list[Stage], ahead: int = 0, rank: int = 0, ranks: int = 1) -> Any:
    packings = {"articles": pack(open_tokens(world["articles"].path, "train"), 64)}
    made = PackedSource(packings, {"articles": 1.0}, 7, 8, 3, rank, ranks)
    made.stages, made.ahead = stages, ahead
    return made


STAGES = [Stage(0, 2, 4), Stage(6, 4, 2), Stage(14, 8)]


def taken(pieces: list[Batch]) -> list[int]:
    return [sample for piece in pieces for sample in piece.sample_ids]


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_every_sample_comes_once_in_the_order_of_the_plan(world: dict[str, Artifact], ranks: int) -> None:
    sources = [source(world, STAGES, ahead=2, rank=rank, ranks=ranks) for rank in range(ranks)]
    seen = [sorted({sample for one in sources for sample in taken(next(one))}) for _ in range(7)]
    assert seen == [[0, 1], [2, 3], [4, 5], [6, 7, 8, 9], [10, 11, 12, 13], [*range(14, 22)], [*range(22, 30)]]
    plain = source(world, [])
    assert sources[0].digest == plain.digest
    assert sources[0].figures["batch_share"] == 1.0


def test_a_source_goes_on_from_any_place(world: dict[str, Artifact]) -> None:
    straight = source(world, STAGES, ahead=2)
    for turn in range(6):
        other = source(world, STAGES, ahead=turn % 2)
        other.load_state_dict(straight.state_dict())
        for mine, theirs in zip(next(straight), next(other), strict=True):
            assert torch.equal(mine.tokens_BT, theirs.tokens_BT) and mine.sample_ids == theirs.sample_ids
            assert mine.tokens_BT.shape == theirs.tokens_BT.shape


def test_a_cut_row_is_its_parts_alone(world: dict[str, Artifact]) -> None:
    """Slow truth: each part of each row by itself, a document at a time, through the plain network."""
    whole = source(world, []).batch([3, 4])
    cut = whole.cut(4)
    assert cut.tokens_BT.shape == (8, 16) and cut.sample_ids == [3] * 4 + [4] * 4
    assert torch.equal(cut.labels_BT.reshape(2, 64), whole.labels_BT)
    network = network_of_test()
    together = network.hidden(cut.tokens_BT, cut.positions_BT, cut.documents_BT)
    for row in range(8):
        documents_T = cut.documents_BT[row]
        for number in documents_T.unique().tolist():
            place_T = (documents_T == number).nonzero().squeeze(-1)
            alone_TD = network.hidden(cut.tokens_BT[row, place_T][None])[0]
            torch.testing.assert_close(together[row, place_T], alone_TD, rtol=1e-4, atol=1e-5)


def network_of_test() -> Network:
    from wuxing.model.architecture import Architecture
    from wuxing.model.architecture import resolve as shape_of

    return Network(shape_of(Architecture(size="60k", width=32, layers=2, max_positions=64), 400)).initialise(3)


def test_dropout_of_parts_does_not_depend_on_the_cutting_into_pieces(world: dict[str, Artifact]) -> None:
    one, network = source(world, STAGES), network_of_test()
    batch = one.batch([0, 1]).cut(4)
    states = []
    for pieces in ([batch], batch.pieces(4)):
        found = []
        for piece in pieces:
            with dropped(network, Dropout(0.5, 7), 0, piece.sample_ids):
                found.append(network.hidden(piece.tokens_BT, piece.positions_BT, piece.documents_BT))
        states.append(torch.cat(found))
    torch.testing.assert_close(states[0], states[1], rtol=1e-5, atol=1e-6)
    mask = Dropout(0.5, 7).mask
    device = torch.device("cpu")
    assert not torch.equal(mask(0, 0, 0, 16, 32, device, 0), mask(0, 0, 0, 16, 32, device, 1))


def test_the_rate_follows_the_batch() -> None:
    assert [Schedule(batch_law=law).of_batch(0.25) for law in ("sqrt", "linear", "none")] == [0.5, 0.25, 1.0]


RAMPS = {"batch_ramp": BATCHES, "length_ramp": LENGTHS, "dropout": 0.1, "schedule": {"shape": "constant"}}


@pytest.fixture(scope="module")
def ramped(world: dict[str, Artifact], tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    directory = tmp_path_factory.mktemp("ramp") / "base"
    changes = {**RAMPS, "keep_for_replay": 2}
    return make_in(directory, ModelKind(), config(**changes), base_parents(world), Context(home=directory))


def test_the_log_counts_what_was_learnt(ramped: Artifact) -> None:
    assert ramped.record["failures"] == []
    lines = [line for line in read_lines(ramped.path / "log.jsonl") if "loss" in line]
    sizes = [round(512 * line["batch_share"]) for line in lines]
    assert len(lines) == 24 and sizes == sorted(sizes) and {*sizes} == {128, 256, 512}
    for line, size in zip(lines, sizes, strict=True):
        assert size - 64 <= line["tokens"] <= size
        if line["step"] > 1:  # the only step of the warm-up
            assert line["learning_rate"] == pytest.approx(0.01 * (size / 512) ** 0.5)
    assert read_json(ramped.path / "training.json")["positions"] == sum(line["tokens"] for line in lines)
    assert {line["row_share"] for line in lines} == {0.25, 0.5, 1.0}


def test_the_time_left_follows_the_rows_that_a_real_run_took(ramped: Artifact) -> None:
    """Each step of its log is charged what its rows cost, on a clock without noise: what is promised after any
    step holds what the rows after it cost, and once every size was seen the middle of it is that to the last digit."""
    start = Start.read(ramped.path)
    lines = [dict(line) for line in read_lines(ramped.path / "log.jsonl")]
    steps = [line for line in lines if "loss" in line]
    assert start is not None and len(steps) == start.steps
    cost = [8 * line["batch_share"] * (1 - start.attention_share * (1 - line["row_share"])) for line in steps]
    for line in lines:
        line["seconds"] = cost[line["step"] - 1] if "loss" in line else 0.0
    last_size = next(place for place in range(len(cost)) if len(set(cost[: place + 1])) == len(set(cost)))
    assert len(set(cost)) == 5 and last_size < len(cost) - 1
    middles = 0
    for at in range(1, len(steps)):
        cut = next(place for place, line in enumerate(lines) if "loss" in line and line["step"] == at) + 1
        found, rest = run_left(lines[:cut], start, len(steps)), sum(cost[at:])
        assert found is not None and found[0] <= rest <= found[1], at
        if at > last_size and found[0] > 0:
            assert sum(found) / 2 == pytest.approx(rest)
            middles += 1
    assert middles >= 2
    counted = sum(cost[:8]) / 8 * len(steps)
    planned = forecast(lines, len(steps), start)
    assert abs(planned / sum(cost) - 1) < 0.25 < abs(counted / sum(cost) - 1)


@pytest.mark.parametrize("after", [2, 9])
def test_killed_and_resumed_is_the_same_to_the_bit(
    ramped: Artifact, world: dict[str, Artifact], tmp_path: Path, after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    again = config(**RAMPS, save_every_seconds=0.001)
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        make_in(tmp_path / "m", ModelKind(), again, base_parents(world), stopped_after(after, patch, tmp_path))
    made = make_in(tmp_path / "m", ModelKind(), again, base_parents(world), Context(home=tmp_path))
    assert (made.path / "model.safetensors").read_bytes() == (ramped.path / "model.safetensors").read_bytes()


def test_a_replay_from_the_middle_finds_the_same(ramped: Artifact, world: dict[str, Artifact], tmp_path: Path) -> None:
    recorded = {"make": "model", **config(**RAMPS, keep_for_replay=2)}
    ramped.record.update(config=recorded, seed=7, slice={"seed": 7, "config": recorded}, fingerprint="0" * 64)
    ramped.record["kind"], ramped.record["name"] = "model", "base"
    found = replay(ramped, base_parents(world), 6, Context(home=tmp_path), first=8)
    assert found.differences == [] and found.last == 14


def test_two_processes_learn_the_same(ramped: Artifact, world: dict[str, Artifact], tmp_path: Path) -> None:
    with several(Context(home=tmp_path), 2) as context:
        made = make_in(tmp_path / "m", ModelKind(), config(**RAMPS), base_parents(world), context)
    lines = [
        [(line["step"], line["tokens"], line["taught"]) for line in read_lines(path / "log.jsonl") if "loss" in line]
        for path in (made.path, ramped.path)
    ]
    assert lines[0] == lines[1] and difference(made.path, ramped.path) < TOLERANCE


def test_minutes_are_turned_into_stages_once(world: dict[str, Artifact], tmp_path: Path) -> None:
    made = make_in(
        tmp_path / "m", ModelKind(), config(batch_ramp=BATCHES, budget={"minutes": 0.1}), base_parents(world),
        Context(home=tmp_path),
    )  # fmt: skip
    start, training = read_json(made.path / "start.json"), read_json(made.path / "training.json")
    assert training["steps"] == start["steps"] and [rows for _, rows, _ in start["stages"]][-1] == 8


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"batch_ramp": BATCHES[::-1]}, "sort them by until"),
        ({"batch_ramp": [{"until": 0.2, "batch_tokens": 1024}]}, "must rise from stage to stage of batch_ramp"),
        ({"batch_ramp": [{"until": 0.2, "batch_tokens": 32}]}, "begins below length_tokens"),
        ({"length_ramp": [{"until": 0.2, "length_tokens": 48}]}, "48 does not divide 64"),
        ({"length_ramp": LENGTHS, "whole_documents": True}, "contradict each other"),
    ],
)
def test_ramps_that_make_no_sense_are_named(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        ModelConfig.model_validate({"make": "model", **config(**changes)})


def test_dialogues_are_not_cut(world: dict[str, Artifact], tmp_path: Path) -> None:
    from wuxing.core.error import WuxingError

    mixed = base_config(length_ramp=LENGTHS)
    with pytest.raises(WuxingError, match="dialogues holds whole documents"):
        make_in(tmp_path / "m", ModelKind(), mixed, base_parents(world), Context(home=tmp_path))


def test_the_objective_does_not_change_by_a_cut(world: dict[str, Artifact]) -> None:
    whole = source(world, []).batch([1])
    assert int(NextToken().count(whole)) == int(NextToken().count(whole.cut(4)))
