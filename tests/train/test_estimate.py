"""What `estimate` says: against plain arithmetic, against runs that were made, and what it refuses to say."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from wuxing.compute.estimate import (
    CPU_SHARE,
    DEVICES,
    Machine,
    device_named,
    estimate_training,
    optimal_size,
    shares_of_runs,
)
from wuxing.core.artifact import Artifact
from wuxing.core.error import UsageError
from wuxing.core.file import read_json
from wuxing.model.architecture import Architecture, count_parameters, resolve
from wuxing.train.config import ModelConfig
from wuxing.train.plan.estimate import estimate_size, estimate_step, share_of, this_machine

SHAPE = resolve(Architecture(size="100m", max_positions=1024), 32_000)
SIZE = count_parameters(SHAPE)
SLOW = Machine("slow", 1000.0, 64 * 10**9, (100, 200), (0.2, 0.4), 10.0)


def test_arithmetic_time_and_energy_are_plain() -> None:
    found = estimate_training(SHAPE, SIZE, 10**9, 1024, 65_536, SLOW)
    heads = SHAPE["num_attention_heads"] * SHAPE["head_dim"]
    assert found.flops == pytest.approx(1e9 * (6 * SIZE + 6 * SHAPE["num_hidden_layers"] * heads * 1024))
    assert found.seconds == pytest.approx((found.flops / 1e12 / 0.4, found.flops / 1e12 / 0.2))
    assert found.watt_hours == pytest.approx((found.seconds[0] / 36, found.seconds[1] / 18))
    assert found.fits and found.exchange_seconds == 0


def test_two_devices_halve_the_work_and_pay_for_the_gradients() -> None:
    one, two = (estimate_training(SHAPE, SIZE, 10**9, 1024, 65_536, SLOW, count) for count in (1, 2))
    assert two.seconds[0] == pytest.approx(one.seconds[0] / 2)
    steps = 10**9 // 65_536
    assert two.exchange_seconds == pytest.approx(steps * 4 * SIZE / 10e9)  # a ring of two sends everything once
    assert two.seconds[1] == pytest.approx(one.seconds[1] / 2 + two.exchange_seconds)


def test_pieces_shrink_until_it_fits_and_then_it_says_how_many_devices() -> None:
    roomy, tight = (
        estimate_training(SHAPE, SIZE, 10**9, 1024, 65_536, Machine("m", 1e3, size, (1, 1), (0.2, 0.4)))
        for size in (64 * 10**9, 4 * 10**9)
    )
    assert roomy.piece_tokens == 16_384 and tight.piece_tokens < roomy.piece_tokens and tight.fits
    none = estimate_size("7b", 65_536, None, 2048, 524_288, device_named("h100"), 1)
    assert not none.fits and none.sharded_over >= 2 and none.tokens == 20 * none.parameters
    cut = estimate_size("7b", 65_536, None, 2048, 524_288, device_named("h100"), 8)
    assert cut.fits and cut.sharded and not cut.recompute and "state cut over 8" in cut.why[-1]


def test_the_best_use_of_flops_spends_them() -> None:
    parameters, tokens = optimal_size(1e21)
    assert 6 * parameters * tokens == pytest.approx(1e21) and tokens / parameters == pytest.approx(20)


def test_shares_follow_runs_and_are_wide_while_they_are_few() -> None:
    assert shares_of_runs([], CPU_SHARE) == CPU_SHARE
    one, many = shares_of_runs([0.3], CPU_SHARE), shares_of_runs([0.3] * 10, CPU_SHARE)
    assert one[0] < many[0] < 0.3 < many[1] < one[1]
    assert shares_of_runs([0.2, 0.4], CPU_SHARE)[0] < 0.2 < 0.4 < shares_of_runs([0.2, 0.4], CPU_SHARE)[1]


def test_a_run_of_this_store_is_what_the_next_estimate_stands_on(base: Artifact) -> None:
    share = share_of(base, "cpu", 1000.0)
    training = read_json(base.path / "training.json")
    shape = read_json(base.path / "config.json")
    heads = shape["num_attention_heads"] * shape["head_dim"]
    flops = training["positions"] * (6 * count_parameters(shape) + 6 * shape["num_hidden_layers"] * heads * 64)
    assert share == pytest.approx(flops / 1e12 / base.evidence.value("time_actual"))
    assert share_of(base, "cuda", 1000.0) is None

    class Speed:
        bf16_gflops, fp32_gflops = 1000.0, 100.0

    low, high = this_machine(Speed, [base]).share
    assert low < share < high or low == CPU_SHARE[0] / 4  # a toy on a busy core is slower than any bound


def test_recipes_say_what_is_not_known_yet() -> None:
    fresh = {"architecture": {"size": "5m"}, "tokenizer": "words", "length_tokens": 128, "batch_tokens": 4096}
    common = {"make": "model", "data": {"a": 1.0}, "objective": "next_token"}
    timed = ModelConfig.model_validate({**common, **fresh, "budget": {"minutes": 10}})
    found = estimate_step(timed, 8192, SLOW)
    assert not isinstance(found, str)
    assert found.seconds[0] < 600 < found.seconds[1]
    epochs = ModelConfig.model_validate({**common, **fresh, "budget": {"epochs": 2}})
    assert "epochs" in str(estimate_step(epochs, 8192, SLOW))
    assert not isinstance(estimate_step(epochs, 8192, SLOW, tokens=10**6), str)
    tuned = {**common, "start_from": "base", "length_tokens": 128, "batch_tokens": 4096, "budget": {"steps": 3}}
    assert "another model" in str(estimate_step(ModelConfig.model_validate(tuned), 8192, SLOW))


def test_devices_of_the_table_are_plausible_and_unknown_ones_refused(tmp_path: Path) -> None:
    for machine in DEVICES.values():
        assert 0 < machine.share[0] < machine.share[1] < 1 and machine.watts[0] < machine.watts[1]
        assert math.log10(machine.memory_bytes) > 10
    with pytest.raises(UsageError, match="h10"):
        device_named("h10")
