"""Plans of reinforcement learning: what drawing replies holds, how many at once fit, and what is said where none do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from small_run import solver_config, train_solver

from wuxing.compute.estimate import Machine
from wuxing.core.artifact import Artifact
from wuxing.core.error import WuxingError
from wuxing.core.file import read_json, read_lines
from wuxing.generate.engine import Engine
from wuxing.model.architecture import Architecture, resolve
from wuxing.model.network import Network
from wuxing.task.task import load_task
from wuxing.text.tokenizer import Tokenizer
from wuxing.train.config import ModelConfig
from wuxing.train.plan import fit as fitting
from wuxing.train.plan.drawing import drawing_bytes, drawings, requests
from wuxing.train.plan.estimate import MADE_UP, TRIED, estimate_step
from wuxing.train.plan.fit import fit_to_memory
from wuxing.train.plan.memory import plan_run
from wuxing.train.plan.probe import top
from wuxing.train.plan.reply import passes, taught_rows, width_of
from wuxing.train.rollout import Lengths, lengths_of

TASK = Lengths(20, 34, 100)
ROLLOUT = {"prompts": 32, "group": 8, "reply_tokens": 16}


def _config(**changes: Any) -> ModelConfig:
    config = {
        "make": "model",
        "start_from": "base",
        "task": "arithmetic",
        "objective": "grpo",
        "rollout": ROLLOUT,
        "length_tokens": 64,
        "budget": {"steps": 4},
    }
    return ModelConfig.model_validate(config | changes)


def _shape(layers: int = 6) -> dict[str, Any]:
    return resolve(Architecture.model_validate({"size": "400k", "width": 64, "layers": layers}), 512)


def test_engines_of_two_layers_say_what_one_of_six_holds() -> None:
    """Whole replies of an engine over six layers, and what three tokens of engines over one and two let expect."""
    asked = drawings(_config(), _shape(), "cpu", TASK)[0]
    engine = Engine(Network(_shape()).initialise(1), max_rows=asked.rows, max_tokens=asked.length)
    real = top(lambda: [reply.tokens for reply in engine.generate(requests(asked, 16))])
    planned, measured = drawing_bytes(asked, True)
    assert measured and planned == pytest.approx(real, rel=0.03)
    assert drawing_bytes(asked, False)[0] == pytest.approx(real, rel=0.25)
    half = drawings(_config(rollout={**ROLLOUT, "rows": 128}), _shape(), "cpu", TASK)[0]
    cache = 2 * 6 * 128 * 64 * int(_shape()["num_key_value_heads"]) * int(_shape()["head_dim"]) * 4
    assert planned - drawing_bytes(half, True)[0] > 0.9 * cache


def test_an_engine_that_was_released_answers_as_before() -> None:
    asked = drawings(_config(), _shape(2), "cpu", TASK)[0]
    engine = Engine(Network(_shape(2)).initialise(1), max_rows=64, max_tokens=64)
    first = {reply.id: reply.tokens for reply in engine.generate(requests(asked, 8, 64))}
    engine.release()
    assert engine._cache is None and engine._packed is None
    assert {reply.id: reply.tokens for reply in engine.generate(requests(asked, 8, 64))} == first


def test_the_batches_of_a_real_run_are_no_larger_than_planned(
    world: dict[str, Artifact], base: Artifact, tmp_path: Path
) -> None:
    task, tokenizer = load_task(world["arithmetic"].path), Tokenizer.load(base.path)
    every = [*task.examples("train"), *task.examples("validation")]
    prompt = max(len(tokenizer.encode_chat(task.prompt(one))) for one in every)
    lengths = Lengths(prompt, max(len(tokenizer.encode_dialogue(one.messages)[0]) for one in every), len(every))
    assert lengths_of(task, tokenizer) == lengths
    model = train_solver(tmp_path / "solver", world, base, budget={"steps": 3}, piece_tokens=120)
    config = ModelConfig.model_validate({"make": "model", **solver_config()})
    lines = [line for line in read_lines(model.path / "log.jsonl") if "loss" in line]
    most = taught_rows(config) * width_of(config, lengths)
    assert all(line["tokens"] <= most <= 16 * config.length_tokens for line in lines)
    start, plan = read_json(model.path / "start.json"), read_json(model.path / "plan.json")
    assert start["rollout_rows"] == 16 and start["memory_parts"]["reference"] == start["memory_parts"]["weights"]
    assert sum(start["memory_parts"].values()) == pytest.approx(plan["planned"]["memory_bytes"], rel=0.01)
    assert passes(config) == pytest.approx(5 / 3) and passes(_config()) == pytest.approx(4 / 3)


def test_winners_are_as_long_as_right_replies_and_losers_as_long_as_they_may() -> None:
    winners = _config(rollout={**ROLLOUT, "negative_share": 0.0})
    assert (width_of(winners, Lengths(20, 30)), width_of(_config(), Lengths(20, 30)), width_of(winners)) == (32, 48, 64)
    assert width_of(winners, Lengths(90, 130)) == 64  # longer prompts are left out


def test_winners_alone_are_never_more_than_their_largest_share() -> None:
    """Against a search: of groups of 8 of which each reply is right with probability p, those that win."""
    none = _config(rollout={**ROLLOUT, "negative_share": 0.0})
    most = max(256 * (p - p**8) for p in (n / 1000 for n in range(1001)))
    assert most <= taught_rows(none) < most + 17 and taught_rows(_config()) == 256
    assert taught_rows(none.model_copy(update={"objective": _config(objective={"grpo": {"kl": 0.1}}).objective})) == 256


def test_fewer_replies_at_once_where_all_do_not_fit_and_a_refusal_where_the_recipe_wants_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With pieces of one row learning takes little, so the cache decides."""
    said = list[str]()

    def decide(config: ModelConfig, free: int) -> tuple[int, int]:
        monkeypatch.setattr(fitting, "free_memory", lambda device: free)
        device = torch.device("cpu")
        found = fit_to_memory(config, _shape(), torch.bfloat16, device, 1, tmp_path, said.append, TASK)
        assert found.peak <= free and found.applied(config).rollout is not None
        return found.rollout_rows, plan_run(found.applied(config), _shape(), torch.bfloat16, lengths=TASK).peak

    config = _config(piece_tokens=64)
    whole = plan_run(config, _shape(), torch.bfloat16, lengths=TASK)
    assert whole.replies > 0
    assert decide(config, whole.peak) == (256, whole.peak) and not said
    rows, peak = decide(config, whole.peak - 1)
    assert (rows, peak < whole.peak) == (128, True) and "128 replies are drawn at once: more would" in said[-1]
    fixed = _config(piece_tokens=64, rollout={**ROLLOUT, "rows": 256})
    with pytest.raises(WuxingError, match="too many replies at once for memory: drawing 256 of up to 64") as refused:
        decide(fixed, whole.peak - 1)
    assert "rollout.rows of 128, or leave it out" in str(refused.value.remedy)
    assert decide(_config(piece_tokens=64, rollout={**ROLLOUT, "rows": 128}), whole.peak - 1)[0] == 128
    with pytest.raises(WuxingError, match="a model too large for memory"):
        decide(config, whole.weights)


