"""Plans against what happens: memory of slices and of whole runs, what fits and why, what earlier runs teach."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from small_run import train_base

from wuxing.commands.estimate import models_of, of_model, of_models, parse_span
from wuxing.compute import energy
from wuxing.compute.energy import Meter
from wuxing.compute.estimate import Machine, device_named, estimate_training, expected_loss
from wuxing.core.artifact import Artifact
from wuxing.core.error import UsageError, WuxingError
from wuxing.core.file import read_json
from wuxing.core.store import Store
from wuxing.model.architecture import Architecture, count_parameters, resolve
from wuxing.train.config import ModelConfig
from wuxing.train.plan import fit as fitting
from wuxing.train.plan import memory
from wuxing.train.plan import probe as probing
from wuxing.train.plan.calibration import entries, memory_factor, note
from wuxing.train.plan.estimate import TRIED, estimate_size, estimate_step, is_size, sizes_for
from wuxing.train.plan.fit import fit_to_memory
from wuxing.train.plan.memory import numbers_per_parameter, plan_run
from wuxing.train.plan.outcome import forecast
from wuxing.train.plan.probe import Blind, ask, build_trainer, probe, profiled
from wuxing.train.plan.timing import measure_seconds

SLOW = Machine("slow", 1000.0, 64 * 10**9, (100, 200), (0.2, 0.4), 10.0)


def _config(**changes: Any) -> ModelConfig:
    config = {
        "make": "model",
        "architecture": {"size": "400k", "max_positions": 64},
        "tokenizer": "words",
        "data": {"a": 1.0},
        "objective": "next_token",
        "length_tokens": 64,
        "batch_tokens": 1024,
        "budget": {"steps": 4},
    }
    return ModelConfig.model_validate(config | changes)


def _shape(config: ModelConfig, vocabulary: int = 512) -> dict[str, Any]:
    assert config.architecture is not None
    return resolve(config.architecture, vocabulary)


TWICE = """
import numpy
from wuxing.train.plan.memory import Watch
first = Watch()
loaded = numpy.ones(10_000_000)
print(first.peak())
del first
again = Watch()
print(again.peak())
"""


def test_what_a_first_training_has_loaded_counts_for_a_second_in_its_process() -> None:
    """Its plan has it too: it cannot know what ran before."""
    done = subprocess.run([sys.executable, "-c", TWICE], capture_output=True, text=True, check=True)
    first, again = (int(line) for line in done.stdout.split())
    assert first >= 80_000_000 and 80_000_000 <= again <= first + (10 << 20)


@pytest.mark.parametrize("kind", ["muon", "adamw", "lion", "adafactor", "schedule_free"])
def test_the_state_is_that_of_the_real_optimizer(kind: str) -> None:
    config = _config(optimizer={"kind": kind}, average=0.9)
    shape = _shape(config)
    asked = ask(config, shape, 2, torch.float32, "cpu")
    trainer = build_trainer(asked, shape["num_hidden_layers"], 2)
    trainer.step()
    held = sum(t.nbytes for name, t in trainer.tensors()["optimizer"].items() if name != "random")
    planned = 4 * count_parameters(shape) * numbers_per_parameter(config, shape, count_parameters(shape))
    assert planned == pytest.approx(held, rel=0.02)
    assert probe(asked).state == pytest.approx(held, rel=0.001)


@pytest.mark.parametrize("several", [False, True])
def test_two_slices_say_what_the_whole_network_takes(several: bool) -> None:
    """A network of six layers, measured whole, against what one and two layers let expect."""
    wide = {"size": "400k", "width": 64, "layers": 6, "max_positions": 64}
    config = _config(architecture=wide, validation={"tokens": 128})
    if several:
        config = config.model_copy(update={"batch_tokens": 4096})
    asked = ask(config, _shape(config), 16, torch.bfloat16, "cpu")
    trainer = build_trainer(asked, 6, 16)
    most = max(itertools.accumulate(size for _, size in profiled(trainer.step)))
    state = sum(t.nbytes for name, t in trainer.tensors()["optimizer"].items() if name != "random")
    weights = 4 * count_parameters(_shape(config))
    real = most + state + weights * (2 if several else 1)
    assert probe(asked).peak == pytest.approx(real, rel=0.02)


def test_a_profiler_that_sees_nothing_never_makes_a_plan_of_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    config = _config(length_tokens=32)
    shape = _shape(config)
    formula = plan_run(config, shape, torch.bfloat16, measured=False)
    with pytest.raises(Blind, match="without a block"):
        profiled(lambda: None)
    monkeypatch.setattr(probing, "_watch", lambda trainer, step: profiled(lambda: None))
    assert plan_run(config, shape, torch.bfloat16) == formula and formula.basis == "formula"
    monkeypatch.undo()
    assert plan_run(config, shape, torch.bfloat16).basis == "probe"


def test_probing_leaves_the_random_state_and_computing_again_takes_less() -> None:
    config = _config(architecture={"size": "400k", "width": 64, "layers": 12, "max_positions": 64}, batch_tokens=4096)
    torch.manual_seed(3)
    before = torch.get_rng_state()
    kept, again = (
        plan_run(config.model_copy(update={"recompute": recompute}), _shape(config), torch.bfloat16)
        for recompute in (False, True)
    )
    assert torch.equal(before, torch.get_rng_state())
    assert again.activations < 0.6 * kept.activations and again.weights == kept.weights


RUN = """
import sys, tempfile
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import torch
torch.set_num_threads(1)
from small_run import build_world, train_base
from wuxing.train.plan import fit
place, limit = Path(sys.argv[2]), int(sys.argv[3])
fit.free_memory = lambda device: limit
train_base(place / "big", build_world(place / "world"), architecture={"size": "3m", "max_positions": 128},
           length_tokens=128, batch_tokens=8192, budget={"steps": 2}, validation={"times": 1, "tokens": 1024})
