"""What is derived: learning rates over width and batch, the first weights, Muon's momentum; all by invariances."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from small_run import base_config, solver_config

from wuxing.model.architecture import Architecture, count_parameters, resolve
from wuxing.model.network import Network
from wuxing.train.config import ModelConfig, OptimizerConfig
from wuxing.train.update.law import learning_rate, settled
from wuxing.train.update.optimizer import Optimizer, momentum_at, orthogonalise

SIZES = ("300k", "1m", "5m", "10m", "30m", "100m", "350m")


def model(config: dict[str, Any]) -> ModelConfig:
    return ModelConfig.model_validate({"make": "model", **config})


def test_the_rate_falls_with_the_root_of_the_width_and_rises_with_the_root_of_the_batch() -> None:
    config = model(base_config(optimizer={}))
    for width in (64, 128, 512, 2048):
        for batch in (1024, 2048, 4096, 8192):
            rate = learning_rate(config, width, batch)
            assert learning_rate(config, 4 * width, batch) == pytest.approx(rate / 2, rel=0.06)  # two digits are kept
            assert learning_rate(config, width, 2 * batch) == pytest.approx(rate * math.sqrt(2), rel=0.06)
    lowest, highest = learning_rate(config, 256, 1), learning_rate(config, 256, 10**9)
    assert highest == pytest.approx(4 * lowest, rel=0.06)  # beyond a factor of four nobody has looked


def test_trained_weights_are_moved_less_than_fresh_ones() -> None:
    fresh, going_on = base_config(optimizer={}), base_config(optimizer={}, start_from="base")
    del going_on["architecture"], going_on["tokenizer"]
    configs = [model(fresh), model(going_on), model(solver_config(optimizer={}))]
    rates = [learning_rate(config, 256, 4096) for config in configs]
    tables = [settled(config).embedding_rate or 0.0 for config in configs]
    assert rates == sorted(rates, reverse=True) and len(set(rates)) == 3
    assert tables == sorted(tables, reverse=True) and tables[-1] == 1.0
    assert [settled(config).betas for config in configs] == [(0.8, 0.98), (0.9, 0.95), (0.9, 0.95)]
    assert settled(model(base_config(optimizer={"kind": "adamw"}))).betas == (0.9, 0.95)
    said = model(base_config(optimizer={"embedding_rate": 2.5, "momentum": 0.8, "betas": [0.7, 0.9]}))
    assert settled(said) == said.optimizer


@pytest.mark.parametrize("betas", [[0.9, 1.0], [-0.1, 0.95], [0.8, 1.5], [0.9]])
def test_betas_that_no_average_can_have_are_refused(betas: list[float]) -> None:
    with pytest.raises(ValidationError, match="betas"):
        OptimizerConfig.model_validate({"kind": "lion", "betas": betas})  # lion looked at none of them


@pytest.mark.parametrize("tied", [True, False])
def test_first_logits_and_states_do_not_depend_on_the_width(tied: bool) -> None:
    tokens_BT = torch.randint(0, 500, (4, 32), generator=torch.Generator().manual_seed(1))
    spreads = []
    for width in (64, 256, 768):
        architecture = Architecture(size="1m", width=width, layers=2, max_positions=32, tie_embeddings=tied)
        network = Network(resolve(architecture, 500)).initialise(3)
        with torch.no_grad():
            logits = network(tokens_BT)
        # the token itself stands out in a tied table: the others are looked at
        spreads.append(float(logits.median(-1).values.std() + (logits - logits.mean(-1, keepdim=True)).std()))
    assert max(spreads) / min(spreads) < 1.3
    assert 0.2 < spreads[1] < 0.6


def test_first_weights_are_as_documented() -> None:
    shape = resolve(Architecture(size="5m", width=256, layers=4, tie_embeddings=False), 2000)
    for name, tensor in Network(shape).initialise(3).named_parameters():
        deviation = float(tensor.detach().std())
        if name == "model.norm.weight":
            assert torch.equal(tensor, torch.full_like(tensor, 0.32 / (0.1 * math.sqrt(256))))
        elif "norm" in name:
            assert torch.equal(tensor, torch.ones_like(tensor))
        elif "embed_tokens" in name or "lm_head" in name:
            assert deviation == pytest.approx(0.1, rel=0.02)
        elif "o_proj" in name or "down_proj" in name:
            assert deviation == pytest.approx(1 / math.sqrt(tensor.shape[1] * 8), rel=0.02)
        else:
            assert deviation == pytest.approx(1 / math.sqrt(tensor.shape[1]), rel=0.02)


@pytest.mark.parametrize("vocabulary", [2048, 8192])
def test_one_dial_gives_sizes_and_proportions_that_rise_together(vocabulary: int) -> None:
    shapes = [resolve(Architecture(size=size), vocabulary) for size in SIZES[1 if vocabulary > 4000 else 0 :]]
    for size, shape in zip(SIZES[-len(shapes) :], shapes, strict=True):
        asked = Architecture(size=size).parameters
        assert count_parameters(shape) == pytest.approx(asked, rel=0.11 if asked < 10**7 else 0.06)
    widths = [shape["hidden_size"] for shape in shapes]
    assert widths == sorted(widths)
    aspects = [shape["hidden_size"] / shape["num_hidden_layers"] for shape in shapes[2:]]
    assert all(40 <= aspect <= 128 for aspect in aspects)


def test_momentum_rises_in_a_straight_line_and_stays() -> None:
    config = OptimizerConfig(momentum=0.95, momentum_warmup_steps=100)
    assert [momentum_at(config, n) for n in (0, 50, 100, 10**6)] == pytest.approx([0.85, 0.9, 0.95, 0.95])
    assert momentum_at(config, None) == 0.95
    assert momentum_at(OptimizerConfig(momentum=0.5), 3) == 0.5
    assert momentum_at(OptimizerConfig(momentum_warmup_steps=0), 0) == 0.95


def test_an_update_equals_its_plain_slow_form() -> None:
    """Muon with a rising momentum, tables at their own rate: every tensor for itself, AdamW as its paper has it."""
    config = OptimizerConfig(embedding_rate=7.0, weight_decay=0.1, momentum_warmup_steps=4)
    network = Network(resolve(Architecture(size="60k", width=32, layers=2, max_positions=32), 61)).initialise(5)
    weights = {name: tensor.detach().clone() for name, tensor in network.named_parameters()}
    moments: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
    optimizer, rate = Optimizer(network, config, 0.01), 0.01
    for number in range(6):
        factor = (number + 1) / 6
        for name, tensor in network.named_parameters():
            generator = torch.Generator().manual_seed(number * 1000 + len(name))
            tensor.grad = torch.randn(tensor.shape, generator=generator)
            first, second = moments.get(name, (torch.zeros_like(tensor), torch.zeros_like(tensor)))
            own = rate * factor * (7.0 if "embed" in name else 1.0)
            if tensor.ndim == 2 and "embed" not in name:
                momentum = 0.85 + 0.1 * min(1.0, number / 4)
                first = momentum * first + (1 - momentum) * tensor.grad
                update = orthogonalise(((1 - momentum) * tensor.grad + momentum * first)[None])[0]
                weights[name] = weights[name] * (1 - own * 0.1) - own * 0.2 * math.sqrt(max(tensor.shape)) * update
            else:
                first, second = 0.9 * first + 0.1 * tensor.grad, 0.95 * second + 0.05 * tensor.grad**2
                scaled = first / (1 - 0.9 ** (number + 1))
                weights[name] = weights[name] - own * scaled / ((second / (1 - 0.95 ** (number + 1))).sqrt() + 1e-8)
            moments[name] = first, second
        optimizer.step(factor, number)
    for name, tensor in network.named_parameters():
        # bf16 products of a batch and of one matrix may round apart: a thousandth of what six steps moved
        torch.testing.assert_close(tensor.detach(), weights[name], rtol=1e-4, atol=2e-4)
