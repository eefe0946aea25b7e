"""The written-out backward passes against autograd through the plain formulas."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.testing import assert_close

from wuxing.model.fused import _Attend, attend, gated, rms_norm, rotate


def _leaf(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(*shape, generator=generator, dtype=torch.float32).requires_grad_()


def _grads(out: Tensor, leaves: list[Tensor]) -> list[Tensor]:
    weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(3))
    return list(torch.autograd.grad((out.float() * weights).sum(), leaves))


def test_rms_norm() -> None:
    x, weight = _leaf(3, 5, 16), _leaf(16)
    plain = x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6) * weight
    ours = rms_norm(x, weight, 1e-6, torch.float32)
    assert_close(ours, plain)
    assert_close(_grads(ours, [x, weight]), _grads(plain, [x, weight]))


def test_rotate() -> None:
    x = _leaf(2, 7, 3, 8)
    angles = torch.outer(torch.arange(7.0), torch.tensor([1.0, 0.3, 0.1, 0.01]))[None, :, None]
    low, high = x[..., :4], x[..., 4:]
    plain = torch.cat((low * angles.cos() - high * angles.sin(), high * angles.cos() + low * angles.sin()), -1)
    ours = rotate(x, angles.cos(), angles.sin(), torch.float32)
    assert_close(ours, plain)
    assert_close(_grads(ours, [x]), _grads(plain, [x]))


def test_gated() -> None:
    gate, up = _leaf(6, 9), _leaf(9, 6).detach().T.contiguous().requires_grad_()
    assert_close(gated(gate, up), F.silu(gate) * up)
    assert_close(_grads(gated(gate, up), [gate, up]), _grads(F.silu(gate) * up, [gate, up]))


def test_second_inputs_in_bf16_keep_their_types() -> None:
    x, weight = _leaf(4, 16).detach().bfloat16().requires_grad_(), _leaf(16)
    out = rms_norm(x, weight, 1e-6, torch.bfloat16)
    grads = _grads(out, [x, weight])
    assert (out.dtype, grads[0].dtype, grads[1].dtype) == (torch.bfloat16, torch.bfloat16, torch.float32)
    exact = _leaf(4, 16).detach().bfloat16().float().requires_grad_()
    assert_close(grads[1], _grads(rms_norm(exact, weight, 1e-6, torch.float32), [weight])[0], rtol=0.02, atol=0.02)


def _plain_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, mask, is_causal=mask is None, enable_gqa=True)


def _mask(tokens: int) -> Tensor:
    """Two documents in the first row, three in the second."""
    numbers = torch.tensor([[0] * 5 + [1] * (tokens - 5), [0] * 2 + [1] * 3 + [2] * (tokens - 5)])
    seen = (numbers[:, :, None] == numbers[:, None]) & torch.ones(tokens, tokens, dtype=torch.bool).tril()
    return torch.zeros(seen.shape).masked_fill(~seen, float("-inf"))[:, None]


@pytest.mark.parametrize("kv_heads", [1, 2, 6])
@pytest.mark.parametrize("masked", [True, False])
def test_attention_of_short_rows(kv_heads: int, masked: bool) -> None:
    q, k, v = (_leaf(2, 11, heads, 8) for heads in (6, kv_heads, kv_heads))
    mask = _mask(11) if masked else None
    sides = [t.transpose(1, 2) for t in (q, k, v)]
    plain, ours = _plain_attention(*sides, mask), _Attend.apply(*sides, mask, True)
    assert_close(ours, plain)
    assert_close(_grads(ours, [q, k, v]), _grads(plain, [q, k, v]))


def test_attention_in_bf16_is_as_close_as_it_says() -> None:
    """To the exact result: within 1 % of its length, PyTorch's own kernel within 0.5 %."""
    exact = [(F.normalize(_leaf(2, heads, 200, 64), dim=-1) * 8).detach().bfloat16().float() for heads in (4, 2, 2)]
    exact = [side.requires_grad_() for side in exact]
    rough = [side.detach().bfloat16().requires_grad_() for side in exact]
    truth, ours = _plain_attention(*exact, None), attend(*rough, None)
    assert type(ours.grad_fn).__name__ == "_AttendBackward"
    pairs = zip([ours, *_grads(ours, rough)], [truth, *_grads(truth, exact)], strict=True)
    assert all((one.float() - other).norm() < 0.01 * other.norm() for one, other in pairs)
