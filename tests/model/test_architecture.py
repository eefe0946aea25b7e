"""The one dial: what it derives, and that its count is the network's."""

from __future__ import annotations

import math

import pytest
import torch

from wuxing.core.error import UsageError
from wuxing.model.architecture import Architecture, count_parameters, describe, resolve
from wuxing.model.network import Network


@pytest.mark.parametrize("family", ["qwen3", "llama"])
@pytest.mark.parametrize("tied", [True, False])
def test_count_equals_the_networks_own(family: str, tied: bool) -> None:
    config = resolve(Architecture(family=family, size="2m", tie_embeddings=tied), 3000)
    with torch.device("meta"):
        network = Network(config)
    assert count_parameters(config) == sum(parameter.numel() for parameter in network.parameters())


def test_count_equals_the_networks_own_with_biases() -> None:
    config = resolve(Architecture(family="llama", size="1m"), 1000) | {"attention_bias": True, "mlp_bias": True}
    with torch.device("meta"):
        network = Network(config)
    assert count_parameters(config) == sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize("vocabulary", [4096, 8192, 32000])
@pytest.mark.parametrize("size", ["10m", "30m", "100m", "300m", "1b", "7b", "30b"])
def test_every_size_is_met_and_sound(size: str, vocabulary: int) -> None:
    architecture = Architecture(size=size)
    config = resolve(architecture, vocabulary)
    assert abs(math.log(count_parameters(config) / architecture.parameters)) <= math.log(1.3)
    assert config["num_attention_heads"] % config["num_key_value_heads"] == 0
    assert config["num_attention_heads"] * config["head_dim"] == config["hidden_size"]
    assert 0.3 < config["hidden_size"] / config["num_hidden_layers"] / 64 < 4
    assert f"{count_parameters(config):,}" in describe(config)


def test_larger_sizes_are_never_smaller_networks() -> None:
    counts = [count_parameters(resolve(Architecture(size=f"{n}m"), 8192)) for n in (2, 5, 10, 20, 50, 100, 200, 500)]
    assert counts == sorted(counts) and len(set(counts)) == len(counts)


def test_overrides_win() -> None:
    config = resolve(Architecture(size="5m", width=192, layers=3, heads=6, kv_heads=2, ffn_width=320), 8192)
    shape = ["hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "intermediate_size"]
    assert [config[key] for key in shape] == [192, 3, 6, 2, 320] and config["head_dim"] == 32


@pytest.mark.parametrize(
    ("settings", "vocabulary", "message"),
    [
        ({"size": "1m"}, 150_000, "no network of size 1m fits a vocabulary of 150,000. Choose a larger size"),
        ({"size": "5m", "width": 256, "heads": 7}, 8192, "width 256 does not split into 7 heads"),
        ({"size": "5m", "width": 256, "heads": 8, "kv_heads": 3}, 8192, "8 heads cannot share 3 kv_heads"),
    ],
)
def test_impossible_shapes_are_refused(settings: dict[str, object], vocabulary: int, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        resolve(Architecture.model_validate(settings), vocabulary)


@pytest.mark.parametrize("size", ["5", "m", "5 m", "-5m", "5t"])
def test_unreadable_sizes_are_refused(size: str) -> None:
    with pytest.raises(ValueError, match="write 5m, 100m or 1b"):
        Architecture(size=size)
