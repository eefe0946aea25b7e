"""Whether a task can be trusted: disjoint splits, a verifier that accepts what is right and rejects what is wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

from wuxing.core.evidence import Evidence
from wuxing.task.task import SPLITS, Example

if TYPE_CHECKING:
    from wuxing.task.setting import TaskStep

TRIED_PER_SPLIT = 500
"""Examples of a split on which the verifier is tried; held-out splits are seldom larger."""
SHOWN = 3


def check_task(settings: TaskStep, splits: dict[str, list[Example]], evidence: Evidence) -> None:
    """Leave the evidence that a task owes."""
    _check_disjoint(settings, splits, evidence)
    tried = [example for split in SPLITS for example in splits[split][:TRIED_PER_SPLIT]]
    _check_accepts(settings, tried, evidence)
    _check_rejects(settings, tried, evidence)
    name, share = baseline(splits["train"], splits["test"])
    evidence.measure("baseline", share, f'accuracy on test of always answering "{name}"')
    counts = {split: len(examples) for split, examples in splits.items()}
    evidence.judge("counts", counts["train"] > 0 and counts["test"] > 0, counts, "train and test are not empty")
    different = {split: len({settings.identity(e) for e in examples}) for split, examples in splits.items()}
    evidence.measure("different_problems", different)


def baseline(train: Iterable[Example], test: list[Example]) -> tuple[str, float]:
    """The commonest answer of `train`, and how often it is right on `test`: what a model must beat."""
    answer = Counter(example.answer for example in train).most_common(1)[0][0]
    return answer, sum(example.answer == answer for example in test) / max(1, len(test))


def _check_disjoint(settings: TaskStep, splits: dict[str, list[Example]], evidence: Evidence) -> None:
    problems = {split: {settings.identity(example) for example in examples} for split, examples in splits.items()}
    shared = set().union(
        *(problems[a] & problems[b] for i, a in enumerate(SPLITS) for b in SPLITS[i + 1 :]),
    )
    note = f"problems in more than one split{_shown(sorted(shared))}"
    evidence.judge("splits_disjoint", not shared, len(shared), 0, note)


def _check_accepts(settings: TaskStep, examples: list[Example], evidence: Evidence) -> None:
    refused, tried = [], 0
    for example in examples:
        for reply in settings.right_replies(example):
            tried += 1
            if settings.score(example, reply)["correct"] != 1.0:
                refused.append(reply)
    share = 1 - len(refused) / max(1, tried)
    note = f"of {tried} right replies{_shown(refused)}"
    evidence.judge("verifier_accepts_right", tried > 0 and not refused, share, 1.0, note)


def _check_rejects(settings: TaskStep, examples: list[Example], evidence: Evidence) -> None:
    everything = " ".join(sorted({example.answer for example in examples}))
    accepted, tried = [], 0
    for number, example in enumerate(examples):
        other = next((o for o in examples[number + 1 :] + examples[:number] if o.answer != example.answer), None)
        question = example.messages[-2]["content"]
        tricks = ["", " ", "I do not know.", question, everything, f"{everything} {question}"]
        # A task whose every answer is the same has no "everything": those tricks would be the answer itself.
        tricks = tricks if other else tricks[:4]
        if other:
            tricks += [other.answer, other.messages[-1]["content"]]
        for reply in [*tricks, *settings.wrong_replies(example)]:
            tried += 1
            if settings.score(example, reply)["correct"] != 0.0:
                accepted.append(reply)
    share = 1 - len(accepted) / max(1, tried)
    note = f"of {tried} wrong, empty, echoed or hedged replies{_shown(accepted)}"
    evidence.judge("verifier_rejects_wrong", tried > 0 and not accepted, share, 1.0, note)


def _shown(replies: list[str]) -> str:
    return f"; first: {' | '.join(reply[:60] for reply in replies[:SHOWN])}" if replies else ""
