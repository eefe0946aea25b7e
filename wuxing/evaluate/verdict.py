"""Whether the figures of an evaluation can be trusted: its evidence."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from wuxing.core.evidence import Evidence
from wuxing.core.step import Draft
from wuxing.evaluate.classes import confusions, try_classes
from wuxing.evaluate.role import BITS
from wuxing.evaluate.selftest import TOLERANCE, try_accuracy

if TYPE_CHECKING:
    from wuxing.evaluate.evaluation import Measured, Sets


def judge(results: dict[str, Any], measured: Mapping[str, Measured], sets: Sets, draft: Draft) -> None:
    """Leave every check in the draft's evidence."""
    evidence = draft.evidence
    tried = {f"accuracy/{name}": try_accuracy(one.task, one.examples) for name, one in sets.tasks.items()}
    for role, metric in BITS.items():
        trials = [one.bits_trial for one in measured.values() if one.bits_trial and one.role == role]
        if trials:
            tried[metric] = min(trials, key=lambda trial: float(trial["plain"]))
    classifiers = {name: one for name, one in measured.items() if one.named}
    if classifiers:
        best = max(classifiers.values(), key=lambda one: sum(named.right for named in one.named))
        tried["classes"] = try_classes(best.named)
        judge_classes(results, classifiers, draft.evidence)
    numb = [metric for metric, trial in tried.items() if not trial["passed"]]
    note = "measures that do not fall with exchanged answers, or not rise with shuffled words"
    evidence.judge("metrics_react", bool(tried) and not numb, numb, [], note)
    evidence.measure("metric_trials", tried)
    worst = max(one.scorer_error for one in measured.values())
    evidence.judge("scorer_exact", worst <= TOLERANCE, worst, TOLERANCE, "nats from a plain forward pass")
    figures = [value for model in results["models"].values() for value in model["metrics"].values()]
    sound = bool(figures) and all(_is_sound(value) for value in figures)
    evidence.judge("intervals", sound, len(figures), "every figure is finite and inside its interval")
    evidence.measure("defaults", results["settings"])
    too_long = {
        f"{name}/{task}": found["too_long"]
        for name, model in results["models"].items()
        for task, found in model["details"].items()
        if found.get("too_long")
    }
    evidence.judge("prompts_fit", not too_long, too_long, {}, "prompts that left no room for a reply count as wrong")
    evidence.measure("baselines", {metric: found["value"] for metric, found in results["baselines"].items()})


def judge_classes(results: Mapping[str, Any], classifiers: Mapping[str, Measured], evidence: Evidence) -> None:
    """Whether each is surely better than naming one class always, and what else is known of its classes."""
    metric = next(name for name in results["baselines"] if name.startswith("accuracy/"))
    majority, corpus = results["baselines"][metric], metric.partition("/")[2]
    surely = {name: round(results["models"][name]["metrics"][metric]["low"], 4) for name in classifiers}
    note = f'lower end of the accuracy, against always "{majority["answer"]}"'
    threshold = f"> {majority['value']:.4g}"
    evidence.judge("beats_majority", min(surely.values()) > majority["value"], surely, threshold, note)
    details = {name: results["models"][name]["details"][corpus] for name in classifiers}
    classes = {
        name: {
            one["class"]: {key: one[key] and round(one[key]["value"], 4) for key in ("precision", "recall")}
            | {"f1": round(one["f1"], 4), "n": one["n"]}
            for one in found["classes"]
        }
        for name, found in details.items()
    }
    evidence.measure("classes", classes, "precision, recall and F1 of each class, and its documents")
    evidence.measure("confusions", {name: confusions(found) for name, found in details.items()}, "the commonest")
    calibration = {
        name: {
            "error": round(results["models"][name]["metrics"][f"calibration_error/{corpus}"]["value"], 4),
            "by_chance": round(found["calibration"]["by_chance"], 4),
        }
        for name, found in details.items()
    }
    evidence.measure("calibration", calibration, "expected calibration error, and what perfect calibration would show")


def _is_sound(value: Mapping[str, float]) -> bool:
    numbers = [value["low"], value["value"], value["high"]]
    return all(map(math.isfinite, numbers)) and numbers == sorted(numbers) and value["n"] > 0
