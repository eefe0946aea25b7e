"""Self-checks on the first batch: what the design promises about sums and masks, measured on the run's own network.

Shapes: B rows, T tokens.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from wuxing.data.batch import Batch
from wuxing.model.network import Network
from wuxing.objective.objective import Objective

if TYPE_CHECKING:
    from wuxing.train.shard.cut import Shards

ROWS = 4
"""Rows of the first batch that are checked: enough for pieces of uneven counts, cheap beside a step."""
POSITIONS = 2048
"""Of longer rows two are enough: in fp32 four of 1,024 took seconds, and more memory than the training after them."""
CUT_TOLERANCE = 1e-5
"""Relative difference in fp32 of a sum taken in another order: rounding gives some 1e-7, a mean of means some 0.1."""
PACK_TOLERANCE = 1e-3
"""Relative difference of states in fp32: rounding gives some 1e-5, leaking attention or wrong positions above 0.05."""


def rows_checked(length: int) -> int:
    """How many rows of so many positions are looked at."""
    return max(2, min(ROWS, POSITIONS // length))


def cut_difference(network: Network, objective: Objective, batch: Batch, shards: Shards | None = None) -> float:
    """Relative difference between the gradient of a step in one piece and in pieces of one row, in fp32."""
    batch = batch.rows(0, rows_checked(batch.tokens_BT.shape[1])).to(network.device)
    if shards is not None:
        _backward(shards, objective, [batch])
        size = shards.norm()
        once = {name: mine.grad for name, mine in shards.named.items()}
        _backward(shards, objective, batch.pieces(1))
        for name, mine in shards.named.items():
            mine.grad = torch.sub(mine.grad, once[name])  # type: ignore[arg-type]
        return shards.norm() / max(size, 1e-30)
    whole = gradient_of(network, objective, [batch])
    cut = gradient_of(network, objective, batch.pieces(1))
    return float((whole - cut).norm() / whole.norm().clamp(min=1e-30))


def _backward(shards: Shards, objective: Objective, pieces: list[Batch]) -> None:
    """Leave the gradient of the same pieces on every process in its rows."""
    for mine in shards.named.values():
        mine.grad = None
    counts = [int(objective.count(piece)) for piece in pieces]
    taught = [piece for piece, count in zip(pieces, counts, strict=True) if count]
    for turn, piece in enumerate(taught):
        shards.last(turn + 1 == len(taught))
        (objective(shards.network, piece).sum / sum(counts)).backward()
    shards.collect()


def gradient_of(network: Network, objective: Objective, pieces: list[Batch]) -> Tensor:
    """The gradient of a step in these pieces, in fp32, as one vector."""
    counts = [int(objective.count(piece)) for piece in pieces]
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    total = [torch.zeros_like(parameter) for parameter in parameters]
    for piece, count in zip(pieces, counts, strict=True):
        if count:
            loss = objective(network, piece).sum / sum(counts)
            for place, gradient in zip(total, torch.autograd.grad(loss, parameters), strict=True):
                place += gradient
    return torch.cat([gradient.flatten() for gradient in total])


@torch.no_grad()
def pack_difference(network: Network, batch: Batch) -> float:
    """Largest difference between the states of packed documents and of the same documents alone, in fp32.

    As a share of the states' root mean square; 0 when no row holds two documents.
    """
    batch = batch.rows(0, rows_checked(batch.tokens_BT.shape[1])).to(network.device)
    packed_BTD = network.hidden(batch.tokens_BT, batch.positions_BT, batch.documents_BT)
    worst = 0.0
    for row in range(len(batch)):
        documents_T = batch.documents_BT[row]
        for number in documents_T[documents_T >= 0].unique().tolist():
            place_T = (documents_T == number).nonzero().squeeze(-1)
            alone_TD = network.hidden(batch.tokens_BT[row, place_T][None], batch.positions_BT[row, place_T][None])[0]
            difference = (packed_BTD[row, place_T] - alone_TD).abs().max()
            worst = max(worst, float(difference / alone_TD.square().mean().sqrt()))
    return worst
