"""The small operations between the matrices, with backward passes written out.

Eager autograd keeps five tensors for an RMS norm, zero-fills slices for a rotation and keeps the product of a gated
unit; these keep their inputs only.  Each equals its plain formula (tests/model/test_fused.py), also when compiled.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

SHORT_ROW = 512
"""Tokens of a row up to which plain products win over PyTorch's attention on a CPU."""


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


class _Attend(torch.autograd.Function):
    """Heads that share keys lie on one axis: (B, K, G·T, C) against (B, K, T, C)."""

    @staticmethod
    def forward(ctx: Any, q_BHTC: Tensor, k_BKTC: Tensor, v_BKTC: Tensor, mask: Tensor | None, causal: bool) -> Tensor:
        rows, heads, tokens, channels = q_BHTC.shape
        shared = (rows, k_BKTC.shape[1], heads // k_BKTC.shape[1] * tokens)
        q = (q_BHTC * channels**-0.5).reshape(*shared, channels)
        scores = torch.matmul(q, k_BKTC.transpose(-1, -2)).view(rows, shared[1], -1, tokens, tokens)
        if mask is not None:
            scores = scores + mask[:, :, None]
        elif causal:
            scores = scores + torch.full(
                (tokens, tokens), float("-inf"), dtype=scores.dtype, device=scores.device
            ).triu(1)
        probs = scores.softmax(-1).view(*shared, tokens)
        out = torch.matmul(probs, v_BKTC)
        ctx.save_for_backward(q, k_BKTC, v_BKTC, probs, out)
        return out.view(q_BHTC.shape)

    @staticmethod
    def backward(ctx: Any, grad_BHTC: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        q, k, v, probs, out = ctx.saved_tensors
        grad = grad_BHTC.reshape(q.shape)
        along = (grad * out).sum(-1, keepdim=True)
        grad_v = torch.matmul(probs.transpose(-1, -2), grad)
        grad_scores = torch.matmul(grad, v.transpose(-1, -2)).sub_(along).mul_(probs)
        grad_q = torch.matmul(grad_scores, k).mul_(q.shape[-1] ** -0.5)
        return grad_q.view(grad_BHTC.shape), torch.matmul(grad_scores.transpose(-1, -2), q), grad_v, None, None


def attend(q_BHTC: Tensor, k_BKTC: Tensor, v_BKTC: Tensor, mask: Tensor | None, causal: bool = True) -> Tensor:
    """What the additive `mask` (B, 1, T, T) says, of heads that share keys; without one causal, or all of the row.

    PyTorch's CPU kernel spends most of its time in the backward pass; for short rows in bf16 plain products are faster
    (one Zen 5 core, forward and backward, 16 × 128 tokens 2.7×, 8 × 256 1.7×, 4 × 512 1.5×, 2 × 1,024 0.9×).  Their
    scores are rounded to bf16: 0.3 to 0.5 % off where PyTorch's are 0.2 to 0.4 %.
    """
    tokens = q_BHTC.shape[2]
    short = tokens <= SHORT_ROW and q_BHTC.device.type == "cpu" and q_BHTC.dtype == torch.bfloat16
    if short and torch.is_grad_enabled():
        return _Attend.apply(q_BHTC, k_BKTC, v_BKTC, mask, causal)
    shared = q_BHTC.shape[1] != k_BKTC.shape[1]
    back = causal and mask is None
    return F.scaled_dot_product_attention(q_BHTC, k_BKTC, v_BKTC, mask, is_causal=back, enable_gqa=shared)
