"""Seeded faults: verifiers that always say yes, always say no, or fall for a trick, and leaking splits."""

from collections.abc import Callable
from typing import Any

import pytest

from wuxing.core.evidence import Evidence
from wuxing.task.arithmetic import ArithmeticStep
from wuxing.task.check import baseline, check_task
from wuxing.task.number import final_number
from wuxing.task.task import Example
from wuxing.task.task_kind import TaskKind

CONFIG: dict[str, Any] = {
    "make": "task",
    "task": "arithmetic",
    "operations": [{"operation": "add", "high": 60}, {"operation": "subtract", "high": 60}],
    "examples": {"train": 200, "validation": 10, "test": 50},
}


class AlwaysYes(ArithmeticStep):
    def score(self, example: Example, reply: str) -> dict[str, float]:
        return {"correct": 1.0}


class AlwaysNo(ArithmeticStep):
    def score(self, example: Example, reply: str) -> dict[str, float]:
        return {"correct": 0.0}


class Contains(ArithmeticStep):
    """Any reply that holds the answer among its words: hedging pays."""

    def score(self, example: Example, reply: str) -> dict[str, float]:
        return {"correct": float(example.answer in reply.replace(".", "").split())}


class OffByOne(ArithmeticStep):
    def score(self, example: Example, reply: str) -> dict[str, float]:
        number = final_number(reply)
        return {"correct": float(number is not None and abs(number - int(example.answer)) <= 1)}


class Leaky(ArithmeticStep):
    """Adds one test problem to train, its operands exchanged."""

    def generate(self, seed: int) -> dict[str, list[Example]]:
        splits = super().generate(seed)
        leaked = next(e for e in splits["test"] if e.meta["operation"] == "add")
        splits["train"].append(Example("leak", leaked.messages, leaked.answer, dict(leaked.meta)))
        return splits


def failures(step: type[ArithmeticStep]) -> list[str]:
    settings, evidence = step.model_validate(CONFIG), Evidence()
    check_task(settings, settings.generate(7), evidence)
    return [line.split(" ")[0] for line in evidence.failures(TaskKind.required)]


@pytest.mark.parametrize(
    ("step", "caught_by"),
    [
        (ArithmeticStep, []),
        (AlwaysYes, ["verifier_rejects_wrong"]),
        (AlwaysNo, ["verifier_accepts_right"]),
        (Contains, ["verifier_rejects_wrong"]),
        (OffByOne, ["verifier_rejects_wrong"]),
        (Leaky, ["splits_disjoint"]),
    ],
)
def test_evidence_catches_exactly_the_seeded_fault(step: type[ArithmeticStep], caught_by: list[str]) -> None:
    assert failures(step) == caught_by


def test_a_task_whose_verifier_always_says_yes_stops_its_children(
    make_step: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ArithmeticStep, "score", AlwaysYes.score)
    artifact = make_step(TaskKind(), CONFIG, name="arithmetic")
    assert len(artifact.failures) == 1 and artifact.failures[0].startswith("verifier_rejects_wrong is 0")


def test_baseline_is_the_accuracy_of_the_commonest_answer() -> None:
    def one(answer: str) -> Example:
        return Example("x", [], answer)

    assert baseline([one("3"), one("3"), one("4")], [one("4"), one("3"), one("3"), one("5")]) == ("3", 0.5)
