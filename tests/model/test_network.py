"""Our networks against transformers', packed against separate rows, compiled against eager."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor
from torch.testing import assert_close

from wuxing.model.architecture import Architecture, resolve
from wuxing.model.files import load_network, save_network
from wuxing.model.network import Network

VOCABULARY = 311
ROUNDING = {"rtol": 1e-4, "atol": 2e-5}
"""fp32 sums of 64 to 256 products in another order."""
ROPES: list[dict[str, Any]] = [
    {"rope_type": "default", "rope_theta": 10_000.0},
    {"rope_type": "linear", "rope_theta": 10_000.0, "factor": 2.5},
    {
        "rope_type": "llama3",
        "rope_theta": 500_000.0,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    },
]


def small(family: str = "qwen3", **settings: Any) -> Network:
    architecture = Architecture(family=family, size="300k", width=64, layers=3, max_positions=128, **settings)
    return Network(resolve(architecture, VOCABULARY, 0, 2)).initialise(7)


def tokens(*shape: int) -> Tensor:
    return torch.randint(0, VOCABULARY, shape, generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize("family", ["qwen3", "llama"])
@pytest.mark.parametrize("tied", [True, False])
def test_logits_equal_transformers(tmp_path: Path, family: str, tied: bool) -> None:
    network = small(family, tie_embeddings=tied)
    save_network(network, tmp_path)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    assert type(theirs).__name__ == {"qwen3": "Qwen3ForCausalLM", "llama": "LlamaForCausalLM"}[family]
    with torch.no_grad():
        assert_close(network(tokens(3, 100)), theirs(tokens(3, 100)).logits, **ROUNDING)


@pytest.mark.parametrize("rope", ROPES, ids=lambda rope: rope["rope_type"])
@pytest.mark.parametrize("family", ["qwen3", "llama"])
def test_their_models_load_and_go_back(tmp_path: Path, family: str, rope: dict[str, Any]) -> None:
    kind = {"qwen3": transformers.Qwen3Config, "llama": transformers.LlamaConfig}[family]
    biases = {"attention_bias": True, "mlp_bias": True} if family == "llama" else {}
    config = kind(
        vocab_size=VOCABULARY, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=16, max_position_embeddings=256, rope_parameters=rope,
        tie_word_embeddings=False, **biases,
    )  # fmt: skip
    torch.manual_seed(1)
    theirs = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.15)
    theirs.save_pretrained(tmp_path / "theirs")
    ours = load_network(tmp_path / "theirs")
    with torch.no_grad():
        expected = theirs(tokens(2, 200)).logits
        assert_close(ours(tokens(2, 200)), expected, **ROUNDING)
        save_network(ours, tmp_path / "ours")
        again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "ours", dtype=torch.float32).eval()
        assert torch.equal(again(tokens(2, 200)).logits, expected)


def test_gradients_equal_transformers(tmp_path: Path) -> None:
    """Of a network without a padding token: transformers gives that one's row of the table no gradient."""
    network = small()
    network.config["pad_token_id"] = None
    save_network(network, tmp_path)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    for model in (network, theirs):
        out = model(tokens(2, 40))
        logits = out if isinstance(out, Tensor) else out.logits
        torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), tokens(2, 40)[:, 1:].flatten()).backward()
    wanted = dict(theirs.named_parameters())
    for name, parameter in network.named_parameters():
        assert_close(parameter.grad, wanted[name].grad, rtol=1e-3, atol=1e-6, msg=lambda m, name=name: f"{name}: {m}")


@pytest.mark.parametrize("family", ["qwen3", "llama"])
def test_packed_equals_separate(family: str) -> None:
    """Documents side by side in one row, with padding behind them, are what they are alone: states and gradients."""
    network, lengths = small(family), [5, 1, 17, 9]
    documents = [tokens(1, 40)[:, start : start + length] for start, length in enumerate(lengths)]
    pad = 8
    row = torch.cat([*documents, torch.zeros(1, pad, dtype=torch.int64)], 1)
    numbers = torch.tensor([[n for n, length in enumerate(lengths) for _ in range(length)] + [-1] * pad])
    positions = torch.tensor([[p for length in lengths for p in range(length)] + [0] * pad])
    packed = network(row, positions, numbers)[0, : sum(lengths)]
    separate = torch.cat([network(document)[0] for document in documents])
    assert_close(packed, separate, rtol=1e-5, atol=1e-5)
    assert bool(torch.isfinite(packed).all())
    weights = torch.randn(packed.shape, generator=torch.Generator().manual_seed(2))
    leaves = list(network.parameters())
    pairs = zip(*(torch.autograd.grad((out * weights).sum(), leaves) for out in (packed, separate)), strict=True)
    for one, other in pairs:
        assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_a_document_does_not_see_its_neighbours() -> None:
    """Seeded fault: without the document numbers the second document changes."""
    network, row = small(), tokens(1, 12)
    numbers, positions = torch.tensor([[0] * 6 + [1] * 6]), torch.tensor([[*range(6), *range(6)]])
    other = row.clone()
    other[0, 0] += 1
    with torch.no_grad():
        assert torch.equal(network(row, positions, numbers)[0, 6:], network(other, positions, numbers)[0, 6:])
        assert not torch.equal(network(row, positions)[0, 6:], network(other, positions)[0, 6:])


def test_the_future_is_not_seen() -> None:
    network, row = small(), tokens(1, 12)
    other = row.clone()
    other[0, 8:] += 1
    with torch.no_grad():
        assert torch.equal(network(row)[0, :8], network(other)[0, :8])


def test_compiled_equals_eager() -> None:
    architecture = Architecture(size="100k", width=32, layers=1, max_positions=128)
    network = Network(resolve(architecture, VOCABULARY)).initialise(7)
    numbers = torch.tensor([[0] * 9 + [1] * 7])
    eager = [network.hidden(tokens(1, 16)), network.hidden(tokens(1, 16), None, numbers)]
    weights = torch.randn(eager[0].shape, generator=torch.Generator().manual_seed(2))
    grads = torch.autograd.grad(sum((out * weights).sum() for out in eager), list(network.parameters()))
    network.model.compile(backend="aot_eager")
    compiled = [network.hidden(tokens(1, 16)), network.hidden(tokens(1, 16), None, numbers)]
    assert_close(compiled, eager)
    assert_close(torch.autograd.grad(sum((out * weights).sum() for out in compiled), list(network.parameters())), grads)


def test_autocast_stays_close() -> None:
    network = small()
    with torch.no_grad():
        exact = network(tokens(2, 60)).softmax(-1)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rough = network(tokens(2, 60)).float().softmax(-1)
    assert (exact - rough).abs().sum(-1).max() < 0.03  # total variation; bf16 has 8 bits


def test_weights_follow_from_the_seed_alone() -> None:
    first, second, other = small(), small(), small().initialise(8)
    torch.manual_seed(99)
    third = small()
    for name, parameter in first.named_parameters():
        assert torch.equal(parameter, dict(second.named_parameters())[name])
        assert torch.equal(parameter, dict(third.named_parameters())[name])
    assert not torch.equal(first.model.embed_tokens.weight, other.model.embed_tokens.weight)


@pytest.mark.parametrize("width", [64, 256, 512])
def test_the_first_distribution_is_nearly_flat_at_any_width(width: int) -> None:
    network = Network(resolve(Architecture(size="1m", width=width, layers=4), VOCABULARY)).initialise(3)
    with torch.no_grad():
        logits = network(tokens(2, 50))
    assert 0.2 < logits.std().item() < 0.5
