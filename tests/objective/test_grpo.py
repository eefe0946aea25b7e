"""GRPO against its formula, token by token; and the promise that cutting a step changes nothing."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch

from wuxing.data.batch import Batch
from wuxing.model.architecture import Architecture, resolve
from wuxing.model.network import Network
from wuxing.objective.grpo import Grpo, advantages, k3
from wuxing.objective.next_token import NextToken
from wuxing.objective.objective import Objective

VOCABULARY = 61
CUT_TOLERANCE = 2e-6
"""Relative, fp32: the same terms, added in another order."""


@pytest.fixture(scope="module")
def network() -> Network:
    architecture = Architecture(size="40k", width=32, layers=2, max_positions=64)
    return Network(resolve(architecture, VOCABULARY)).initialise(5)


def uneven_batch(rows: int = 7, tokens: int = 12) -> Batch:
    """Row r has r + 1 labels: a mean of means would weigh them wrongly by up to seven."""
    generator = torch.Generator().manual_seed(11)
    labels = torch.randint(VOCABULARY, (rows, tokens), generator=generator)
    for row in range(rows):
        labels[row, : tokens - row - 1] = -100
    return Batch(
        tokens_BT=torch.randint(VOCABULARY, (rows, tokens), generator=generator),
        labels_BT=labels,
        positions_BT=torch.arange(tokens).expand(rows, tokens).contiguous(),
        documents_BT=torch.zeros(rows, tokens, dtype=torch.int32),
        sample_ids=list(range(rows)),
        extra={
            "advantages": torch.randn(rows, 1, generator=generator).expand(rows, tokens).contiguous(),
            "sampler_logprobs": -3 - torch.rand(rows, tokens, generator=generator) * 2,
            "reference_logprobs": -3 - torch.rand(rows, tokens, generator=generator) * 2,
        },
    )


def gradient(network: Network, objective: Objective, pieces: list[Batch]) -> torch.Tensor:
    network.zero_grad()
    count = sum(int(objective.count(piece)) for piece in pieces)
    for piece in pieces:
        (objective(network, piece).sum / count).backward()
    return torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None])


@pytest.mark.parametrize("objective", [NextToken(), NextToken(smoothing=0.1, z_weight=1e-3), Grpo(), Grpo(kl=0.3)])
@pytest.mark.parametrize("pieces", [5, 7])
def test_cutting_a_step_does_not_change_its_gradient(network: Network, objective: Objective, pieces: int) -> None:
    batch = uneven_batch()
    bounds = [round(len(batch) * i / pieces) for i in range(pieces + 1)]
    cut = [batch.rows(a, b) for a, b in pairwise(bounds)]
    whole, parts = gradient(network, objective, [batch]), gradient(network, objective, cut)
    assert len(cut) == pieces and float((whole - parts).norm() / whole.norm()) < CUT_TOLERANCE


def test_a_mean_of_means_would_be_caught(network: Network) -> None:
    batch, objective = uneven_batch(), NextToken()
    network.zero_grad()
    for piece in batch.pieces(1):
        (objective(network, piece).sum / objective.count(piece) / len(batch)).backward()
    wrong = torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None])
    right = gradient(network, objective, [batch])
    assert float((wrong - right).norm() / right.norm()) > 0.1


def test_loss_equals_the_formula_token_by_token(network: Network) -> None:
    batch, grpo = uneven_batch(), Grpo(kl=0.25, clip_low=0.1, clip_high=0.3)
    with torch.no_grad():
        logprobs = network(batch.tokens_BT, batch.positions_BT, batch.documents_BT).log_softmax(-1)
    total = clipped = kl = 0.0
    for row, place in (batch.labels_BT >= 0).nonzero().tolist():
        now = float(logprobs[row, place, batch.labels_BT[row, place]])
        ratio = math.exp(now - float(batch.extra["sampler_logprobs"][row, place]))
        advantage = float(batch.extra["advantages"][row, place])
        bounded = min(max(ratio, 0.9), 1.3)
        total -= min(ratio * advantage, bounded * advantage)
        clipped += bounded * advantage < ratio * advantage
        apart = float(batch.extra["reference_logprobs"][row, place]) - now
        kl += math.exp(apart) - apart - 1
    loss = grpo(network, batch)
    assert float(loss.sum.detach()) == pytest.approx(total + 0.25 * kl, rel=1e-4)
    assert int(loss.sums["clipped"]) == clipped > 0
    assert float(loss.sums["kl_start"]) == pytest.approx(kl, rel=1e-4)
    assert int(grpo.count(batch)) == sum(range(1, 8))


def test_on_policy_gradient_is_the_policy_gradient(network: Network) -> None:
    """With the sampler's log-probs equal to the trainer's, ratios are 1: the gradient of advantage x log p."""
    batch = uneven_batch()
    keep = batch.labels_BT >= 0
    logprobs = network(batch.tokens_BT, batch.positions_BT, batch.documents_BT).log_softmax(-1)
    taken = logprobs.gather(-1, batch.labels_BT.clamp(min=0)[..., None]).squeeze(-1)
    batch.extra["sampler_logprobs"] = taken.detach()
    found = gradient(network, Grpo(), [batch])
    network.zero_grad()
    (-(taken * batch.extra["advantages"])[keep].sum() / keep.sum()).backward()
    expected = torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None])
    assert float((found - expected).norm() / expected.norm()) < 1e-5


def test_advantages_are_centred_and_equal_rewards_give_none() -> None:
    assert advantages([1.0, 1.0, 1.0]) == [0.0, 0.0, 0.0]
    found = advantages([1.0, 0.0, 0.0, 0.0])
    assert sum(found) == pytest.approx(0.0, abs=1e-12) and found[0] > 0 > found[1]
    assert sum(value * value for value in found) / 4 == pytest.approx(1.0, rel=1e-3)
    assert advantages([1.0, 0.0], normalise=False) == [0.5, -0.5]
    assert advantages([1.0, 0.0], normalise=False, negative_share=0.0) == [0.5, 0.0]


def test_k3_estimates_the_divergence() -> None:
    p, q = torch.tensor([0.5, 0.3, 0.2]), torch.tensor([0.25, 0.25, 0.5])
    expected = (p * (p / q).log()).sum()
    assert float((p * k3(p.log(), q.log())).sum()) == pytest.approx(float(expected), rel=1e-5)
    assert (k3(p.log(), q.log()) >= 0).all()