def test_estimates_of_reinforcement_are_tried_on_the_model_itself_where_it_is_made(
    world: dict[str, Artifact], base: Artifact, tmp_path: Path
) -> None:
    machine = Machine("slow", 1000.0, 64 * 10**9, (100, 200), (0.2, 0.4))
    config = ModelConfig.model_validate({"make": "model", **solver_config()})
    parents = {"start_from": base, "task": world["arithmetic"]}
    shape = read_json(base.path / "config.json")
    real = estimate_step(config, 400, machine, home=tmp_path, started_from=shape, parents=parents)
    made_up = estimate_step(config, 400, machine, home=tmp_path, started_from=shape)
    assert not isinstance(real, str) and not isinstance(made_up, str)
    assert (real.time_basis[: len(TRIED)], real.memory_basis, real.rollout_rows) == (TRIED, "probe", 16)
    assert made_up.time_basis.startswith(MADE_UP) and made_up.memory_bytes >= real.memory_bytes
    assert 0 < real.seconds[0] < real.expected_seconds < real.seconds[1] and real.tokens == 12 * 16 * 60
    tight = Machine("tight", 1000.0, real.memory_bytes // 2, (100, 200), (0.2, 0.4))
    assert not isinstance(refused := estimate_step(config, 400, tight, started_from=shape), str)
    assert not refused.fits and refused.remedies
