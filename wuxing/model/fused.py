"""The small operations between the matrices, with backward passes written out.

Eager autograd keeps five tensors for an RMS norm, zero-fills slices for a rotation and keeps the product of a gated
unit; these keep their inputs only.  Each equals its plain formula (tests/model/test_fused.py), also when compiled.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


class _RmsNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float, dtype: torch.dtype) -> Tensor:
        x32 = x.float()
        rate = torch.rsqrt(x32.square().mean(-1, keepdim=True) + eps)
        ctx.save_for_backward(x, weight, rate)
        return (x32 * rate).mul_(weight.float()).to(dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None]:
        x, weight, rate = ctx.saved_tensors
        grad = grad.float()
        unit = x.float() * rate
        grad_weight = (grad * unit).reshape(-1, x.shape[-1]).sum(0)
        scaled = grad * weight.float()
        along = (scaled * unit).mean(-1, keepdim=True)
        return (
            torch.addcmul(scaled, unit, along, value=-1).mul_(rate).to(x.dtype),
            grad_weight.to(weight.dtype),
            None,
            None,
        )


class _Rotate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor, dtype: torch.dtype) -> Tensor:
        ctx.save_for_backward(cos, sin)
        ctx.dtype = x.dtype
        return _turn(x, cos, sin, dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        cos, sin = ctx.saved_tensors
        return _turn(grad, cos, -sin, ctx.dtype), None, None, None


def _turn(x: Tensor, cos: Tensor, sin: Tensor, dtype: torch.dtype) -> Tensor:
    low, high = x.float().chunk(2, -1)
    return torch.cat((torch.addcmul(low * cos, high, sin, value=-1), torch.addcmul(high * cos, low, sin)), -1).to(dtype)


class _Gated(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up)
        return F.silu(gate).mul_(up)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        gate, up = ctx.saved_tensors
        grad_gate = torch.ops.aten.silu_backward(grad * up, gate)
        return grad_gate, F.silu(gate).mul_(grad)


def rms_norm(x: Tensor, weight: Tensor, eps: float, dtype: torch.dtype) -> Tensor:
    """x / rms(x) * weight over the last axis, computed in fp32, returned in `dtype`."""
    return _RmsNorm.apply(x, weight, eps, dtype)


def rotate(x_BTHC: Tensor, cos: Tensor, sin: Tensor, dtype: torch.dtype) -> Tensor:
    """Rotary embedding (Su et al. 2021) in the half-split layout, computed in fp32, returned in `dtype`."""
    return _Rotate.apply(x_BTHC, cos, sin, dtype)


def gated(gate: Tensor, up: Tensor) -> Tensor:
    """silu(gate) * up."""
    return _Gated.apply(gate, up)
