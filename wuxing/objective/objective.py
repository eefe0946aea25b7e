"""How a batch becomes a loss: sums and counts, divided once by the count of the whole optimizer step.

Shapes: B rows, T tokens, D width, V vocabulary, N tokens that teach.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor

from wuxing.data.batch import Batch


class Model(Protocol):
    """What an objective needs of a network."""

    def hidden(
        self, tokens_BT: Tensor, positions_BT: Tensor | None = None, documents_BT: Tensor | None = None
    ) -> Tensor:
        """The states after the last norm, B x T x D."""
        ...

    @property
    def head_VD(self) -> Tensor:
        """The matrix that turns a state into logits."""
        ...


@dataclass
class Loss:
    """A loss before its division.  `sum` carries the gradient; `sums` are further figures to be shown."""

    sum: Tensor
    sums: dict[str, Tensor] = field(default_factory=dict)
    """Detached sums over the same tokens (`nats`, `correct`, ...): shown divided by the step's count."""


class Objective(Protocol):
    """Pure: the same model and batch give the same loss."""

    @property
    def figures(self) -> tuple[str, ...]:
        """The names of `Loss.sums`, the same for every batch: a rank without a label to learn from reports zeros."""
        ...

    def count(self, batch: Batch) -> Tensor:
        """What the sum is divided by, known before the forward pass: usually the labels that teach (int64 scalar)."""
        ...

    def __call__(self, model: Model, batch: Batch) -> Loss: ...