"""


def test_what_a_process_of_its_own_takes_is_what_was_planned_and_less_than_there_is(tmp_path: Path) -> None:
    """With room for half of a step's activations only.  Within a fifth here, where libraries weigh much beside a small
    network; the benchmark asks for a tenth."""
    here, limit = str(Path(__file__).parent), 560 * 10**6
    words = [sys.executable, "-c", RUN, here, str(tmp_path), str(limit)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=170)
    assert done.returncode == 0, done.stderr[-2000:]
    plan = read_json(tmp_path / "big" / "plan.json")
    assert abs(plan["error"]["memory"]) < 0.2, plan
    assert read_json(tmp_path / "big" / "start.json")["piece_tokens"] < 8192
    assert 2e8 < plan["planned"]["memory_bytes"] <= limit and plan["actual"]["memory_bytes"] <= limit, plan


def test_planned_and_actual_stand_in_evidence_summary_and_the_next_plan(base: Artifact) -> None:
    value = base.evidence.value
    plan = read_json(base.path / "plan.json")
    assert value("memory_error") == plan["error"]["memory"] and value("time_error") == plan["error"]["seconds"]
    assert plan["planned"]["seconds"] > 0 and value("time_planned") > 0
    assert read_json(base.path / "summary.json")["time_error"] == plan["error"]["seconds"]
    assert plan["planned"]["seconds"] / plan["actual"]["seconds"] - 1 == pytest.approx(value("time_error"), abs=1e-3)
    (run,) = entries(base.path.parent if not (base.path / "cache").exists() else base.path)
    assert run["actual_bytes"] == plan["actual"]["memory_bytes"] and run["layers"] == 2
    assert 0 < value("energy")[0] <= value("energy")[1]
    told = of_model(base, SLOW)
    assert told["error"]["seconds"] == pytest.approx(value("time_error"), abs=0.05)
    assert told["estimate"]["parameters"] == count_parameters(read_json(base.path / "config.json"))


def test_a_forecast_uses_the_first_steps_only() -> None:
    steps = [{"loss": 1.0, "seconds": s} for s in (5, 3, 1, 1, 1, 1, 1, 1, 99, 99)]
    lines: list[dict[str, Any]] = [{"validation": {}, "seconds": 2.0}, *steps, {"validation": {}, "seconds": 50.0}]
    assert forecast(lines, 100) == 8 + 98 * 1 + 2 * 2
    assert forecast([], 10) == 0 and forecast(steps[:1], 10) == 50


def test_errors_of_earlier_runs_correct_the_plan(tmp_path: Path) -> None:
    assert memory_factor(entries(tmp_path), 1e9, "cpu") == 1
    for _ in range(20):
        note(tmp_path, {"raw_bytes": 1e9, "actual_bytes": 1.2e9, "device": "cpu"})
    runs = entries(tmp_path)
    assert 1.15 < memory_factor(runs, 1e9, "cpu") < 1.2
    assert memory_factor(runs[:1], 1e9, "cpu") < memory_factor(runs, 1e9, "cpu")
    assert memory_factor(runs, 1e13, "cpu") == pytest.approx(1, abs=0.01)  # no run of that size
    assert memory_factor(runs, 1e9, "cuda") == 1
    wild = [{"raw_bytes": 1e9, "actual_bytes": 9e9, "device": "cpu"}] * 20
    assert memory_factor(wild, 1e9, "cpu") == 1.5


def test_pieces_shrink_then_blocks_are_computed_again_then_it_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = _config(architecture={"size": "400k", "width": 64, "layers": 6, "max_positions": 64}, batch_tokens=8192)
    shape, said = _shape(config), list[str]()
    sizes = {
        (piece, again): plan_run(
            config.model_copy(update={"piece_tokens": piece, "recompute": again}), shape, torch.bfloat16
        ).peak
        for piece, again in ((16384, False), (4096, False), (64, False), (64, True), (16384, True))
    }

    def decide(free: int) -> tuple[int, bool]:
        monkeypatch.setattr(fitting, "free_memory", lambda device: free)
        found = fit_to_memory(config, shape, torch.bfloat16, torch.device("cpu"), 1, tmp_path, said.append)
        assert found.peak <= free
        return found.piece_tokens, found.recompute

    assert decide(sizes[16384, False]) == (16384, False) and not said
    assert decide(sizes[4096, False]) == (4096, False) and "pieces of 4,096 positions" in said[-1]
    with pytest.raises(WuxingError, match="a model too large for memory: training .* needs .* are free"):
        decide(sizes[64, True] // 3)
    only = config.model_copy(update={"piece_tokens": 8192})
    monkeypatch.setattr(fitting, "free_memory", lambda device: sizes[16384, True])
    found = fit_to_memory(only, shape, torch.bfloat16, torch.device("cpu"), 1, tmp_path, said.append)
    assert (found.piece_tokens, found.recompute) == (8192, True) and "computed again" in said[-1]


def test_processes_of_one_host_are_counted_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What one process fits into does not take two that hold the whole state, but two that share it; the lead alone
    copies the state for a checkpoint."""
    config = _config(architecture={"size": "8m", "width": 64, "layers": 6, "max_positions": 64}, batch_tokens=4096)
    config = config.model_copy(update={"piece_tokens": 64, "recompute": True})
    shape = _shape(config)
    whole = plan_run(config, shape, torch.bfloat16)

    def decide(processes: int, shards: int) -> int:
        monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
        return fit_to_memory(
            config, shape, torch.bfloat16, torch.device("cpu"), shards, tmp_path, lambda line: None
        ).peak

    monkeypatch.setattr(memory, "available_memory", lambda: 2 * whole.peak - whole.copies)
    assert decide(1, 1) == decide(2, 1) == whole.peak
    monkeypatch.setattr(memory, "available_memory", lambda: 2 * whole.peak - whole.copies - 2)
    with pytest.raises(WuxingError, match="in each of 2 processes on this host, .* are free for each") as refused:
        decide(2, 1)
    assert "take fewer processes" in str(refused.value.remedy) and decide(1, 1) == whole.peak
    assert decide(2, 2) < whole.peak


