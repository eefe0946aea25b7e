"""Cross-entropy over a vocabulary without ever holding all logits.

`softmax(h W^T)` for every token of a step is the largest tensor of a small model by far.  Here the tokens go through in
slices that stay in the cache; what is kept for the backward pass is one gradient of the states and one of the head
(`nats_sum`), or a single number per token (`token_logprobs`, which computes each slice twice).

Shapes: N tokens that teach, D width, V vocabulary, S tokens of one slice.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from wuxing.model import native

SLICE_LOGITS = 1 << 21
"""Logits of one slice: 8 MiB in fp32, which the last-level cache holds; half or twice as many are slower by a fifth."""
NATIVE_SLICE_TOKENS, NATIVE_SLICE_LOGITS = 512, 1 << 24
"""Of one slice at most, in bf16 (32 MiB), where the compiled kernel walks over them.  Each slice adds to the whole
gradient of the head, which takes as long as some two hundred tokens; more than 512 tokens no longer pay for that."""

ROUND_TO = 64
"""Products get a multiple of so many rows: oneDNN keeps a kernel for every shape it has met, some megabyte each, and
the number of tokens that teach differs from step to step."""


def slice_tokens(vocabulary: int) -> int:
    """How many tokens go through at once."""
    return max(ROUND_TO, SLICE_LOGITS // vocabulary)


def rounded(rows: Tensor, dtype: torch.dtype) -> Tensor:
    """`rows` in another type, with rows of zeros up to a multiple of `ROUND_TO`."""
    missing = -len(rows) % ROUND_TO
    return F.pad(rows.to(dtype), (0, 0, 0, missing)) if missing else rows.to(dtype)


def matmul_dtype(hidden: Tensor) -> torch.dtype:
    """The type in which the surrounding autocast multiplies, or the states' own."""
    kind = hidden.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else hidden.dtype


class _NatsSum(torch.autograd.Function):
    """The forward pass computes the gradients too, when they will be asked for: three products instead of four."""

    @staticmethod
    def forward(
        ctx: Any, hidden_ND: Tensor, head_VD: Tensor, labels_N: Tensor, smoothing: float, z_weight: float, wanted: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        dtype = matmul_dtype(hidden_ND)
        if native.ready(dtype, hidden_ND.device):
            return _native(ctx, hidden_ND, head_VD, labels_N, smoothing, z_weight, wanted)
        vocabulary = head_VD.shape[0]
        with torch.autocast(hidden_ND.device.type, enabled=False):
            head = head_VD.to(dtype)
            grad_hidden = torch.empty_like(hidden_ND) if wanted else None
            grad_head = torch.zeros(head_VD.shape, dtype=torch.float32, device=head_VD.device) if wanted else None
            loss = torch.zeros((), dtype=torch.float64, device=hidden_ND.device)
            nats = torch.zeros_like(loss)
            correct = torch.zeros((), dtype=torch.int64, device=hidden_ND.device)
            step = slice_tokens(vocabulary)
            for start in range(0, len(labels_N), step):
                hidden = rounded(hidden_ND[start : start + step], dtype)
                labels = labels_N[start : start + step]
                logits = (hidden @ head.T)[: len(labels)].float()
                top = logits.amax(-1, keepdim=True)
                logits.sub_(top)
                taken = logits.gather(-1, labels[:, None])
                correct += (taken == 0).sum()
                if smoothing:
                    loss += smoothing * (taken.squeeze(-1) - logits.mean(-1)).sum(dtype=torch.float64)
                total = logits.exp_().sum(-1, keepdim=True)
                nll = (total.log() - taken).sum(dtype=torch.float64)
                nats += nll
                loss += nll
                lse = total.log() + top
                if z_weight:
                    loss += z_weight * lse.square().sum(dtype=torch.float64)
                if grad_hidden is not None and grad_head is not None:
                    scale = (1 + 2 * z_weight * lse) / total
                    at_label = taken.exp() * scale + (smoothing - 1 - smoothing / vocabulary)
                    grad = logits.mul_(scale)
                    if smoothing:
                        grad.sub_(smoothing / vocabulary)
                    grad = grad.to(dtype).scatter_(-1, labels[:, None], at_label.to(dtype))
                    grad = rounded(grad, dtype)
                    grad_hidden[start : start + step] = (grad @ head)[: len(labels)]
                    grad_head += grad.T @ hidden
        ctx.save_for_backward(grad_hidden, grad_head)
        ctx.head_dtype = head_VD.dtype
        nats, loss = nats.float(), loss.float()
        ctx.mark_non_differentiable(nats, correct)
        return loss, nats, correct

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_loss: Tensor, *unused: Tensor) -> tuple[Tensor | None, ...]:
        grad_hidden, grad_head = ctx.saved_tensors
        # In place: the gradient of a table of 32,768 rows fills a cache many times over.  A second pass is refused.
        return grad_hidden.mul_(grad_loss), grad_head.mul_(grad_loss).to(ctx.head_dtype), None, None, None, None


