"""The gate: whether the evaluation says that the released model is better than the one it must beat."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from wuxing.core.artifact import Artifact
from wuxing.core.error import UsageError, WuxingError, nearest
from wuxing.core.file import read_json
from wuxing.release.release_kind import Gate

LOWER_IS_BETTER = ("bits_per_byte", "masked_bits_per_byte", "loss", "perplexity")


@dataclass(frozen=True)
class Verdict:
    """The gain with its interval, turned so that more is better."""

    passed: bool
    gain: float
    low: float
    high: float
    note: str

    def to_json(self) -> dict[str, Any]:
        return {"gain": self.gain, "low": self.low, "high": self.high}


def evaluated_name(evaluation: Artifact, model: Artifact) -> str:
    """What the evaluation calls the model.  Raises WuxingError when it did not judge it."""
    models = read_json(evaluation.file("results.json"))["models"]
    for name, entry in models.items():
        if entry["id"] == model.id:
            return str(name)
    known = ", ".join(entry["id"] for entry in models.values())
    raise WuxingError(f"{evaluation.id} did not evaluate {model.id}", f"It holds {known}")


def judge(gate: Gate, results: Mapping[str, Any], name: str) -> Verdict:
    """Compare model `name` with the one that it must beat.

    Raises UsageError when the evaluation has no such model, metric or comparison.
    """
    if gate.better_than not in results["models"]:
        raise UsageError(
            f'the gate asks for better than "{gate.better_than}", which the evaluation did not judge',
            nearest(gate.better_than, results["models"]),
        )
    if gate.better_than == name:
        raise UsageError(f"the gate asks that {name} be better than itself", "Name another model in better_than")
    wanted = {name, gate.better_than}
    rows = [row for row in results["comparisons"] if {row["a"], row["b"]} == wanted]
    row = next((row for row in rows if row["metric"] == gate.metric), None)
    if row is None:
        raise UsageError(
            f'the evaluation has no comparison of {name} with {gate.better_than} by "{gate.metric}"',
            nearest(gate.metric, {row["metric"] for row in rows}),
        )
    ends = [row["difference"], row["low"], row["high"]]
    if row["b"] != name:
        ends = [-ends[0], -ends[2], -ends[1]]
    if gate.metric.partition("/")[0] in LOWER_IS_BETTER:
        ends = [-ends[0], -ends[2], -ends[1]]
    gain, low, high = ends
    passed = gain >= gate.minimum_gain and low > 0
    note = f"{gate.metric} of {name} over {gate.better_than}, n = {row['n']}, interval [{low:.4g}, {high:.4g}]"
    return Verdict(passed, gain, low, high, note)
