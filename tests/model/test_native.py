"""The compiled kernels against their slow twins; attention over spans against a dense mask; recomputed against kept."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from wuxing.model import flex, float8, native, span
from wuxing.model.architecture import Architecture, resolve
from wuxing.model.fused import attend, rms_norm, rotate
from wuxing.model.network import Network, document_mask
from wuxing.objective import cross_entropy
from wuxing.objective.cross_entropy import nats_sum

ROUNDED = 0.006
"""Of the length of a tensor: bf16 rounds each number by 0.2 % on average, and twice on the way."""
BF16 = torch.bfloat16


@pytest.fixture(autouse=True)
def kernels() -> None:
    assert not isinstance(native.kernels(), str), native.kernels()


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed + sum(shape))).bfloat16().float()


def near(ours: Tensor | None, truth: Tensor | None, tolerance: float = ROUNDED) -> bool:
    assert ours is not None and truth is not None
    return float(((ours.float() - truth).norm() / truth.norm()).detach()) < tolerance


@pytest.mark.parametrize("width", [64, 100, 33])
@pytest.mark.parametrize("with_delta", [True, False])
def test_norm(width: int, with_delta: bool) -> None:
    x, weight, delta = draw(3, 7, width), 1 + draw(width) / 4, draw(3, 7, width, seed=9)
    ours = [x.clone().requires_grad_(), weight.clone().requires_grad_(), delta.bfloat16().requires_grad_()]
    plain = [x.clone().requires_grad_(), weight.clone().requires_grad_(), delta.clone().requires_grad_()]
    total, out = native.norm(ours[0], ours[2] if with_delta else None, ours[1], 1e-6)
    expected_total = plain[0] + plain[2] if with_delta else plain[0]
    expected = rms_norm(expected_total, plain[1], 1e-6, torch.float32)
    assert torch.equal(total, expected_total) and near(out, expected)
    along, grad = draw(*x.shape, seed=1), draw(*x.shape, seed=2)
    torch.autograd.backward([total, out], [along, grad.bfloat16()])
    torch.autograd.backward([expected_total, expected], [along, grad])
    for one, other in list(zip(ours, plain, strict=True))[: 2 + with_delta]:
        assert near(one.grad, other.grad)


@pytest.mark.parametrize("normed", [True, False])
@pytest.mark.parametrize(("heads", "kv_heads", "channels"), [(4, 2, 16), (3, 1, 64), (2, 2, 10)])
def test_heads(heads: int, kv_heads: int, channels: int, normed: bool) -> None:
    rows, tokens, group = 2, 9, heads // kv_heads
    x = draw(rows, tokens, (heads + 2 * kv_heads) * channels)
    weights = [1 + draw(channels, seed=n) / 4 for n in range(2)]
    angles = torch.rand(rows, tokens, 1, channels // 2, generator=torch.Generator().manual_seed(1)) * 6
    ours, plain = x.bfloat16().requires_grad_(), x.clone().requires_grad_()
    mine, theirs = ([w.clone().requires_grad_() for w in weights] for _ in range(2))
    pair = (mine[0], mine[1]) if normed else None
    found = native.heads(ours, pair, angles.cos(), angles.sin(), (heads, kv_heads, channels, 1e-6))
    q, k, v = plain.view(rows, tokens, -1, channels).split([heads, kv_heads, kv_heads], 2)
    if normed:
        q, k = (rms_norm(side, w, 1e-6, torch.float32) for side, w in zip((q, k), theirs, strict=True))
    q, k = (rotate(side, angles.cos(), angles.sin(), torch.float32) for side in (q, k))
    q = (q * channels**-0.5).view(rows, tokens, kv_heads, group, channels).transpose(1, 2)
    expected = (q, k.transpose(1, 2), v.transpose(1, 2))
    assert all(near(one, other) for one, other in zip(found, expected, strict=True))
    grads = [draw(*side.shape, seed=n) for n, side in enumerate(expected)]
    torch.autograd.backward(found, [grad.bfloat16() for grad in grads])
    torch.autograd.backward(expected, grads)
    assert near(ours.grad, plain.grad)
    assert not normed or all(near(a.grad, b.grad) for a, b in zip(mine, theirs, strict=True))


def test_gated() -> None:
    both = draw(5, 3, 66) * 3
    ours, plain = both.bfloat16().requires_grad_(), both.clone().requires_grad_()
    out, expected = native.gated(ours), F.silu(plain[..., :33]) * plain[..., 33:]
    assert near(out, expected)
    grad = draw(5, 3, 33)
    out.backward(grad.bfloat16())
    expected.backward(grad)
    assert near(ours.grad, plain.grad)


def documents(rows: int, tokens: int, padding: int = 0) -> Tensor:
    starts = torch.rand(rows, tokens, generator=torch.Generator().manual_seed(tokens)) < 1 / 40
    numbers = starts.cumsum(1).int()
    if padding:
        numbers[-1, -padding:] = -1
    return numbers


@pytest.mark.parametrize(("tokens", "padding"), [(1, 0), (77, 5), (300, 0), (530, 30)])
@pytest.mark.parametrize(("heads", "kv_heads"), [(4, 2), (3, 1), (2, 2)])
@pytest.mark.parametrize("causal", [True, False])
def test_attention_over_spans_equals_a_dense_mask(
    tokens: int, padding: int, heads: int, kv_heads: int, causal: bool
) -> None:
    rows, channels, numbers = 3, 16, documents(3, tokens, padding)
    sides = [draw(rows, n, tokens, channels, seed=n) for n in (heads, kv_heads, kv_heads)]
    sides = [sides[0].mul(channels**-0.5).bfloat16().float(), *sides[1:]]
    plain = [side.clone().requires_grad_() for side in sides]
    mask = document_mask(numbers, torch.float32, causal)
    expected = attend(plain[0] * channels**0.5, plain[1], plain[2], mask, causal)
    group = heads // kv_heads
    q = sides[0].view(rows, kv_heads, group, tokens, channels).transpose(2, 3).contiguous()
    ours = [side.bfloat16().requires_grad_() for side in (q, *sides[1:])]
    seen = span.spans(numbers, rows, tokens, heads, causal)
    assert seen is not None
    out = span.within(ours[0], ours[1], ours[2], seen)
    assert near(out, expected.transpose(1, 2).reshape(rows, tokens, -1), 0.01)
    grad = draw(*out.shape)
    out.backward(grad.bfloat16())
    expected.backward(grad.view(rows, tokens, heads, channels).transpose(1, 2))
    truth = plain[0].grad
    assert truth is not None and ours[0].grad is not None
    found = ours[0].grad.transpose(2, 3).reshape(truth.shape)
    if tokens > 1:  # one token alone: its score has no gradient
        assert near(found, truth, 0.01) and near(ours[1].grad, plain[1].grad, 0.01)
    assert near(ours[2].grad, plain[2].grad, 0.01)


def test_documents_that_do_not_lie_side_by_side_take_the_dense_mask() -> None:
    assert span.spans(torch.tensor([[0, 1, 0]]), 1, 3, 2) is None
    assert span.spans(torch.tensor([[0, -1, 1]]), 1, 3, 2) is None


@pytest.mark.parametrize(("smoothing", "z_weight"), [(0.0, 0.0), (0.1, 0.0), (0.2, 1e-3)])
def test_cross_entropy(smoothing: float, z_weight: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cross_entropy, "native_slice_tokens", lambda vocabulary: 64)
    hidden, head = draw(150, 32), draw(97, 32) / 2
    labels = torch.randint(97, (150,), generator=torch.Generator().manual_seed(3))
    results = []
    for ready in (native.ready, lambda dtype, device: False):
        monkeypatch.setattr(native, "ready", ready)
        leaves = [hidden.clone().requires_grad_(), head.clone().requires_grad_()]
        with torch.autocast("cpu", BF16):
            loss, nats, correct = nats_sum(leaves[0].bfloat16(), leaves[1], labels, smoothing, z_weight)
        (loss / 7).backward()
        results.append([loss.detach(), nats, correct.float(), *(leaf.grad for leaf in leaves)])
    # the same bf16 logits: the losses differ by fp32 sums, the gradients by how often slices were rounded
    assert all(near(a, b, 1e-6 if n < 3 else 0.003) for n, (a, b) in enumerate(zip(*results, strict=True)))


def test_a_logit_that_is_not_a_number_is_seen() -> None:
    head = draw(97, 32)
    head[5] = torch.nan
    with torch.autocast("cpu", BF16):
        loss, _, _ = nats_sum(draw(10, 32).bfloat16(), head.requires_grad_(), torch.zeros(10, dtype=torch.int64))
    assert not bool(torch.isfinite(loss))


def small(family: str = "qwen3") -> Network:
    shape = resolve(Architecture(family=family, size="300k", width=64, layers=3, max_positions=256), 311)
    return Network(shape).initialise(7)


def gradients(network: Network, precision: torch.dtype) -> list[Tensor]:
    tokens = torch.randint(0, 311, (3, 200), generator=torch.Generator().manual_seed(5))
    with torch.autocast("cpu", precision, enabled=precision != torch.float32):
        hidden = network.hidden(tokens, None, documents(3, 200))
    leaves = list(network.parameters())
    return list(torch.autograd.grad((hidden.float() * draw(*hidden.shape)).sum(), leaves))


@pytest.mark.parametrize("family", ["qwen3", "llama"])
def test_a_network_is_as_close_to_fp32_as_by_the_twins(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    network = small(family)
    exact, ours = gradients(network, torch.float32), gradients(network, BF16)
    monkeypatch.setattr(native, "ready", lambda dtype, device: False)
    twins = gradients(network, BF16)
    errors = [[float((a - b).norm() / b.norm()) for a, b in zip(side, exact, strict=True)] for side in (ours, twins)]
    assert max(errors[0]) < 0.05 and sum(errors[0]) < 1.1 * sum(errors[1])


@pytest.mark.parametrize("precision", [torch.float32, BF16])
def test_recomputed_blocks_give_the_same_bits_and_twice_too(precision: torch.dtype) -> None:
    network = small()
    kept = gradients(network, precision)
    assert all(torch.equal(a, b) for a, b in zip(kept, gradients(network, precision), strict=True))
    network.recompute = True
    assert all(torch.equal(a, b) for a, b in zip(kept, gradients(network, precision), strict=True))


@pytest.mark.parametrize("causal", [True, False])
def test_flex_attention_sees_what_the_dense_mask_sees(causal: bool) -> None:
    numbers = documents(2, 256, 20)
    q, k, v = (draw(2, heads, 256, 16, seed=heads) for heads in (4, 2, 2))
    with torch.no_grad():
        found = flex.flex(q, k, v, flex.document_blocks(numbers, causal))
        assert near(found, attend(q, k, v, document_mask(numbers, torch.float32, causal), causal), 1e-5)


def test_rows_are_scaled_each_by_its_own_largest_value() -> None:
    x = draw(8, 32)
    x[3] *= 1000
    for dtype, tolerance in ((float8.FORWARD, 0.04), (float8.BACKWARD, 0.08)):
        rounded, factor = float8.scaled(x, dtype)
        back = rounded.float() * factor
        assert all(near(back[n], x[n], tolerance) for n in range(8))
