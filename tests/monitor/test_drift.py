"""Drift: distances equal to scipy and to closed forms; no alarm without drift, an alarm with it."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from wuxing.monitor.drift import MIN_SAMPLES, _chance_of_psi, bin_edges, judge_drift, ks, psi, shift

floats = st.floats(-1e3, 1e3, allow_nan=False, width=32)


@settings(max_examples=60, deadline=None)
@given(st.lists(floats, min_size=2, max_size=60), st.lists(floats, min_size=2, max_size=60))
def test_ks_equals_scipy(old: list[float], new: list[float]) -> None:
    a, b = np.array(old), np.array(new)
    assert ks(a, b) == pytest.approx(stats.ks_2samp(a, b, method="asymp").statistic, abs=1e-12)


def test_psi_equals_its_definition_bin_by_bin() -> None:
    random = np.random.default_rng(1)
    old, new = random.normal(size=300), random.normal(0.3, 1.2, size=200)
    edges = bin_edges(old)
    total = 0.0
    for low, high in zip([-math.inf, *edges], [*edges, math.inf], strict=True):
        p = (sum(low < x <= high for x in old) + 0.5) / (300 + 5)
        q = (sum(low < x <= high for x in new) + 0.5) / (200 + 5)
        total += (q - p) * math.log(q / p)
    assert psi(old, new, edges) == pytest.approx(total, rel=1e-12)


def test_psi_of_two_normals_approaches_the_symmetric_divergence() -> None:
    # KL(p|q) + KL(q|p) of normals that lie 0.6 sd apart is 0.36; ten bins lose a few per cent of it
    random = np.random.default_rng(2)
    old, new = random.normal(size=400_000), random.normal(0.6, 1, size=400_000)
    assert 0.32 < psi(old, new, bin_edges(old)) < 0.36


def test_shift_of_a_known_distance() -> None:
    old = np.array([0.0, 2.0] * 50)
    assert shift(old, old + 1.0) == pytest.approx(1.0 / math.sqrt(100 * 2 / 198))
    assert shift(old, old) == 0.0


def test_chance_of_psi_is_the_quantile_of_chi_square() -> None:
    for edges in (1, 3, 9):  # Wilson and Hilferty err to the safe side, by 3 % at one degree of freedom
        assert 1.0 <= _chance_of_psi(edges, 0.01) / (0.01 * stats.chi2.ppf(0.999, edges)) < 1.04


@pytest.mark.parametrize("kind", ["normal", "tokens", "skewed"])
def test_one_distribution_does_not_alarm(kind: str) -> None:
    random = np.random.default_rng(3)
    draw = {
        "normal": lambda n: random.normal(-1, 0.4, n),
        "tokens": lambda n: random.poisson(6, n).astype(float),
        "skewed": lambda n: random.lognormal(3, 1, n),
    }[kind]
    alarms = sum(
        judge_drift("x", draw(200).tolist(), draw(int(random.integers(MIN_SAMPLES, 600))).tolist()).verdict == "drifted"
        for _ in range(200)
    )
    # three distances at one in a thousand each: 0.6 expected in 200; five or more would come once in 2,000 runs
    assert alarms <= 4


def test_a_shift_of_six_tenths_of_a_deviation_is_found() -> None:
    random = np.random.default_rng(4)
    found = sum(
        judge_drift("x", random.normal(size=200).tolist(), random.normal(0.6, 1, 155).tolist()).verdict == "drifted"
        for _ in range(200)
    )
    assert found >= 190


def test_a_change_of_spread_alone_is_found() -> None:
    random = np.random.default_rng(5)
    drift = judge_drift("x", random.normal(size=400).tolist(), random.normal(0, 2.5, 400).tolist())
    assert drift.verdict == "drifted" and drift.psi is not None and drift.psi.alarms
    assert drift.shift is not None and not drift.shift.alarms


def test_many_samples_do_not_alarm_over_a_trifle() -> None:
    random = np.random.default_rng(6)
    old, new = random.normal(size=50_000), random.normal(0.05, 1, 50_000)
    assert stats.ks_2samp(old, new).pvalue < 1e-6
    assert judge_drift("x", old.tolist(), new.tolist()).verdict == "steady"


def test_few_samples_give_no_verdict() -> None:
    assert judge_drift("x", [1.0] * 500, [9.0] * (MIN_SAMPLES - 1)).verdict == "too_few"
    assert judge_drift("x", [], [9.0] * 500).verdict == "too_few"
    assert judge_drift("x", [math.nan] * 500, [9.0] * 500).verdict == "too_few"


def test_constant_signals() -> None:
    assert judge_drift("x", [7.0] * 100, [7.0] * 100).verdict == "steady"
    assert judge_drift("x", [7.0] * 100, [8.0] * 100).verdict == "drifted"
    assert judge_drift("x", [0.1] * 100, [0.1] * 300).verdict == "steady"
