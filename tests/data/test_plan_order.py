"""The sample plan: a bijection, the same for any number of ranks, mixed as asked at every place."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wuxing.data.plan import CYCLE, Ladder, Permutation, Phase, Place, SamplePlan


@given(size=st.integers(1, 3000), key=st.text(max_size=8))
@settings(max_examples=40, deadline=None)
def test_a_permutation_hits_every_place_once(size: int, key: str) -> None:
    permutation = Permutation(size, key)
    assert sorted(permutation(index) for index in range(size)) == list(range(size))


def test_a_permutation_looks_random() -> None:
    """Correlation of place and value, and fixed points, as of a random permutation; another key is another order."""
    size = 10_000
    order = [Permutation(size, "a")(index) for index in range(size)]
    mean = (size - 1) / 2
    covariance = sum((i - mean) * (v - mean) for i, v in enumerate(order)) / size
    assert abs(covariance / (size**2 / 12)) < 0.04  # 4 standard deviations of a random permutation: 4 / sqrt(n)
    assert sum(i == v for i, v in enumerate(order)) < 10
    assert sum(b == a + 1 for a, b in pairwise(order)) < 10
    assert order != [Permutation(size, "b")(index) for index in range(size)]


def test_a_huge_permutation_costs_nothing() -> None:
    permutation = Permutation(10**15, "x")
    assert len({permutation(index) for index in range(500)}) == 500
    with pytest.raises(IndexError):
        permutation(10**15)


def plan(**changes: object) -> SamplePlan:
    values: dict[str, object] = {
        "seed": 7,
        "rows": {"a": 50, "b": 7},
        "digests": {"a": "x", "b": "y"},
        "weights": {"a": 0.8, "b": 0.2},
    }
    return SamplePlan(**(values | changes))  # type: ignore[arg-type]


def test_each_epoch_holds_every_row_once_in_another_order() -> None:
    mixture = plan()
    places = [mixture[i] for i in range(4000)]
    for name, rows in (("a", 50), ("b", 7)):
        seen = [place for place in places if place.data == name]
        epochs = [[p.row for p in seen if p.epoch == e] for e in range(len(seen) // rows)]
        assert all(sorted(epoch) == list(range(rows)) for epoch in epochs)
        assert len({tuple(epoch) for epoch in epochs}) > len(epochs) * 0.9


def test_the_mixture_has_its_weights_in_any_stretch() -> None:
    mixture = plan()
    for start in (0, 137, 5 * CYCLE - 50):
        counts = Counter(mixture[i].data for i in range(start, start + 100))
        assert abs(counts["b"] - 20) <= 2
    whole = Counter(mixture[i].data for i in range(3 * CYCLE))
    assert whole == {"a": 2400, "b": 600}


def test_a_tiny_share_still_gets_its_row() -> None:
    mixture = plan(weights={"a": 1.0, "b": 1e-9})
    assert Counter(mixture[i].data for i in range(CYCLE))["b"] == 1


def test_the_order_follows_seed_and_data_only() -> None:
    def begin(mixture: SamplePlan) -> list[Place]:
        return [mixture[i] for i in range(500)]

    first = begin(plan())
    assert first == begin(plan())
    assert first != begin(plan(seed=8))
    assert first != begin(plan(digests={"a": "z", "b": "y"}))
    assert plan().digest == plan().digest != plan(seed=8).digest != plan(digests={"a": "z", "b": "y"}).digest


def test_phases_change_the_mixture_where_they_begin_and_nothing_is_skipped() -> None:
    phased = plan(phases=(Phase(1500, {"a": 0.2, "b": 0.8}), Phase(2700, {"b": 1.0})), weights={"a": 1.0, "b": 0.0})
    places = [phased[i] for i in range(4000)]
    assert {place.data for place in places[:1500]} == {"a"} and {place.data for place in places[2700:]} == {"b"}
    assert Counter(place.data for place in places[1500:2500]) == {"a": 200, "b": 800}
    for name, rows in (("a", 50), ("b", 7)):
        seen = [place for place in places if place.data == name]
        epochs = [[p.row for p in seen if p.epoch == e] for e in range(len(seen) // rows)]
        assert all(sorted(epoch) == list(range(rows)) for epoch in epochs)
    assert phased.digest != plan(weights={"a": 1.0, "b": 0.0}).digest
    assert [phased[i] for i in reversed(range(4000))] == places[::-1]


@pytest.mark.parametrize("descending", [False, True])
def test_a_ladder_climbs_bucket_by_bucket_and_shuffles_inside(descending: bool) -> None:
    scores = [float((row * 37) % 50) for row in range(50)]
    climbing = plan(weights={"a": 1.0}, rows={"a": 50}, ladders={"a": Ladder(scores, 5, 1, descending)})
    first, second = ([climbing[50 * epoch + i].row for i in range(50)] for epoch in (0, 1))
    assert sorted(first) == sorted(second) == list(range(50))
    for bucket in range(5):
        values = sorted(scores[row] for row in first[10 * bucket : 10 * bucket + 10])
        place = 4 - bucket if descending else bucket
        assert values == [float(10 * place + n) for n in range(10)]
        assert [scores[row] for row in first[10 * bucket : 10 * bucket + 10]] != values
    assert second != first
    assert climbing.digest != plan(weights={"a": 1.0}, rows={"a": 50}).digest


@given(size=st.integers(1, 60), buckets=st.integers(2, 90), epochs=st.integers(1, 3))
@settings(max_examples=40, deadline=None)
def test_a_ladder_of_any_size_is_an_order(size: int, buckets: int, epochs: int) -> None:
    ladder = Ladder([float(row % 7) for row in range(size)], buckets, epochs)
    climbing = plan(weights={"a": 1.0}, rows={"a": size}, ladders={"a": ladder})
    for epoch in range(4):
        assert sorted(climbing[epoch * size + i].row for i in range(size)) == list(range(size))
