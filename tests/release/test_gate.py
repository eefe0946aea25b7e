"""The gate: directions, intervals, thresholds."""

from __future__ import annotations

from typing import Any

import pytest

from wuxing.release.gate import judge
from wuxing.release.release_kind import Gate


def _results(metric: str, a: str, b: str, difference: float, half: float = 0.05) -> dict[str, Any]:
    row = {"metric": metric, "a": a, "b": b, "difference": difference, "p": 0.01, "n": 50}
    row |= {"low": difference - half, "high": difference + half}
    return {"models": {"base": {}, "new": {}}, "comparisons": [row]}


@pytest.mark.parametrize(
    ("metric", "a", "b", "difference", "gain"),
    [
        ("accuracy/sums", "base", "new", 0.2, 0.2),
        ("accuracy/sums", "new", "base", -0.2, 0.2),
        ("accuracy/sums", "new", "base", 0.2, -0.2),
        ("bits_per_byte/news", "base", "new", -0.2, 0.2),
        ("bits_per_byte/news", "new", "base", 0.2, 0.2),
        ("bits_per_byte/news", "base", "new", 0.2, -0.2),
    ],
)
def test_more_is_better_whichever_way_it_was_compared(
    metric: str, a: str, b: str, difference: float, gain: float
) -> None:
    verdict = judge(Gate(better_than="base", metric=metric), _results(metric, a, b, difference), "new")
    assert verdict.gain == pytest.approx(gain) and verdict.passed == (gain > 0)
    assert verdict.low == pytest.approx(gain - 0.05) and verdict.high == pytest.approx(gain + 0.05)


@pytest.mark.parametrize(
    ("difference", "half", "minimum", "passed"),
    [(0.2, 0.05, 0.0, True), (0.2, 0.3, 0.0, False), (0.2, 0.05, 0.25, False), (0.0, 0.0, 0.0, False)],
)
def test_chance_and_small_gains_do_not_pass(difference: float, half: float, minimum: float, passed: bool) -> None:
    results = _results("accuracy/sums", "base", "new", difference, half)
    gate = Gate(better_than="base", metric="accuracy/sums", minimum_gain=minimum)
    assert judge(gate, results, "new").passed is passed
