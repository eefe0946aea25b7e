"""Learning which class a document belongs to, from the state of its last token.

Shapes: B rows, T tokens, D width, C classes, N documents.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from wuxing.core.step import Config
from wuxing.objective.next_token import taught

if TYPE_CHECKING:
    from torch import Tensor

    from wuxing.data.batch import Batch
    from wuxing.objective.objective import Loss, Model


class Classify(Config):
    """One class for each document of a corpus."""

    label: str = "label"
    """What holds the class, a word or a whole number: the records' own `label`, or a field of their meta."""
    class_weights: Literal["none", "balanced"] | dict[str, float] = "none"
    """What a document of each class counts: `balanced` gives every class the same weight in all, or a number by
    class, 1 unless named."""
    smoothing: float = Field(default=0.0, ge=0, lt=1)
    """Share of the uniform distribution mixed into each label; larger makes the model less sure of itself."""


@dataclass(frozen=True)
class ClassLoss:
    """Cross-entropy of each document's class, weighted, summed over the documents."""

    weights: Sequence[float]
    """Of each class; over all training documents their mean is 1, so that no weight changes the learning rate."""
    smoothing: float = 0.0

    @property
    def figures(self) -> tuple[str, ...]:
        """Explained at `__call__`."""
        return ("nats", "correct")

    def count(self, batch: Batch) -> Tensor:
        """The documents."""
        return (batch.labels_BT >= 0).sum()

    def __call__(self, model: Model, batch: Batch) -> Loss:
        """Figures: `nats` without weights and smoothing, `correct` documents."""
        import torch

        from wuxing.objective.objective import Loss

        hidden_ND, labels_N = taught(model, batch)
        with torch.autocast(hidden_ND.device.type, enabled=False):
            logprobs_NC = (hidden_ND.float() @ model.head_VD.float().T).log_softmax(-1)
        nats_N = -logprobs_NC.gather(-1, labels_N[:, None]).squeeze(-1)
        loss_N = (1 - self.smoothing) * nats_N - self.smoothing * logprobs_NC.mean(-1)
        weights_C = torch.tensor(self.weights, device=loss_N.device)
        correct = (logprobs_NC.argmax(-1) == labels_N).sum()
        return Loss((weights_C[labels_N] * loss_N).sum(), {"nats": nats_N.detach().sum(), "correct": correct})


def class_weights(config: Classify, classes: Sequence[str], counts: Sequence[int]) -> list[float]:
    """The weight of each class, scaled so that its mean over all documents is 1."""
    if config.class_weights == "none":
        return [1.0] * len(classes)
    if config.class_weights == "balanced":
        raw = [1 / count for count in counts]
    else:
        raw = [config.class_weights.get(name, 1.0) for name in classes]
    mean = sum(weight * count for weight, count in zip(raw, counts, strict=True)) / sum(counts)
    return [weight / mean for weight in raw]
