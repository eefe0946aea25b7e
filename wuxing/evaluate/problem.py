"""What went wrong and what to do next, derived from figures by stated rules: no rule, no sentence."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from wuxing.evaluate.fact import Facts, ModelFacts

WIDE = 0.05
"""Half-width of an accuracy's interval above which the test set is called small, and the goal of the advice."""
STOPS = 0.9
"""Least share of replies that should end by themselves."""
DROPPED = 0.05
"""Share of raw records that one reason must take to be named."""
FALLING = 0.01
"""Relative fall of validation over its last interval above which training is said to have ended too early."""
LEVEL = 0.05


@dataclass(frozen=True)
class Problem:
    """One weakness.  `kind` names its sentence (`problem.<kind>`) and its remedy (`next.<kind>`) in the strings."""

    kind: str
    source: str
    """Id of the artifact whose figures say so."""
    values: dict[str, Any]
    grave: bool = False


def find_problems(facts: Facts) -> list[Problem]:
    """All that the rules find, the gravest first."""
    found = [
        *_missing(facts),
        *_failed_checks(facts),
        *_overlap(facts),
        *_weak_models(facts),
        *_comparisons(facts),
        *_replies(facts),
        *_slices(facts),
        *_unfinished(facts),
        *_small_sets(facts),
        *_drops(facts),
    ]
    return sorted(found, key=lambda problem: not problem.grave)


def _missing(facts: Facts) -> Iterator[Problem]:
    if facts.missing:
        yield Problem("missing", facts.evaluation.id, {"ids": ", ".join(facts.missing)}, grave=True)


def _failed_checks(facts: Facts) -> Iterator[Problem]:
    """Failed evidence, and what a person accepted although it failed."""
    for artifact in facts.ancestors.values():
        accepted = artifact.record.get("accepted")
        for failure in artifact.record["failures"]:
            values = {"failure": failure, "reason": accepted["reason"] if accepted else ""}
            yield Problem("accepted" if accepted else "failed", artifact.id, values, grave=True)


def _overlap(facts: Facts) -> Iterator[Problem]:
    overlap = facts.results["overlap"]
    if overlap["leaked"]:
        yield Problem(
            "leaked", facts.evaluation.id, {"count": overlap["leaked"], "items": overlap["items"]}, grave=True
        )
    if overlap["near"]:
        yield Problem("near", facts.evaluation.id, {"count": overlap["near"], "items": overlap["items"]})


def _weak_models(facts: Facts) -> Iterator[Problem]:
    """A model whose interval does not clear what needs no model at all."""
    for metric, baseline in facts.results["baselines"].items():
        for model in facts.models:
            value = model.metrics.get(metric)
            if value is None:
                continue
            beaten = value["high"] < baseline["value"] if lower_is_better(metric) else value["low"] > baseline["value"]
            if not beaten:
                values = {"model": model.name, "metric": metric, "value": value["value"], "baseline": baseline["value"]}
                yield Problem("baseline", facts.evaluation.id, values)


def _comparisons(facts: Facts) -> Iterator[Problem]:
    """Steps of the chain that brought nothing sure, or made something surely worse."""
    chain = {model.name: model.start for model in facts.models}
    ids = {model.artifact.id: model.name for model in facts.models}
    for one in facts.results["comparisons"]:
        if ids.get(chain.get(one["b"]) or "") != one["a"]:
            continue
        worse = one["difference"] > 0 if lower_is_better(one["metric"]) else one["difference"] < 0
        values = {key: one[key] for key in ("metric", "a", "b", "difference", "low", "high", "p_adjusted", "n")}
        if one["p_adjusted"] < LEVEL and worse:
            yield Problem("worse", facts.evaluation.id, values, grave=not one["metric"].startswith("bits_per_byte"))
        elif one["p_adjusted"] >= LEVEL and one["metric"].startswith("accuracy"):
            yield Problem("unsure", facts.evaluation.id, values)


def _replies(facts: Facts) -> Iterator[Problem]:
    for model in facts.models:
        for task, found in model.details.items():
            if found.get("stopped", 1.0) < STOPS:
                values = {"model": model.name, "task": task, "share": found["stopped"]}
                yield Problem("endless", facts.evaluation.id, values)


def _slices(facts: Facts) -> Iterator[Problem]:
    """Parts of a task in which the best model is surely worse than on the whole."""
    for metric in facts.results["baselines"]:
        best = best_model(facts, metric)
        if best is None or not metric.startswith("accuracy"):
            continue
        whole = best.metrics[metric]["value"]
        slices = best.details.get(metric.partition("/")[2], {}).get("slices", {})
        for part, value in slices.items():
            if value["high"] < whole:
                values = {"model": best.name, "metric": metric, "slice": part, "value": value["value"], "whole": whole}
                yield Problem("slice", facts.evaluation.id, {**values, "n": value["n"]})


def _unfinished(facts: Facts) -> Iterator[Problem]:
    """Validation that was still falling when the budget ended."""
    for model in facts.models:
        values = [value for _, value in model.curves.get("validation.bits_per_byte", [])]
        if len(values) < 3:
            continue
        fall = (values[-2] - values[-1]) / values[-2]
        if fall > FALLING:
            yield Problem("unfinished", model.artifact.id, {"model": model.name, "fall": fall})


def _small_sets(facts: Facts) -> Iterator[Problem]:
    for metric in facts.results["baselines"]:
        if not metric.startswith("accuracy"):
            continue
        widths = [
            (value["high"] - value["low"]) / 2
            for model in facts.models
            if (value := model.metrics.get(metric)) is not None
        ]
        if widths and max(widths) > WIDE:
            n = facts.models[0].metrics[metric]["n"]
            values = {"metric": metric, "n": n, "half": max(widths), "goal": WIDE, "needed": _needed(max(widths), n)}
            yield Problem("small", facts.evaluation.id, values)


def _drops(facts: Facts) -> Iterator[Problem]:
    for corpus in facts.corpora:
        for fate, count in corpus.fates.items():
            if fate != "kept" and corpus.total and count / corpus.total > DROPPED:
                values = {"name": corpus.artifact.name, "fate": fate, "count": count, "share": count / corpus.total}
                yield Problem("dropped", corpus.artifact.id, values)


def _needed(half: float, n: float) -> int:
    """Items that bring the half-width down to WIDE: it shrinks with the root of their number."""
    return int(math.ceil(n * (half / WIDE) ** 2 / 50) * 50)


def lower_is_better(metric: str) -> bool:
    """Bits and losses should fall, everything else rise."""
    return metric.startswith(("bits_per_byte", "masked_bits_per_byte", "calibration_error", "loss"))


def best_model(facts: Facts, metric: str) -> ModelFacts | None:
    """The model with the best value of a metric."""
    measured = [model for model in facts.models if metric in model.metrics]
    sign = 1 if lower_is_better(metric) else -1
    return min(measured, key=lambda model: sign * model.metrics[metric]["value"], default=None)
