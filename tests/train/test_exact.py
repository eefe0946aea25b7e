"""Sums that no order, no cutting over processes and no number of them changes."""

from __future__ import annotations

import math
from random import Random

import pytest
import torch
from small_run import base_config, base_parents

from wuxing.compute.mesh import Topology
from wuxing.core.artifact import Artifact
from wuxing.core.error import RefusedError
from wuxing.data.packing import pack
from wuxing.data.plan import Stage
from wuxing.data.source import PackedSource
from wuxing.data.tokens import open_tokens
from wuxing.train.assemble import assemble
from wuxing.train.config import ModelConfig
from wuxing.train.update.exact import ExactSum, exact_sums


def gradients(pieces: int) -> list[torch.Tensor]:
    """As those of a network: sizes over ten decades."""
    draw = torch.Generator().manual_seed(3)
    sizes = 10 ** (torch.rand(pieces, 4000, generator=draw) * 10 - 9)
    return list(torch.randn(pieces, 4000, generator=draw) * sizes)


def added(parts: list[torch.Tensor]) -> torch.Tensor:
    parameter, total = torch.nn.Parameter(torch.zeros(4000)), ExactSum()
    for part in parts:
        parameter.grad = part.clone()
        total.take({"p": parameter})
        assert parameter.grad is None
    total.give({"p": parameter})
    assert parameter.grad is not None
    return parameter.grad


def test_any_order_gives_the_same_bits_and_the_right_sum() -> None:
    """Slow truth: `math.fsum`.  Plain fp32 sums differ in the same orders, so the test can fail."""
    parts = gradients(12)
    first, plain, other_plain = added(parts), sum(parts, torch.zeros(4000)), 0
    for seed in range(5):
        Random(seed).shuffle(parts)
        assert torch.equal(added(parts), first)
        other_plain += int(not torch.equal(sum(parts, torch.zeros(4000)), plain))
    assert other_plain == 5
    truth = torch.tensor([math.fsum(column) for column in torch.stack(parts).double().T.tolist()], dtype=torch.float64)
    assert ((first.double() - truth).abs() <= 12 * 2.0**-49 + truth.abs() * 2.0**-24).all()


def test_values_that_are_not_finite_stay_so() -> None:
    parts = gradients(2)
    parts[0][7], parts[1][9], parts[1][11] = math.inf, math.nan, 3e30
    found = added(parts)
    assert not torch.isfinite(found[7]) and not torch.isfinite(found[9]) and found[11] == 3e30
    assert math.isnan(exact_sums([[1.0, math.inf], [2.0, 1.0]], 2)[1]) and exact_sums([], 2) == [0.0, 0.0]
    values = [[1e16], [1.0], [-1e16]]
    assert exact_sums(values, 1) == exact_sums(values[::-1], 1) == [1.0]


@pytest.mark.parametrize("ranks", [2, 3, 4, 8])
def test_a_step_is_cut_into_the_same_pieces_for_any_number_of_processes(world: dict[str, Artifact], ranks: int) -> None:
    def pieces(rank: int, ranks: int) -> list[list[tuple[int, ...]]]:
        packings = {"articles": pack(open_tokens(world["articles"].path, "train"), 64)}
        source = PackedSource(packings, {"articles": 1.0}, 7, 20, 16, rank, ranks, same_pieces=True)
        source.stages = [Stage(0, 4, 1), Stage(8, 20, 2), Stage(48, 20, 1)]
        return [[tuple(piece.sample_ids) for piece in next(source)] for _ in range(6)]

    alone = pieces(0, 1)
    dealt = [pieces(rank, ranks) for rank in range(ranks)]
    for step, whole in enumerate(alone):
        assert [dealt[number % ranks][step][number // ranks] for number in range(len(whole))] == whole
        assert sum(len(of_rank[step]) for of_rank in dealt) == len(whole)
    assert len(alone[5]) == 10 and sorted({sample for piece in alone[0] for sample in piece}) == [0, 1, 2, 3]


def test_where_it_is_on_and_where_it_cannot_be(world: dict[str, Artifact]) -> None:
    halves = {"articles": 0.5, "dialogues": 0.5}
    follow = base_config(data=halves, mixture={"rule": "progress"})
    for changes, expected in (({}, True), ({"exact_sums": False}, False)):
        assert ModelConfig.model_validate({"make": "model", **follow, **changes}).adds_exactly is expected
    assert not ModelConfig.model_validate({"make": "model", **base_config()}).adds_exactly
    sums = {"optimizer": {"kind": "adafactor"}, "sharding": "shard"}
    mixed = ModelConfig.model_validate({"make": "model", **follow, **sums})
    with pytest.raises(RefusedError, match="adafactor adds up squares over rows and columns") as refused:
        assemble(mixed, base_parents(world), 7, torch.device("cpu"), torch.float32, None, Topology(1, 2))
    assert "sharding: replicate" in str(refused.value.remedy)
