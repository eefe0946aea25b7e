"""Attention both ways: by every path against a slow truth, against transformers, and refused where text is written."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
import torch
import transformers
from test_network import ROUNDING, VOCABULARY, small, tokens
from torch import Tensor
from torch.testing import assert_close

from wuxing.core.error import WuxingError
from wuxing.generate.engine import Engine
from wuxing.model import native
from wuxing.model.architecture import Architecture, resolve
from wuxing.model.classifier import Classifier, classifier_from
from wuxing.model.encoder import Encoder, encoder_config, encoder_from
from wuxing.model.files import load_network, read_config, role_of, save_network
from wuxing.model.network import Network

MASK = 3


def encoder(family: str = "qwen3") -> Encoder:
    architecture = Architecture(family=family, size="300k", width=64, layers=3, max_positions=128)
    return Encoder(encoder_config(resolve(architecture, VOCABULARY, 0, 2), MASK)).initialise(7)


@torch.no_grad()
def slow_hidden(network: Network, ids: Tensor) -> Tensor:
    """One document alone in float64, with plain softmax over all of its tokens."""
    network = network.double()
    cos, sin = network.cos.double()[: len(ids)], network.sin.double()[: len(ids)]
    x = network.model.embed_tokens.weight[ids]

    def norm(x: Tensor, weight: Tensor) -> Tensor:
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6) * weight

    def turn(x: Tensor) -> Tensor:
        low, high = x.chunk(2, -1)
        return torch.cat((low * cos - high * sin, high * cos + low * sin), -1)

    for layer in network.model.layers:
        a = layer.self_attn
        y = norm(x, layer.input_layernorm.weight)
        sides = [p(y).view(len(ids), -1, a.channels).transpose(0, 1) for p in (a.q_proj, a.k_proj, a.v_proj)]
        if a.normed:
            sides[:2] = norm(sides[0], a.q_norm.weight), norm(sides[1], a.k_norm.weight)
        q, k = turn(sides[0]), turn(sides[1])
        k, v = (side.repeat_interleave(a.heads // a.kv_heads, 0) for side in (k, sides[2]))
        mixed = (q @ k.mT / a.channels**0.5).softmax(-1) @ v
        x = x + a.o_proj(mixed.transpose(0, 1).reshape(len(ids), -1))
        y = norm(x, layer.post_attention_layernorm.weight)
        x = x + layer.mlp.down_proj(torch.nn.functional.silu(layer.mlp.gate_proj(y)) * layer.mlp.up_proj(y))
    return norm(x, network.model.norm.weight)


@pytest.mark.parametrize("family", ["qwen3", "llama"])
def test_every_path_sees_all_of_a_document_and_nothing_else(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Alone, packed with a mask, in bf16 by plain products, and by the compiled kernels."""
    network, ids = encoder(family), tokens(1, 90)
    cuts = [0, 37, 80, 90]
    documents = torch.tensor([[0] * 37 + [1] * 43 + [-1] * 10], dtype=torch.int32)
    positions = torch.cat([torch.arange(b - a) for a, b in pairwise(cuts)])[None]
    truth = torch.cat([slow_hidden(encoder(family), ids[0, a:b]) for a, b in pairwise(cuts[:3])])
    with torch.no_grad():
        alone = network.hidden(ids[:, :37])[0]
        packed = network.hidden(ids, positions, documents)[0, :80]
    assert_close(alone.double(), truth[:37], rtol=1e-4, atol=1e-4)
    assert_close(packed.double(), truth, rtol=1e-4, atol=1e-4)
    found, direction = [], torch.randn(truth.shape, generator=torch.Generator().manual_seed(2))
    for kernels in ("1", "0"):
        if kernels == "0":
            monkeypatch.setattr(native, "kernels", lambda: "none")
        network.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            rounded = network.hidden(ids, positions, documents)[0, :80]
        (rounded.float() * direction).sum().backward()
        found.append(network.model.layers[0].self_attn.k_proj.weight.grad.clone())
        assert float((rounded.detach().double() - truth).norm() / truth.norm()) < 0.02
    assert float((found[0] - found[1]).norm() / found[1].norm()) < 0.03
    with torch.no_grad():
        assert not torch.allclose(small(family).hidden(ids[:, :37])[0], alone, rtol=0.01, atol=0.01)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("family", ["qwen3", "llama"])
def test_logits_equal_transformers(tmp_path: Path, family: str, attention: str) -> None:
    network = encoder(family)
    save_network(network, tmp_path)
    kind = transformers.AutoModelForCausalLM
    theirs = kind.from_pretrained(tmp_path, dtype=torch.float32, attn_implementation=attention).eval()
    assert theirs.config.is_causal is False
    ids = tokens(2, 60)
    with torch.no_grad():
        assert_close(network(ids), theirs(ids).logits, **ROUNDING)


def test_what_is_saved_says_so_and_is_refused_where_text_is_written(tmp_path: Path) -> None:
    save_network(encoder(), tmp_path / "encoder")
    save_network(small(), tmp_path / "writer")
    config = read_config(tmp_path / "encoder")
    assert config["is_causal"] is False and config["mask_token_id"] == MASK
    assert config["architectures"] == ["Qwen3ForMaskedLM"]
    assert [role_of(tmp_path / name) for name in ("encoder", "writer")] == ["encoder", "language model"]
    again = load_network(tmp_path / "encoder", kind=Encoder)
    assert again.mask_id == MASK and torch.equal(again(tokens(1, 9)), encoder()(tokens(1, 9)))
    with pytest.raises(WuxingError, match="an encoder, which sees both ways.*a causal server would compute"):
        load_network(tmp_path / "encoder")
    with pytest.raises(WuxingError, match="is no encoder"):
        load_network(tmp_path / "writer", kind=Encoder)
    with pytest.raises(WuxingError, match="writes no text"):
        Engine(encoder(), max_rows=1)


def test_a_body_goes_on_as_encoder_and_as_classifier(tmp_path: Path) -> None:
    """The weights stay; an encoder's classifier sees both ways as well, in transformers too."""
    save_network(small(), tmp_path / "writer")
    shape = encoder_config(read_config(tmp_path / "writer"), MASK)
    begun = encoder_from(tmp_path / "writer", shape)
    ids = tokens(1, 40)
    assert not torch.allclose(begun(ids), small()(ids), atol=0.01)
    save_network(begun, tmp_path / "encoder")
    assert torch.equal(encoder_from(tmp_path / "encoder", shape)(ids), begun(ids))
    names = classifier_from(tmp_path / "encoder", ["a", "b", "c"], 1)
    assert not names.causal and torch.equal(names.hidden(ids), begun.hidden(ids))
    save_network(names, tmp_path / "classifier")
    assert load_network(tmp_path / "classifier", kind=Classifier).config["is_causal"] is False
    kind = transformers.AutoModelForSequenceClassification
    theirs = kind.from_pretrained(tmp_path / "classifier", dtype=torch.float32).eval()
    with torch.no_grad():
        assert_close(theirs(ids).logits[0], names.hidden(ids)[0, -1] @ names.head_VD.T, **ROUNDING)
