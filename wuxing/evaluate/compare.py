"""`wuxing compare A B`: two models on the items both were measured on, from stored samples; nothing is run again."""

from __future__ import annotations

import math
from collections.abc import Container, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wuxing.core.artifact import Artifact
from wuxing.core.error import UsageError, WuxingError
from wuxing.core.file import read_json
from wuxing.core.statistic import Difference, holm, ratio_difference, share_difference
from wuxing.core.store import Store
from wuxing.evaluate.problem import LEVEL, lower_is_better
from wuxing.evaluate.role import BITS
from wuxing.evaluate.sample import read_rows

SEED = 0
"""Of the bootstrap: a comparison is the same whenever it is asked for."""


@dataclass(frozen=True)
class Compared:
    """One measure of both models on the same items."""

    metric: str
    value_a: float
    value_b: float
    difference: Difference
    """b minus a."""
    p_adjusted: float
    better: str | None
    """Id of the better model; None where the difference could be chance."""
    evaluations: list[str]

    def to_json(self) -> dict[str, Any]:
        return {
            "metric": self.metric,
            "value_a": self.value_a,
            "value_b": self.value_b,
            **self.difference.to_json(),
            "p_adjusted": self.p_adjusted,
            "better": self.better,
            "evaluations": self.evaluations,
        }


@dataclass(frozen=True)
class Comparison:
    """Two models, measure by measure."""

    a: str
    b: str
    measures: list[Compared]

    def to_json(self) -> dict[str, Any]:
        return {"a": self.a, "b": self.b, "measures": [one.to_json() for one in self.measures]}


@dataclass(frozen=True)
class _Samples:
    """What one evaluation keeps of one model on one set of items."""

    metric: str
    source: str
    """Id of the corpus or task."""
    evaluation: str
    rows: dict[str, dict[str, Any]]


def compare(home: Path, a: Artifact, b: Artifact) -> Comparison:
    """Compare two models, or two evaluations of one model each, on the items that both were measured on.

    The newest sound evaluations count.  Raises WuxingError when no measure is common to both.
    """
    first, second = _subject(a), _subject(b)
    if first == second and a.id == b.id:
        raise UsageError(f"{a.id} would be compared with itself", "Name two different artifacts")
    left, right = dict(_samples(home, a, first)), dict(_samples(home, b, second))
    found: list[tuple[_Samples, _Samples, list[str]]] = []
    for key, one in left.items():
        other = right.get(key)
        common = sorted(one.rows.keys() & other.rows.keys()) if other else []
        if other and common:
            found.append((one, other, common))
    if not found:
        raise WuxingError(
            f"no sound evaluation measured both {first} and {second} on the same items",
            f"Measure them together: wuxing evaluate {first} {second}",
        )
    differences = [_difference(one, other, common) for one, other, common in found]
    adjusted = holm([difference.p for *_, difference in differences])
    measures = []
    for (one, other, _), (value_a, value_b, difference), p in zip(found, differences, adjusted, strict=True):
        falls = difference.difference < 0
        better = None if p >= LEVEL else second if falls == lower_is_better(one.metric) else first
        evaluations = sorted({one.evaluation, other.evaluation})
        measures.append(Compared(one.metric, value_a, value_b, difference, p, better, evaluations))
    return Comparison(first, second, measures)


def _subject(artifact: Artifact) -> str:
    """Id of the model that is meant."""
    if artifact.kind == "model":
        return artifact.id
    if artifact.kind == "evaluation":
        models = read_json(artifact.path / "results.json")["models"]
        if len(models) == 1:
            return str(next(iter(models.values()))["id"])
        raise UsageError(f"{artifact.id} has {len(models)} models", f"Name one of them: {', '.join(_ids(models))}")
    raise UsageError(f"{artifact.id} is a {artifact.kind}", "Compare models, or evaluations of one model")


def _ids(models: dict[str, Any]) -> list[str]:
    return [str(value["id"]) for value in models.values()]


def _samples(home: Path, artifact: Artifact, model: str) -> Iterator[tuple[tuple[str, str], _Samples]]:
    """(measure, set) → the samples of a model; of several evaluations the newest comes last and so counts."""
    if artifact.kind == "evaluation":
        evaluations = [artifact]
    else:
        store = Store(home)
        evaluations = [e for kind, name in store.names() if kind == "evaluation" for e in store.versions(kind, name)]
        evaluations.sort(key=lambda one: (str(one.record["created"]), one.id))
    for evaluation in evaluations:
        if evaluation.failures:
            continue
        results = read_json(evaluation.path / "results.json")
        for name, value in results["models"].items():
            if value["id"] == model:
                for one in _kept(evaluation, name, results["settings"], value["metrics"]):
                    yield (one.metric, one.source), one


def _kept(evaluation: Artifact, model: str, settings: dict[str, Any], measured: Container[str]) -> Iterator[_Samples]:
    sources = {f"accuracy/{task}": id for task, id in settings["accuracy"]["tasks"].items()}
    for metric, told in {**{metric: metric for metric in BITS.values()}, "accuracy": "classes"}.items():
        corpus = settings.get(told, {}).get("corpus")
        if corpus:
            sources[f"{metric}/{corpus.partition('/')[2].partition('@')[0]}"] = corpus
    for metric, id in sources.items():
        if metric not in measured:
            continue
        rows = read_rows(evaluation.path / f"samples/{model}--{metric.partition('/')[2]}.jsonl")
        yield _Samples(metric, id, evaluation.id, {row["id"]: row for row in rows})


def _difference(one: _Samples, other: _Samples, common: list[str]) -> tuple[float, float, Difference]:
    """(value of a, value of b, their difference) on the common items."""
    pairs = [(one.rows[id], other.rows[id]) for id in common]
    if one.metric.startswith("accuracy"):
        right_a, right_b = ([bool(row["score"]["correct"]) for row in rows] for rows in zip(*pairs, strict=True))
        n = len(common)
        return sum(right_a) / n, sum(right_b) / n, share_difference(right_a, right_b)
    bits_a, bits_b = ([row["nats"] / math.log(2) for row in rows] for rows in zip(*pairs, strict=True))
    sizes = [row["bytes"] for row, _ in pairs]
    return sum(bits_a) / sum(sizes), sum(bits_b) / sum(sizes), ratio_difference(bits_a, bits_b, sizes, SEED)
