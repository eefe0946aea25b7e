"""Dropout whose masks belong to samples."""

from __future__ import annotations

import json

import pytest
import torch
from small_run import solver_config
from test_trainer import ROWS, flat, run, trainer

from wuxing.train.config import ModelConfig
from wuxing.train.update.dropout import Dropout, dropped


def test_a_mask_keeps_its_share_and_the_mean() -> None:
    mask = Dropout(0.3, 7).mask(4, 11, 2, 200, 300, torch.device("cpu"))
    kept = float((mask > 0).float().mean())
    assert abs(kept - 0.7) < 5 * (0.3 * 0.7 / mask.numel()) ** 0.5  # five standard errors
    assert set(mask.unique().tolist()) == {0.0, float(torch.tensor(1 / 0.7))}


@pytest.mark.parametrize("other", [(5, 11, 2), (4, 12, 2), (4, 11, 3)])
def test_masks_differ_by_step_sample_and_branch(other: tuple[int, int, int]) -> None:
    dropout, device = Dropout(0.5, 7), torch.device("cpu")
    one, two = dropout.mask(4, 11, 2, 40, 50, device), dropout.mask(*other, 40, 50, device)
    assert torch.equal(one, dropout.mask(4, 11, 2, 40, 50, device))
    assert 0.4 < float((one == two).float().mean()) < 0.6


def test_the_network_loses_what_the_masks_say_and_only_while_it_learns() -> None:
    """The two branches of the first block, taken apart by hand."""
    one = trainer()
    network, batch = one.network, next(one.source)[0]
    whole = network.hidden(batch.tokens_BT)
    seen: list[tuple[int, torch.Tensor]] = []
    with dropped(network, Dropout(0.4, 3), 0, batch.sample_ids):
        inner = network.drop
        assert inner is not None

        def spy(x: torch.Tensor, branch: int) -> torch.Tensor:
            seen.append((branch, x.detach()))
            return inner(x, branch)

        network.drop = spy
        network.hidden(batch.tokens_BT)
    assert [branch for branch, _ in seen] == [0, 1, 2, 3] and network.drop is None
    masks = [Dropout(0.4, 3).mask(0, sample, 0, *seen[0][1].shape[1:], torch.device("cpu")) for sample in range(ROWS)]
    x = network.model.embed_tokens(batch.tokens_BT) + seen[0][1] * torch.stack(masks)
    layer = network.model.layers[0]
    assert torch.allclose(layer.mlp(layer.post_attention_layernorm(x)), seen[1][1], atol=1e-6)
    assert torch.equal(network.hidden(batch.tokens_BT), whole)


def test_cutting_a_step_does_not_change_its_masks() -> None:
    whole, cut = trainer(), trainer(piece_rows=3)
    for one in (whole, cut):
        one.dropout = Dropout(0.3, 5)
    found = [one.gradients(next(one.source))[0] for one in (whole, cut)]
    assert found[0] == pytest.approx(found[1], rel=1e-6)
    for name, parameter in whole.optimizer.named.items():
        other = cut.optimizer.named[name].grad
        assert parameter.grad is not None and other is not None
        assert float((parameter.grad - other).norm() / parameter.grad.norm().clamp(min=1e-12)) < 1e-5, name


def test_a_run_with_dropout_goes_on_bit_for_bit() -> None:
    straight, first, second = (trainer() for _ in range(3))
    for one in (straight, first, second):
        one.dropout = Dropout(0.2, 5)
    run(straight, 8)
    run(first, 3)
    tensors = {name: {k: v.clone() for k, v in group.items()} for name, group in first.tensors().items()}
    second.load(tensors, json.loads(json.dumps(first.state())))
    assert torch.equal(flat(run(second, 5)), flat(straight))
    assert not torch.equal(flat(run(trainer(), 8)), flat(straight))


def test_replies_are_drawn_without_dropout_so_it_is_refused() -> None:
    with pytest.raises(ValueError, match="dropout and objective grpo contradict"):
        ModelConfig.model_validate({"make": "model", **solver_config(dropout=0.1)})
