"""The written-out backward passes against autograd through the plain formulas."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.testing import assert_close

from wuxing.model.fused import gated, rms_norm, rotate


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
