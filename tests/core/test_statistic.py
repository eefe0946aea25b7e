"""Intervals and tests against scipy, closed forms, and their own promise: coverage."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from wuxing.core.statistic import holm, mcnemar, ratio, ratio_difference, share_difference, wilson


@given(st.integers(1, 2000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_equals_scipy(counts: tuple[int, int]) -> None:
    successes, n = counts
    found, known = wilson(successes, n), stats.binomtest(successes, n).proportion_ci(method="wilson")
    assert found.low == pytest.approx(known.low, abs=1e-12) and found.high == pytest.approx(known.high, abs=1e-12)
    assert found.low <= found.value <= found.high


@given(st.integers(0, 300), st.integers(0, 300))
def test_mcnemar_is_the_exact_binomial_test(gained: int, lost: int) -> None:
    known = stats.binomtest(gained, gained + lost).pvalue if gained + lost else 1.0
    assert mcnemar(gained, lost) == pytest.approx(known, rel=1e-9)


def test_share_difference_by_hand() -> None:
    # 10 pairs: 4 gained, 1 lost.  Agresti-Min: cells 4.5 and 1.5 of 12, centre 0.25,
    # half = 1.959964 * sqrt(6 - 9 / 12) / 12 = 0.374235
    a = [True, False, False, False, False, True, True, True, False, False]
    b = [False, True, True, True, True, True, True, True, False, False]
    found = share_difference(a, b)
    assert found.difference == pytest.approx(0.3) and found.n == 10
    assert (found.low, found.high) == (pytest.approx(0.25 - 0.374235, abs=1e-5), pytest.approx(0.624235, abs=1e-5))
    assert found.p == pytest.approx(0.375)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60))
def test_exchanging_the_models_turns_every_sign(pairs: list[tuple[bool, bool]]) -> None:
    a, b = [x for x, _ in pairs], [y for _, y in pairs]
    one, two = share_difference(a, b), share_difference(b, a)
    assert one.difference == -two.difference and one.p == two.p
    assert one.low == pytest.approx(-two.high) and one.high == pytest.approx(-two.low)


def test_share_difference_covers_the_truth_as_often_as_it_says() -> None:
    random, hits = np.random.default_rng(1), 0
    for _ in range(1000):
        a = random.random(60) < 0.4
        b = np.where(random.random(60) < 0.5, a, random.random(60) < 0.7)
        found = share_difference(a.tolist(), b.tolist())
        hits += found.low <= 0.15 <= found.high  # true difference: half of 0.7 - 0.4
    assert 0.93 <= hits / 1000 <= 0.98  # 0.95 within three standard errors (0.007), conservatively above


def test_ratio_weighs_long_documents_more_and_equals_the_normal_interval() -> None:
    assert ratio([10.0, 1.0], [10.0, 10.0], seed=1).value == 0.55
    assert ratio([90.0, 1.0], [90.0, 10.0], seed=1).value == 0.91
    values = np.random.default_rng(2).normal(5, 1, 400)
    found = ratio(values.tolist(), [1.0] * 400, seed=3, resamples=4000)
    half = 1.96 * values.std() / 20
    assert found.low == pytest.approx(values.mean() - half, abs=0.01)
    assert found.high == pytest.approx(values.mean() + half, abs=0.01)


def test_bootstrap_depends_on_the_seed_only() -> None:
    values = list(range(1, 50))
    assert ratio(values, values[::-1], seed=4) == ratio(values, values[::-1], seed=4)
    assert ratio(values, values[::-1], seed=4) != ratio(values, values[::-1], seed=5)


def test_paired_bootstrap_sees_through_the_spread_of_the_documents() -> None:
    random = np.random.default_rng(5)
    hard = random.uniform(1, 9, 80)
    same, better = hard + random.normal(0, 0.05, 80), hard - 0.1 + random.normal(0, 0.05, 80)
    counts = [1.0] * 80
    shifted = ratio_difference(hard.tolist(), better.tolist(), counts, seed=6)
    assert shifted.high < 0 and shifted.p < 0.01
    assert shifted.difference == pytest.approx(-0.1, abs=0.02)
    assert ratio_difference(hard.tolist(), same.tolist(), counts, seed=6).p > 0.05
    unpaired = ratio(hard.tolist(), counts, seed=6)
    assert unpaired.high - unpaired.low > 10 * (shifted.high - shifted.low)


def test_equal_models_differ_by_nothing() -> None:
    found = ratio_difference([1.0, 2.0, 3.0], [1.0, 2.0, 3.0], [1, 1, 1], seed=1)
    assert (found.difference, found.low, found.high, found.p) == (0, 0, 0, 1)


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


@pytest.mark.parametrize(("successes", "n"), [(0, 0), (3, 2), (-1, 4)])
def test_no_share_of_nothing(successes: int, n: int) -> None:
    with pytest.raises(ValueError, match="give no share"):
        wilson(successes, n)
