"""Learning to predict the next token: pretraining, and fine-tuning with the prompts' labels ignored.

Shapes: B rows, T tokens, D width, V vocabulary, N tokens that teach.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from wuxing.core.step import Config

if TYPE_CHECKING:
    from torch import Tensor

    from wuxing.data.batch import Batch
    from wuxing.objective.objective import Loss, Model


class NextToken(Config):
    """Cross-entropy of each label, summed over the labels that teach."""

    smoothing: float = Field(default=0.0, ge=0, lt=1)
    """Share of the uniform distribution mixed into each label; larger makes the model less sure of itself."""
    z_weight: float = Field(default=0.0, ge=0)
    """Weight of the squared log partition; larger keeps the logits nearer to zero (1e-4 is usual)."""

    @property
    def figures(self) -> tuple[str, ...]:
        """Explained at `__call__`."""
        return ("nats", "correct")

    def count(self, batch: Batch) -> Tensor:
        """The labels that teach."""
        return (batch.labels_BT >= 0).sum()

    def __call__(self, model: Model, batch: Batch) -> Loss:
        """Figures: `nats` without smoothing and z-loss, `correct` labels with the top logit."""
        from wuxing.objective.cross_entropy import nats_sum
        from wuxing.objective.objective import Loss

        hidden_ND, labels_N = taught(model, batch)
        loss, nats, correct = nats_sum(hidden_ND, model.head_VD, labels_N, self.smoothing, self.z_weight)
        return Loss(loss, {"nats": nats.detach(), "correct": correct})


def taught(model: Model, batch: Batch) -> tuple[Tensor, Tensor]:
    """(states, labels) of the positions that teach, N x D and N: the others never meet the vocabulary."""
    hidden_BTD = model.hidden(batch.tokens_BT, batch.positions_BT, batch.documents_BT)
    labels = batch.labels_BT.flatten()
    hidden = hidden_BTD.flatten(0, 1)
    keep = labels >= 0
    if bool(keep.all()):
        return hidden, labels
    place_N = keep.nonzero().squeeze(-1)
    return hidden.index_select(0, place_N), labels.index_select(0, place_N)
