"""Products in float8 with a scale for each row (Micikevicius et al. 2022), where the card has them.

Inputs and weights in e4m3, gradients in e5m2; each row, and each column on the other side, is scaled by its own largest
value, so that one outlier spoils one row.  Sums are made in fp32 by the card, results are bf16.

Shapes: N tokens, I channels in, O channels out.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from wuxing.core.error import UsageError

FORWARD, BACKWARD = torch.float8_e4m3fn, torch.float8_e5m2
LEAST = 1e-12
"""Below this a row counts as zero."""


def refuse_without_float8(device: torch.device) -> None:
    """Raises UsageError where the device has no float8 products."""
    if device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 9):
        return
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "a CPU"
    raise UsageError(
        f"precision is float8, and {name} has no float8 products",
        "Write precision: bf16, or use a card of compute capability 8.9 or more (Ada, Hopper, Blackwell)",
    )


def scaled(x_NI: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """(rows in float8, the factor of each row, N x 1, that gives them back)."""
    top = x_NI.abs().amax(-1, keepdim=True).float().clamp(min=LEAST)
    factor = top / torch.finfo(dtype).max
    return (x_NI.float() / factor).to(dtype), factor


def product(a_NI: Tensor, b_OI: Tensor, a_type: torch.dtype = FORWARD, b_type: torch.dtype = FORWARD) -> Tensor:
    """a b^T in bf16 of both in float8, each scaled by row."""
    a, a_factor = scaled(a_NI, a_type)
    b, b_factor = scaled(b_OI, b_type)
    return torch._scaled_mm(a, b.T, a_factor, b_factor.T, out_dtype=torch.bfloat16)


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_NI: Tensor, weight_OI: Tensor) -> Tensor:
        ctx.save_for_backward(x_NI, weight_OI)
        return product(x_NI, weight_OI)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_NO: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x_NI, weight_OI = ctx.saved_tensors
        grad_x = product(grad_NO, weight_OI.T, BACKWARD) if ctx.needs_input_grad[0] else None
        if not ctx.needs_input_grad[1]:
            return grad_x, None
        return grad_x, (grad_NO.bfloat16().T @ x_NI.bfloat16()).to(weight_OI.dtype)  # the sum over tokens stays in bf16


def linear(x: Tensor, weight_OI: Tensor) -> Tensor:
    """x W^T; sides must be multiples of 16, as the card wants them."""
    with torch.autocast(x.device.type, enabled=False):
        return _Linear.apply(x.flatten(0, -2), weight_OI).view(*x.shape[:-1], -1)