def test_smaller_pieces_and_recomputation_keep_the_weights(world: dict[str, Artifact], tmp_path: Path) -> None:
    kept = train_base(tmp_path / "kept", world, budget={"steps": 3})
    again = train_base(tmp_path / "again", world, budget={"steps": 3}, recompute=True)
    assert read_json(again.path / "start.json")["recompute"] is True
    assert kept.record["files"]["model.safetensors"] == again.record["files"]["model.safetensors"]


def test_what_does_not_fit_is_refused_with_what_would() -> None:
    found = estimate_size("70b", 65_536, None, 2048, 524_288, device_named("rtx4090"), 1)
    assert not found.fits and found.refused is not None
    assert found.refused.startswith("a model too large for memory: 67,203,579,392 parameters need ")
    assert any("a model of about" in remedy for remedy in found.remedies)
    small = estimate_size("1b", 65_536, None, 2048, 524_288, device_named("rtx4090"), 1)
    assert small.fits or any("another device: a100" in remedy or "h100" in remedy for remedy in small.remedies)


def test_estimates_here_are_measured_and_their_json_is_stable(tmp_path: Path) -> None:
    config = _config()
    found = estimate_step(config, 512, SLOW, home=tmp_path, price=2.0)
    assert not isinstance(found, str)
    assert found.memory_basis == "probe" and found.time_basis.startswith(TRIED)
    assert found.seconds[0] < found.expected_seconds < found.seconds[1]
    assert found.cost == pytest.approx(tuple(2.0 * s / 3600 for s in found.seconds), rel=1e-6)
    told = json.loads(json.dumps(found.to_json()))
    assert {
        "device", "count", "parameters", "tokens", "flops", "fits", "sharded_over", "memory_bytes", "memory_interval",
        "memory_parts", "memory_basis", "available_bytes", "host_bytes", "piece_tokens", "precision", "recompute",
        "rollout_rows",
        "sharded", "why", "seconds", "expected_seconds", "tokens_per_second", "time_basis", "watt_hours",
        "energy_basis", "cost", "exchange_seconds", "optimal", "refused", "remedies",
    } == set(told)  # fmt: skip
    assert sum(told["memory_parts"].values()) == told["memory_bytes"]