def _native(
    ctx: Any, hidden_ND: Tensor, head_VD: Tensor, labels_N: Tensor, smoothing: float, z_weight: float, wanted: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """The same in bf16 on a CPU: logits are written once, read from the cache, and become their own gradients."""
    head, threads = head_VD.bfloat16(), torch.get_num_threads()
    grad_hidden = torch.empty_like(hidden_ND) if wanted else None
    grad_head = torch.empty(head_VD.shape, dtype=torch.float32) if wanted else None
    part = torch.empty_like(head) if wanted else None
    nats, loss = (torch.empty(len(labels_N), dtype=torch.float64) for _ in range(2))
    correct = torch.empty(len(labels_N), dtype=torch.uint8)
    labels_N = labels_N.contiguous()
    step = native_slice_tokens(head_VD.shape[0])
    for start in range(0, len(labels_N), step):
        place = slice(start, start + step)
        labels = labels_N[place]
        hidden = rounded(hidden_ND[place], torch.bfloat16)
        logits = torch.mm(hidden, head.T)
        native.call(
            "cross_entropy", logits, labels, nats[place], loss[place], correct[place],
            len(labels), logits.shape[1], smoothing, z_weight, wanted, threads,
        )  # fmt: skip
        if grad_hidden is not None and grad_head is not None:
            logits[len(labels) :].zero_()
            grad_hidden[place] = (logits @ head)[: len(labels)]
            torch.mm(logits.T, hidden, out=part)
            native.call("add", grad_head, part, grad_head.numel(), start == 0, threads)
    if grad_head is not None and not len(labels_N):
        grad_head.zero_()
    ctx.save_for_backward(grad_hidden, grad_head)
    ctx.head_dtype = head_VD.dtype
    sums = loss.sum().float(), nats.sum().float(), correct.sum()
    ctx.mark_non_differentiable(*sums[1:])
    return sums


def native_slice_tokens(vocabulary: int) -> int:
    """How many tokens go through at once there."""
    return max(ROUND_TO, min(NATIVE_SLICE_TOKENS, NATIVE_SLICE_LOGITS // vocabulary // ROUND_TO * ROUND_TO))


def nats_sum(
    hidden_ND: Tensor, head_VD: Tensor, labels_N: Tensor, smoothing: float = 0.0, z_weight: float = 0.0
) -> tuple[Tensor, Tensor, Tensor]:
    """Sum of cross-entropies: (loss, plain nats without smoothing and z-loss, tokens whose label has the top logit).

    `smoothing` mixes the label with the uniform distribution (Szegedy et al. 2015), `z_weight` adds the square of the
    log partition (PaLM, Chowdhery et al. 2022).  Only `loss` carries a gradient.
    """
    wanted = torch.is_grad_enabled() and (hidden_ND.requires_grad or head_VD.requires_grad)
    loss, nats, correct = _NatsSum.apply(hidden_ND, head_VD, labels_N, smoothing, z_weight, wanted)
    return loss, nats, correct


class _TokenLogprobs(torch.autograd.Function):
    """Keeps the log partition of each token and computes its slice again in the backward pass."""

    @staticmethod
    def forward(ctx: Any, hidden_ND: Tensor, head_VD: Tensor, labels_N: Tensor) -> tuple[Tensor, Tensor]:
        dtype = matmul_dtype(hidden_ND)
        lse_N = torch.empty(len(labels_N), dtype=torch.float32, device=hidden_ND.device)
        logprobs_N, entropy_N = torch.empty_like(lse_N), torch.empty_like(lse_N)
        with torch.autocast(hidden_ND.device.type, enabled=False):
            head = head_VD.to(dtype)
            step = slice_tokens(head_VD.shape[0])
            for start in range(0, len(labels_N), step):
                place = slice(start, start + step)
                logits = (rounded(hidden_ND[place], dtype) @ head.T)[: len(labels_N[place])].float()
                lse = logits.logsumexp(-1)
                lse_N[place] = lse
                logprobs_N[place] = logits.gather(-1, labels_N[place, None]).squeeze(-1) - lse
                logits.sub_(lse[:, None])
                entropy_N[place] = -(logits.exp() * logits).sum(-1)
        ctx.save_for_backward(hidden_ND, head_VD, labels_N, lse_N)
        ctx.dtype = dtype
        ctx.mark_non_differentiable(entropy_N)
        return logprobs_N, entropy_N

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_N: Tensor, *unused: Tensor) -> tuple[Tensor | None, ...]:
        hidden_ND, head_VD, labels_N, lse_N = ctx.saved_tensors
        grad_hidden = torch.empty_like(hidden_ND)
        grad_head = torch.zeros(head_VD.shape, dtype=torch.float32, device=head_VD.device)
        with torch.autocast(hidden_ND.device.type, enabled=False):
            head = head_VD.to(ctx.dtype)
            step = slice_tokens(head_VD.shape[0])
            for start in range(0, len(labels_N), step):
                place = slice(start, start + step)
                hidden = rounded(hidden_ND[place], ctx.dtype)
                logits = (hidden @ head.T)[: len(labels_N[place])].float()
                grad = logits.sub_(lse_N[place, None]).exp_().neg_()
                grad.scatter_add_(-1, labels_N[place, None], torch.ones_like(lse_N[place, None]))
                grad = rounded(grad.mul_(grad_N[place, None]), ctx.dtype)
                grad_hidden[place] = (grad @ head)[: len(labels_N[place])]
                grad_head += grad.T @ hidden
        return grad_hidden, grad_head.to(head_VD.dtype), None


def token_logprobs(hidden_ND: Tensor, head_VD: Tensor, labels_N: Tensor) -> tuple[Tensor, Tensor]:
    """(log-probability of each label, entropy of each distribution), both N, in nats; only the first has a gradient."""
    logprobs_N, entropy_N = _TokenLogprobs.apply(hidden_ND, head_VD, labels_N)
    return logprobs_N, entropy_N
