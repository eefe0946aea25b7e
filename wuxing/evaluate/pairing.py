"""Two models on the same items: how large the difference is, and whether it could be chance."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Any

from wuxing.core.statistic import Difference, holm, ratio_difference, share_difference
from wuxing.evaluate.role import BITS
from wuxing.evaluate.subject import Score

if TYPE_CHECKING:
    from wuxing.evaluate.evaluation import Measured, Sets


def compare_all(measured: Mapping[str, Measured], sets: Sets, seed: int) -> list[dict[str, Any]]:
    """Every metric of every two models; `difference` is b minus a."""
    found: list[tuple[str, str, str, Difference]] = []
    for a, b in combinations(measured, 2):
        first, second = measured[a], measured[b]
        if first.role != second.role:
            continue
        if sets.corpus is not None and first.scores:
            metric = f"{BITS[first.role]}/{sets.corpus.name}"
            found.append((metric, a, b, compare_bits(first.scores, second.scores, seed)))
        if sets.corpus is not None and first.named:
            right, other = ([one.right for one in model.named] for model in (first, second))
            found.append((f"accuracy/{sets.corpus.name}", a, b, share_difference(right, other)))
        for task in sets.tasks:
            if first.correct[task]:
                found.append((f"accuracy/{task}", a, b, share_difference(first.correct[task], second.correct[task])))
    return with_adjusted(found)


def compare_bits(a: Sequence[Score], b: Sequence[Score], seed: int) -> Difference:
    """Difference in bits per byte on the same documents."""
    assert [score.id for score in a] == [score.id for score in b], "both models must be scored on the same documents"
    bits_a, bits_b = ([score.nats / math.log(2) for score in scores] for scores in (a, b))
    return ratio_difference(bits_a, bits_b, [score.bytes for score in a], seed)


def with_adjusted(found: Sequence[tuple[str, str, str, Difference]]) -> list[dict[str, Any]]:
    """As JSON, each with its p adjusted for how many comparisons there are."""
    adjusted = holm([difference.p for *_, difference in found])
    return [
        {"metric": metric, "a": a, "b": b, **difference.to_json(), "p_adjusted": p}
        for (metric, a, b, difference), p in zip(found, adjusted, strict=True)
    ]
