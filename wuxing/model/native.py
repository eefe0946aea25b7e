"""The compiled kernels between the matrix products of a step on a CPU in bf16, as functions that autograd knows.

Products stay PyTorch's; what lies between them goes through `native.c`, built once per machine.  Where there is no C
compiler, on other devices, in fp32 and inside `torch.compile` the plain twins of `fused.py` run.

Shapes: B rows, T tokens, N = B x T, D width, H query heads, K key-value heads, G = H / K, C head channels, F inner.
"""

from __future__ import annotations

import ctypes
import os
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from wuxing.text.kernel import compiled

SOURCE = Path(__file__).with_name("native.c")
FLAGS = ("-std=c99", "-O3", "-march=native", "-fopenmp", "-fno-math-errno", "-fno-trapping-math", "-fPIC", "-shared")
MAX_CHANNELS = 512


class _Heads(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_int64) for name in ("rows", "tokens", "heads", "kv_heads", "channels", "table_rows")),
        ("eps", ctypes.c_float),
        ("threads", ctypes.c_int),
    ]


class Block(ctypes.Structure):
    """A block of scores: what `wuxing_softmax_*` read."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("rows", "sides", "queries", "group", "keys")),
        *((name, ctypes.c_int64) for name in ("first_query", "first_key", "tokens")),
        ("threads", ctypes.c_int),
    ]


@cache
def kernels() -> ctypes.CDLL | str:
    """The compiled kernels, or one line that says why there are none."""
    if os.environ.get("WUXING_NATIVE") == "0":
        return "WUXING_NATIVE=0 says so"
    found = compiled(SOURCE, FLAGS, _instructions())
    if isinstance(found, str):
        return found
    p, n, i, f = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int, ctypes.c_float
    heads, block = ctypes.POINTER(_Heads), ctypes.POINTER(Block)
    arguments = {
        "norm_forward": [p, p, p, p, p, p, n, n, f, i],
        "norm_backward": [p, p, p, p, p, p, p, p, n, n, i],
        "heads_forward": [heads, *[p] * 8],
        "heads_backward": [heads, *[p] * 10],
        "softmax_forward": [block, p, p, p],
        "softmax_backward": [block, p, p, p, p],
        "swap": [p, p, n, n, n, n, i],
        "gated_forward": [p, p, n, n, i],
        "gated_backward": [p, p, p, n, n, i],
        "cross_entropy": [p, p, p, p, p, n, n, f, f, i, i],
        "add": [p, p, n, i, i],
    }
    for name, types in arguments.items():
        function = getattr(found, f"wuxing_{name}")
        function.argtypes, function.restype = types, None
    return found


def _instructions() -> str:
    """What `-march=native` means here."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.is_file() else []
    return next((line for line in lines if line.startswith(("flags", "Features"))), "")


def ready(dtype: torch.dtype, device: torch.device) -> bool:
    """Whether the kernels take what is multiplied in `dtype` on this device, here and now."""
    plain = device.type == "cpu" and dtype == torch.bfloat16 and not torch.compiler.is_compiling()
    return plain and not isinstance(kernels(), str)


def state(device: torch.device) -> str:
    """Which way a step goes on this device in bf16: it decides the last bits."""
    return "compiled" if ready(torch.bfloat16, device) else "torch"


def call(name: str, *arguments: Any) -> None:
    """One kernel; tensors are handed over by their address and must be contiguous."""
    found = kernels()
    assert isinstance(found, ctypes.CDLL)
    getattr(found, f"wuxing_{name}")(*[_address(a) if isinstance(a, Tensor) else a for a in arguments])


def _address(tensor: Tensor) -> int:
    assert tensor.is_contiguous(), "a kernel was given a tensor with holes"
    return tensor.data_ptr()


