"""Self-checks on the first batch: what the design promises about sums and masks, measured on the run's own network.

Shapes: B rows, T tokens.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from wuxing.data.batch import Batch
from wuxing.model.network import Network
from wuxing.objective.next_token import NextToken
from wuxing.objective.objective import Objective

ROWS = 4
"""Rows of the first batch that are checked: enough for pieces of uneven counts, cheap beside a step."""
CUT_TOLERANCE = 1e-5
"""Relative difference in fp32 of a sum taken in another order: rounding gives some 1e-7, a mean of means some 0.1."""
PACK_TOLERANCE = 1e-4
"""Difference in nats per token in fp32; leaking attention or wrong positions give some 0.1."""


def cut_difference(network: Network, objective: Objective, batch: Batch) -> float:
    """Relative difference between the gradient of a step in one piece and in pieces of one row, in fp32."""
    batch = batch.rows(0, ROWS).to(network.device)
    whole = _gradient(network, objective, [batch])
    cut = _gradient(network, objective, batch.pieces(1))
    return float((whole - cut).norm() / whole.norm().clamp(min=1e-30))


def _gradient(network: Network, objective: Objective, pieces: list[Batch]) -> Tensor:
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
    """Largest difference in nats per token between documents of packed rows and the same documents alone, in fp32."""
    batch = batch.rows(0, ROWS).to(network.device)
    worst = 0.0
    for row in range(len(batch)):
        documents_T = batch.documents_BT[row]
        apart: dict[int, Tensor] = {}
        for number in documents_T[documents_T >= 0].unique().tolist():
            place_T = (documents_T == number).nonzero().squeeze(-1)
            alone = _only(batch, row, place_T)
            count = int((alone.labels_BT >= 0).sum())
            if count:
                apart[number] = NextToken()(network, alone).sum / count
        for number, expected in apart.items():
            masked = batch.labels_BT[row : row + 1].where(batch.documents_BT[row : row + 1] == number, -100)
            one = replace(batch.rows(row, row + 1), labels_BT=masked)
            found = NextToken()(network, one).sum / (masked >= 0).sum()
            worst = max(worst, abs(float(found - expected)))
    return worst


def _only(batch: Batch, row: int, place_T: Tensor) -> Batch:
    """One document of a packed row, as a batch of its own."""
    return Batch(
        tokens_BT=batch.tokens_BT[row : row + 1, place_T],
        labels_BT=batch.labels_BT[row : row + 1, place_T],
        positions_BT=batch.positions_BT[row : row + 1, place_T],
        documents_BT=torch.zeros(1, len(place_T), dtype=torch.int32, device=batch.tokens_BT.device),
    )
