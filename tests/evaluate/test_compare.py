"""Comparing two models from stored samples."""

from typing import Any

import pytest
from small_world import EVALUATION, Shelf, evaluation_parents

from wuxing.core.artifact import Artifact
from wuxing.core.error import UsageError, WuxingError
from wuxing.core.file import read_json
from wuxing.evaluate.compare import compare
from wuxing.evaluate.evaluation_kind import EvaluationKind


def alone(shelf: Shelf, lived: dict[str, Artifact], model: str, name: str, **changes: Any) -> Artifact:
    parents = {"models.0": lived[model], "corpus": lived["articles"], "tasks.0": lived["arithmetic"]}
    return shelf.make(EvaluationKind(), name, {**EVALUATION, "models": [model], **changes}, parents)


def test_together_or_apart_the_same_items_give_the_same_difference(shelf: Shelf, lived: dict[str, Artifact]) -> None:
    together = shelf.make(EvaluationKind(), "scores", EVALUATION, evaluation_parents(lived))
    found = compare(shelf.home, lived["early"], lived["late"])
    assert (found.a, found.b) == ("model/early@v1", "model/late@v1")
    stored = {one["metric"]: one for one in read_json(together.path / "results.json")["comparisons"]}
    assert {one.metric for one in found.measures} == set(stored)
    for one in found.measures:
        assert one.difference.difference == pytest.approx(stored[one.metric]["difference"], rel=1e-6)
        assert one.evaluations == ["evaluation/scores@v1"]
    bits = next(one for one in found.measures if one.metric.startswith("bits"))
    assert bits.better == "model/late@v1" and bits.to_json()["value_b"] < bits.value_a
    apart = compare(shelf.home, alone(shelf, lived, "early", "one"), alone(shelf, lived, "late", "two", documents=20))
    assert [one.difference.n for one in apart.measures if one.metric.startswith("bits")] == [20]
    back = compare(shelf.home, lived["late"], lived["early"])
    assert back.measures[0].difference.difference == pytest.approx(-found.measures[0].difference.difference, rel=0.2)


def test_models_never_measured_on_the_same_items_are_not_compared(shelf: Shelf, lived: dict[str, Artifact]) -> None:
    alone(shelf, lived, "early", "one")
    with pytest.raises(WuxingError, match="wuxing evaluate model/early@v1 model/late@v1"):
        compare(shelf.home, lived["early"], lived["late"])


def test_what_cannot_be_compared_is_said(shelf: Shelf, lived: dict[str, Artifact]) -> None:
    with pytest.raises(UsageError, match="is a corpus"):
        compare(shelf.home, lived["articles"], lived["late"])
    with pytest.raises(UsageError, match="with itself"):
        compare(shelf.home, lived["late"], lived["late"])
    both = shelf.make(EvaluationKind(), "scores", EVALUATION, evaluation_parents(lived))
    with pytest.raises(UsageError, match="has 2 models"):
        compare(shelf.home, both, lived["late"])
