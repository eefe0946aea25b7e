"""Finished runs as points of a scaling law: read from the store, and refused where they cannot be compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from wuxing.core.artifact import Artifact
from wuxing.core.error import UsageError
from wuxing.core.file import read_json
from wuxing.model.architecture import Architecture, count_parameters, resolve
from wuxing.train.plan.scaling import Point
from wuxing.train.update.schedule import Schedule

DECAYED = 0.2
"""A run whose last learning rate is a larger share of its highest has not shown yet how good it is."""
METRIC = "bits_per_byte"


@dataclass(frozen=True)
class Finished:
    """One run, and what must be the same in all runs of a law."""

    point: Point
    shape: dict[str, Any]
    """The values of its config.json."""
    architecture: dict[str, Any]
    alike: dict[str, Any]

    def shape_of_size(self, size: str) -> dict[str, Any]:
        """The shape that the dial gives at another size, with the same vocabulary."""
        fixed = {"width", "layers", "heads", "kv_heads", "ffn_width", "size"}
        rest = {key: value for key, value in self.architecture.items() if key not in fixed}
        return resolve(Architecture(size=size, **rest), int(self.shape["vocab_size"]))


def block_parameters(shape: Mapping[str, Any]) -> int:
    """Parameters of the blocks: all but the tables."""
    tables = 1 if shape["tie_word_embeddings"] else 2
    return count_parameters(dict(shape)) - tables * int(shape["vocab_size"]) * int(shape["hidden_size"])


def read_finished(model: Artifact) -> Finished:
    """The run behind a model.  Raises UsageError, with the reason, when it is no point of a law of pretraining."""
    if model.kind != "model":
        raise UsageError(f"{model.id} is no model", "Name models that wuxing run made")
    training, config = read_json(model.file("training.json")), model.config
    if config.get("start_from") or not config.get("architecture"):
        raise UsageError(
            f"{model.id} goes on from another model, so its own positions do not say what it has seen",
            "Name models that were trained from scratch",
        )
    measured = training["validation"][-1]
    if METRIC not in measured:
        raise UsageError(f"{model.id} was not measured in bits per byte", "Name models of the objective next_token")
    steps = int(training["steps"])
    if training["ended"] != "the budget is spent":
        raise UsageError(f"{model.id} ended early ({training['ended']})", "Name models that spent their budget")
    schedule = Schedule.model_validate(config["schedule"])
    averaged = config.get("average") is not None or config["optimizer"]["kind"] == "schedule_free"
    if not averaged and schedule.factor(steps - 1, steps) > max(DECAYED, 2 / steps):
        raise UsageError(
            f"{model.id} ended with a high learning rate: it would have been better after a decay",
            "Name models whose schedule decays (wsd, cosine, linear)",
        )
    shape = read_json(model.file("config.json"))
    point = Point(block_parameters(shape), float(training["positions"]), float(measured[METRIC]), model.id)
    data = [{key: one.get(key) for key in ("id", "content", "share")} for one in training["lineage"]["data"]]
    alike = {
        "data": data,
        "tokenizer": model.record["parents"]["tokenizer"]["content"],
        "validation.tokens": config["validation"]["tokens"],
        "length_tokens": training["length_tokens"],
        "optimizer": config["optimizer"]["kind"],
    }
    return Finished(point, shape, config["architecture"], alike)


def read_all(models: Sequence[Artifact]) -> list[Finished]:
    """The runs behind models.  Raises UsageError where two cannot be compared, naming both and what differs."""
    found = [read_finished(model) for model in models]
    for other in found[1:]:
        for what, value in found[0].alike.items():
            if other.alike[what] != value:
                raise UsageError(
                    f"{found[0].point.name} and {other.point.name} differ in {what}, so one law cannot hold for both",
                    "Name models of one recipe that differ in size and budget only",
                )
    return found
