"""Which replies a report shows: the first right ones, and the wrong ones of which the model was surest."""

from __future__ import annotations

from typing import Any

from wuxing.evaluate.fact import Facts
from wuxing.evaluate.string import Words
from wuxing.page.block import Code, Figure, Sample, Samples, compose

RIGHT, WRONG = 2, 3
LONGEST = 240


def samples_of(facts: Facts, words: Words) -> list[Samples]:
    """One block per model and task."""
    found = []
    for metric in facts.results["baselines"]:
        kind, _, task = metric.partition("/")
        if kind != "accuracy":
            continue
        for model in facts.models:
            rows = facts.samples(model.name, task)
            right = [row for row in rows if row["score"]["correct"]][:RIGHT]
            wrong = [row for row in rows if not row["score"]["correct"]]
            wrong.sort(key=lambda row: (-(row["mean_logprob"] if row["mean_logprob"] is not None else -99), row["id"]))
            samples = [_sample(row, facts.evaluation.id, words) for row in right + wrong[:WRONG]]
            found.append(Samples([Code(model.name), f" · {task}"], samples))
    return found


def _sample(row: dict[str, Any], source: str, words: Words) -> Sample:
    sure, right = row["mean_logprob"], bool(row["score"]["correct"])
    expected = compose(words("sample.expected"), {"answer": Figure(str(row["answer"]), source)})
    value = Figure("–" if sure is None else f"{sure:.2f}".replace("-", "−"), source)
    return Sample(
        right=right,
        question=_cut(row["prompt"][-1]["content"]),
        reply=_cut(row["reply"].strip()) or words("sample.empty"),
        expected=[] if right else expected,
        sure=compose(words("sample.sure"), {"value": value}),
    )


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
