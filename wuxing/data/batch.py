"""What a loss needs besides the model: rows of tokens, their labels, and which documents they came from.

Shapes: B rows, T tokens of a row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch
from torch import Tensor

IGNORED = -100
"""The label of a position that teaches nothing."""

PADDING = -1
"""The document number of a position that holds no token."""

BATCH_SHARE = "batch_share"
"""The figure of a source that says how large a step was beside the largest; the learning rate may follow it."""


@dataclass
class Batch:
    """One piece of an optimizer step.

    Labels are already shifted: `labels_BT[b, t]` is the token that position t predicts, or `IGNORED`.
    A token attends to the tokens of its own document number in its own row, causally.
    """

    tokens_BT: Tensor
    labels_BT: Tensor
    positions_BT: Tensor
    """Place inside the document; starts at 0 again with each document."""
    documents_BT: Tensor
    """int32 document number inside the row, `PADDING` where there is no token."""
    task: str = "text"
    """The data set, for objectives and figures that differ by task."""
    sample_ids: list[int] = field(default_factory=list)
    """One per row: the place of the row in the sample plan, the same for any number of ranks."""
    extra: dict[str, Tensor] = field(default_factory=dict)
    """What one objective alone needs (advantages, log-probabilities), each B x T or B."""

    def __len__(self) -> int:
        return len(self.tokens_BT)

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on another device; from pinned memory it comes while the GPU works on."""
        moved: dict[str, Any] = {name: _to(getattr(self, name), device) for name in TENSORS}
        return replace(self, **moved, extra={name: _to(value, device) for name, value in self.extra.items()})

    def pinned(self) -> Batch:
        """The same batch in pinned memory."""
        fixed: dict[str, Any] = {name: getattr(self, name).pin_memory() for name in TENSORS}
        return replace(self, **fixed, extra={name: value.pin_memory() for name, value in self.extra.items()})

    def pieces(self, rows: int) -> list[Batch]:
        """Cut into batches of at most `rows` rows, in order."""
        return [self.rows(start, min(start + rows, len(self))) for start in range(0, len(self), rows)]

    def cut(self, parts: int) -> Batch:
        """Every row cut into `parts` shorter ones that do not see each other; their order and labels stay.

        A document that goes on over a cut begins to count its positions anew behind it.  Both keep the row's id.
        """
        if parts == 1:
            return self
        shape = (len(self) * parts, self.tokens_BT.shape[1] // parts)
        positions_BT, documents_BT = self.positions_BT.reshape(shape), self.documents_BT.reshape(shape)
        goes_on_BT = documents_BT == documents_BT[:, :1]
        cut = {name: getattr(self, name).reshape(shape) for name in TENSORS}
        cut["positions_BT"] = positions_BT - positions_BT[:, :1] * goes_on_BT
        extra = {
            name: value.reshape(shape) if value.ndim == 2 else value.repeat_interleave(parts)
            for name, value in self.extra.items()
        }
        ids = [sample for sample in self.sample_ids for _ in range(parts)]
        return replace(self, **cut, sample_ids=ids, extra=extra)

    def rows(self, start: int, stop: int) -> Batch:
        """The rows from `start` up to `stop`."""
        cut = {name: getattr(self, name)[start:stop] for name in TENSORS}
        extra = {name: value[start:stop] for name, value in self.extra.items()}
        return replace(self, **cut, sample_ids=self.sample_ids[start:stop], extra=extra)


def _to(tensor: Tensor, device: torch.device | str) -> Tensor:
    gpu = torch.device(device).type == "cuda"
    return tensor.to(device, non_blocking=gpu and not tensor.is_cuda and tensor.is_pinned())


TENSORS = ("tokens_BT", "labels_BT", "positions_BT", "documents_BT")


class BatchSource(Protocol):
    """Where batches come from: an endless sequence of optimizer steps, each a list of pieces.

    The sequence is a pure function of the plan and the position, so a source that was given the position of another
    goes on exactly as that one would have.
    """

    figures: dict[str, float]
    """What the source measured while it made the newest step; may be empty."""

    @property
    def digest(self) -> str:
        """The digest of the sample plan: two sources of one digest give the same samples in the same order."""
        ...

    def __next__(self) -> list[Batch]:
        """The pieces of the next step; this rank's share of them when several ranks train together."""
        ...

    def state_dict(self) -> Mapping[str, Any]:
        """The position, as JSON values."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go to a position.  Raises WuxingError when the state belongs to another plan."""
        ...

    def describe(self, sample_id: int) -> list[str]:
        """The records behind a sample, for people who look for the cause of a spike."""
        ...