def test_a_time_budget_becomes_as_many_tokens_as_the_trial_says(tmp_path: Path) -> None:
    found = estimate_step(_config(budget={"minutes": 2}), 512, SLOW, home=tmp_path)
    assert not isinstance(found, str)
    assert found.expected_seconds == 120 and found.tokens > 1024
    twice = measure_seconds(_config(), _shape(_config()), 8 * 1024, torch.bfloat16, "cpu")
    assert twice is not None and twice.seconds > 0 and twice.error >= 0.2
    assert found.seconds == (120, 120) and found.tokens_per_second[0] < found.tokens / 120 < found.tokens_per_second[1]


RECIPE = """
name: two
seed: 1
steps:
  words: {make: corpus, sources: [{files: a.txt, license: CC0-1.0}], split: {validation: 0.1, test: 0.1}}
  pieces: {make: tokenizer, corpus: words, vocab_size: 512}
  base:
    make: model
    architecture: {size: 400k, max_positions: 64}
    tokenizer: pieces
    data: {words: 1.0}
    objective: next_token
    length_tokens: 64
    batch_tokens: 1024
    budget: {steps: 4}
  more:
    make: model
    start_from: base
    data: {words: 1.0}
    objective: next_token
    length_tokens: 32
    batch_tokens: 512
    budget: {steps: 8}
"""


def test_a_model_that_goes_on_from_another_one_of_the_recipe_is_estimated_too(tmp_path: Path) -> None:
    recipe, store = tmp_path / "two.yaml", Store(tmp_path / "home")
    recipe.write_text(RECIPE)
    models = models_of(recipe, store)
    assert list(models) == ["base", "more"] and list(models_of(recipe, store, "more")) == ["more"]
    found = of_models(models, SLOW, 1, None, None, None, print)
    base, more = found["base"], found["more"]
    assert not isinstance(base, str) and not isinstance(more, str)
    assert more.parameters == base.parameters and more.tokens == base.tokens == 4096
    with pytest.raises(UsageError, match="words is no model"):
        models_of(recipe, store, "words")