class _Norm(torch.autograd.Function):
    """(x + delta, its norm): the residual stream in fp32, the norm in bf16."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, delta: Tensor | None, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
        x = x.contiguous()
        delta = None if delta is None else delta.contiguous()
        width, threads = x.shape[-1], torch.get_num_threads()
        total = x if delta is None else torch.empty_like(x)
        out = torch.empty_like(x, dtype=torch.bfloat16)
        rate = torch.empty(x.shape[:-1], dtype=torch.float32)
        call("norm_forward", x, delta, weight, total, out, rate, rate.numel(), width, eps, threads)
        ctx.save_for_backward(total, weight, rate)
        ctx.has_delta = delta is not None
        return (x.view_as(x) if delta is None else total), out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, along: Tensor | None, grad: Tensor) -> tuple[Tensor | None, ...]:
        total, weight, rate = ctx.saved_tensors
        threads = torch.get_num_threads()
        grad_x = torch.empty_like(total)
        grad_delta = torch.empty_like(total, dtype=torch.bfloat16) if ctx.has_delta else None
        parts = torch.zeros(threads, total.shape[-1])
        along = None if along is None else along.contiguous()
        call(
            "norm_backward", grad.contiguous(), along, total, weight, rate, grad_x, grad_delta, parts,
            rate.numel(), total.shape[-1], threads,
        )  # fmt: skip
        return grad_x, grad_delta, parts.sum(0), None


def norm(x: Tensor, delta: Tensor | None, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """(x + delta, its RMS norm): x and the sum in fp32, delta and the norm in bf16."""
    total, out = _Norm.apply(x, delta, weight, eps)
    return total, out


class _Joined(torch.autograd.Function):
    """One product for several matrices that read the same input; masters in fp32, products in bf16."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, *weights: Tensor) -> Tensor:
        x_ND = x.flatten(0, -2)
        sizes = [len(weight) for weight in weights]
        joined = torch.empty(sum(sizes), x.shape[-1], dtype=torch.bfloat16)
        for part, weight in zip(joined.split(sizes), weights, strict=True):
            part.copy_(weight)
        ctx.save_for_backward(x_ND, joined)
        ctx.sizes, ctx.shape, ctx.dtypes = sizes, x.shape, [weight.dtype for weight in weights]
        out = x.new_empty(*x.shape[:-1], sum(sizes))
        torch.mm(x_ND, joined.T, out=out.flatten(0, -2))
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x_ND, joined = ctx.saved_tensors
        grad = grad.flatten(0, -2)
        wanted = ctx.needs_input_grad
        grad_x = (grad @ joined).view(ctx.shape) if wanted[0] else None
        if not any(wanted[1:]):
            return grad_x, *(None for _ in ctx.sizes)
        parts = zip((grad.T @ x_ND).split(ctx.sizes), ctx.dtypes, wanted[1:], strict=True)
        return grad_x, *(part.to(dtype) if needed else None for part, dtype, needed in parts)


def joined(x: Tensor, *weights: Tensor) -> Tensor:
    """x times each of the matrices (out, in), side by side on the last axis, in bf16."""
    return _Joined.apply(x, *weights)


class _Split(torch.autograd.Function):
    """See `heads`."""

    @staticmethod
    def forward(
        ctx: Any, qkv: Tensor, q_weight: Tensor | None, k_weight: Tensor | None, cos: Tensor, sin: Tensor, sizes: Any
    ) -> tuple[Tensor, Tensor, Tensor]:
        heads, kv_heads, channels, eps = sizes
        rows, tokens = qkv.shape[:2]
        cos, sin = cos.contiguous(), sin.contiguous()
        ctx.sizes = _Heads(rows, tokens, heads, kv_heads, channels, len(cos), eps, torch.get_num_threads())
        q = qkv.new_empty(rows, kv_heads, tokens, heads // kv_heads, channels)
        k, v = qkv.new_empty(rows, kv_heads, tokens, channels), qkv.new_empty(rows, kv_heads, tokens, channels)
        call("heads_forward", ctypes.byref(ctx.sizes), qkv, q_weight, k_weight, cos, sin, q, k, v)
        ctx.save_for_backward(qkv, q_weight, k_weight, cos, sin)
        return q, k, v

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        qkv, q_weight, k_weight, cos, sin = ctx.saved_tensors
        grad = torch.empty_like(qkv)
        parts = torch.zeros(ctx.sizes.threads, 2, ctx.sizes.channels)
        sides = [side.contiguous() for side in grads]
        call("heads_backward", ctypes.byref(ctx.sizes), qkv, q_weight, k_weight, cos, sin, *sides, grad, parts)
        of_q, of_k = parts.sum(0) if q_weight is not None else (None, None)
        return grad, of_q, of_k, None, None, None


def heads(
    qkv: Tensor, norms: tuple[Tensor, Tensor] | None, cos: Tensor, sin: Tensor, sizes: tuple[int, int, int, float]
) -> tuple[Tensor, Tensor, Tensor]:
    """Queries (B, K, T, G, C), keys and values (B, K, T, C) of one product (B, T, (H + 2 K) C).

    Queries and keys are normed per head where there are weights for it, and turned; queries are scaled by the root of
    C.  `sizes`: H, K, C and the norms' epsilon; `cos`, `sin`: (B or 1, T, 1, C / 2).
    """
    q_weight, k_weight = norms or (None, None)
    q, k, v = _Split.apply(qkv, q_weight, k_weight, cos, sin, sizes)
    return q, k, v


class _Gate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, both: Tensor) -> Tensor:
        ctx.save_for_backward(both)
        inner = both.shape[-1] // 2
        out = both.new_empty(*both.shape[:-1], inner)
        call("gated_forward", both, out, both.numel() // both.shape[-1], inner, torch.get_num_threads())
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (both,) = ctx.saved_tensors
        out, inner = torch.empty_like(both), both.shape[-1] // 2
        rows = both.numel() // both.shape[-1]
        call("gated_backward", both, grad.contiguous(), out, rows, inner, torch.get_num_threads())
        return out


def gated(both: Tensor) -> Tensor:
    """silu(gate) * up of the last axis's halves gate and up."""
    return _Gate.apply(both)