def test_shares_of_runs_like_it_count_most() -> None:
    machine = Machine("m", 1e3, 10**10, (1, 2), (0.1, 0.5), runs=((10**6, 256, 0.1), (10**8, 256, 0.6)))
    assert machine.shares(10**8, 256)[1] == pytest.approx(0.6, rel=0.01)
    assert machine.shares(10**6, 256)[1] == pytest.approx(0.1, rel=0.01)
    assert machine.shares(10**11, 256)[3] == "data sheet and prior"


def test_the_best_size_for_a_time_grows_with_the_time() -> None:
    fast = Machine("fast", 1e6, 80 * 10**9, (100, 200), (0.3, 0.5))

    def best(seconds: float) -> float:
        return float(min(sizes_for(seconds, 32_768, 1024, fast), key=lambda item: item["loss"])["parameters"])

    assert 5 * best(3600) < best(100 * 3600)  # parameters follow the root of the arithmetic
    assert 5 < 1e15 * 0.39 * 3600 / (6 * best(3600) ** 2) < 80  # tokens a parameter
    assert expected_loss(1e9, 2e10) < expected_loss(1e8, 2e10) < expected_loss(1e8, 2e9)
    few = sizes_for(3600, 32_768, 1024, fast, data_tokens=10**6)
    assert all(item["loss"] >= expected_loss(item["parameters"], 4e6) - 1e-3 for item in few)


def test_spans_and_sizes_are_read() -> None:
    assert [parse_span(text) for text in ("3 min", "90 s", "2h", "1 day", "5 minutes")] == [180, 90, 7200, 86400, 300]
    for wrong in ("three minutes", "3", "5 parsecs"):
        with pytest.raises(UsageError, match="no span of time"):
            parse_span(wrong)
    assert is_size("125m") and is_size("1.5b") and not is_size("model/base@v1") and not is_size("base")


def test_energy_is_counted_over_a_counter_that_begins_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    zone = tmp_path / "intel-rapl:0"
    zone.mkdir()
    (zone / "max_energy_range_uj").write_text("1000000")
    (zone / "energy_uj").write_text("900000")
    monkeypatch.setattr(energy, "_POWERCAP", tmp_path)
    meter = Meter(counters=energy._rapl())
    (zone / "energy_uj").write_text("100000")
    meter.look(at_once=True)
    assert meter.microjoules == 200_000
    (low, high), basis = meter.watt_hours(10.0)
    assert low == high > 0 and basis.startswith("counted")
    (low, high), basis = Meter(counters=[]).watt_hours(3600)
    assert high == 3 * low and basis.startswith("assumed")


def test_devices_that_train_together_pay_for_what_they_send() -> None:
    shape = resolve(Architecture(size="100m", max_positions=1024), 32_000)
    one = estimate_training(shape, count_parameters(shape), 10**9, 1024, 65_536, SLOW, 4)
    assert one.exchange_seconds > 0 and one.expected_seconds < one.seconds[1]


def test_what_limits_a_run_is_said_in_a_line() -> None:
    from wuxing.train.plan.budget import Start
    from wuxing.train.watch.view import limit_of

    start = Start(10, 1, "cpu", "bfloat16", False, 0, 0, 0, 0, {}, 1e6)
    steps = [{"seconds": 1.0, "tokens": 4096, "loader_wait_seconds": 0.001}] * 4
    assert limit_of([{**line, "loader_wait_seconds": 0.2} for line in steps], start, 0.3).startswith("the loader: 20%")
    assert limit_of(steps, start, 0.6) == "the products themselves: 60% of the measured rate"
    assert "4.0 times as much" in limit_of(steps, start, 0.25)
    small = Start(10, 1, "cpu", "bfloat16", False, 0, 0, 0, 0, {}, 1e6, piece_tokens=512)
    assert limit_of(steps, small, 0.25).startswith("memory: pieces of 512")
    assert limit_of([], start, None) == ""
