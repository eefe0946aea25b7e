"""Attention inside documents that lie side by side in a row: only the blocks that some token sees are computed.

A row of packed documents needs no mask of T x T: token t sees the keys from its document's start up to itself, or up to
the document's end in an encoder, so one or two numbers a token say it all.  The products are PyTorch's, over blocks of
queries and the keys that they see; the softmax between them is the compiled one (`native.c`).

Shapes: B rows, T tokens, K key-value heads, G query heads of each, C head channels, L keys of a block.
"""

from __future__ import annotations

from collections.abc import Iterator
from ctypes import byref
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from wuxing.model.native import Block, call

QUERIES = 128
"""Tokens of a block: larger ones compute more pairs that nobody sees, smaller ones multiply at a lower rate."""
ROUND_TO = 64
"""Keys of a block are a multiple of so many: oneDNN keeps a kernel for every shape that it has met."""
BLOCK_SCORES = 1 << 22
"""Scores of rows that share a block's keys go through together, up to so many: 8 MiB, which the cache holds."""
KEPT_TOKENS = 512
"""Rows up to this length keep their probabilities for the backward pass; longer ones compute them again."""


class Place(NamedTuple):
    """Rows, queries and keys of a block, each up to its second number, exclusive."""

    begin: int
    end: int
    start: int
    stop: int
    first: int
    last: int


@dataclass(frozen=True)
class Spans:
    """Which keys each token sees: from `starts_BT` (int32) up to itself, or up to `ends_BT`, exclusive."""

    starts_BT: Tensor
    ends_BT: Tensor | None
    blocks: tuple[Place, ...]
    """The rows of a block see the same keys."""


def spans(documents_BT: Tensor | None, rows: int, tokens: int, scores_of_row: int, causal: bool = True) -> Spans | None:
    """The spans of rows whose documents' numbers rise, with padding (-1) at the end; None for other rows.

    `scores_of_row`: heads, by which the rows of a block are counted.
    """
    ends_BT = None if causal else torch.full((rows, tokens), tokens, dtype=torch.int32)
    if documents_BT is None:
        starts_BT = torch.zeros(rows, tokens, dtype=torch.int32)
    else:
        step_BT = documents_BT[:, 1:] != documents_BT[:, :-1]
        falls_BT = (documents_BT[:, 1:] < documents_BT[:, :-1]) & (documents_BT[:, 1:] >= 0)
        back_BT = (documents_BT[:, :-1] < 0) & step_BT
        if bool((falls_BT | back_BT).any()):
            return None
        place_T = torch.arange(1, tokens, dtype=torch.int32)
        starts_BT = torch.zeros(rows, tokens, dtype=torch.int32)
        starts_BT[:, 1:] = torch.where(step_BT, place_T, 0).cummax(1).values
        if ends_BT is not None:
            following_BT = torch.where(step_BT, place_T, tokens).flip(1).cummin(1).values.flip(1)
            ends_BT[:, :-1] = following_BT
    return Spans(starts_BT, ends_BT, tuple(_blocks(starts_BT, ends_BT, scores_of_row)))


def _blocks(starts_BT: Tensor, ends_BT: Tensor | None, heads: int) -> Iterator[Place]:
    rows, tokens = starts_BT.shape
    first_keys = (starts_BT[:, ::QUERIES] // ROUND_TO * ROUND_TO).T.tolist()
    for number, firsts in enumerate(first_keys):
        start = number * QUERIES
        stop = min(start + QUERIES, tokens)
        lasts = [stop] * rows
        if ends_BT is not None:  # the ends rise along a row: that of the last query is the furthest
            lasts = [min(tokens, -(-end // ROUND_TO) * ROUND_TO) for end in ends_BT[:, stop - 1].tolist()]
        begin = 0
        while begin < rows:
            first, last = firsts[begin], lasts[begin]
            most = max(1, BLOCK_SCORES // (heads * (stop - start) * (last - first)))
            end = begin + 1
            while end < rows and end - begin < most and firsts[end] == first and lasts[end] == last:
                end += 1
            yield Place(begin, end, start, stop, first, last)
            begin = end


class _Within(torch.autograd.Function):
    """q (B, K, T, G, C), already scaled; k and v (B, K, T, C); the result (B, T, K G C).  All bf16."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, seen: Spans) -> Tensor:
        rows, sides, tokens, group, channels = q.shape
        out = torch.empty_like(q)
        keeps = tokens <= KEPT_TOKENS and any(ctx.needs_input_grad[:3])
        kept: list[Tensor] = []
        for place in seen.blocks:
            begin, end, start, stop, _, _ = place
            probs = _probs(q, k, seen, place)
            part = torch.bmm(probs, _keys(v, place))
            out[begin:end, :, start:stop] = part.view(end - begin, sides, stop - start, group, channels)
            if keeps:
                kept.append(probs)
        ctx.save_for_backward(q, k, v, *kept)
        ctx.seen, ctx.keeps = seen, keeps
        joined = q.new_empty(rows, tokens, sides * group * channels)
        call("swap", out, joined, rows, sides, tokens, group * channels, torch.get_num_threads())
        return joined

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_joined: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        q, k, v, *kept = ctx.saved_tensors
        rows, sides, tokens, group, channels = q.shape
        threads = torch.get_num_threads()
        grad = torch.empty_like(q)
        call("swap", grad_joined.contiguous(), grad, rows, tokens, sides, group * channels, threads)
        grad_q = torch.empty_like(q)
        grad_k, grad_v = torch.zeros_like(k, dtype=torch.float32), torch.zeros_like(v, dtype=torch.float32)
        for number, place in enumerate(ctx.seen.blocks):
            begin, end, start, stop, first, last = place
            probs = kept[number] if ctx.keeps else _probs(q, k, ctx.seen, place)
            queries, grads = _queries(q, place), _queries(grad, place)
            scores = torch.bmm(grads, _keys(v, place).mT)
            _softmax("softmax_backward", ctx.seen, place, sides, group, probs, scores)
            part = torch.bmm(scores, _keys(k, place))
            grad_q[begin:end, :, start:stop] = part.view(end - begin, sides, stop - start, group, channels)
            shape = (end - begin, sides, last - first, channels)
            grad_k[begin:end, :, first:last] += torch.bmm(scores.mT, queries).view(shape)
            grad_v[begin:end, :, first:last] += torch.bmm(probs.mT, grads).view(shape)
        return grad_q, grad_k.to(k.dtype), grad_v.to(v.dtype), None


def _queries(q: Tensor, place: Place) -> Tensor:
    """The block's queries, (rows x K, tokens x G, C)."""
    begin, end, start, stop, _, _ = place
    part = q[begin:end, :, start:stop]
    return part.reshape((end - begin) * q.shape[1], (stop - start) * q.shape[3], q.shape[4])


def _keys(k: Tensor, place: Place) -> Tensor:
    """The block's keys or values, (rows x K, L, C)."""
    begin, end, _, _, first, last = place
    return k[begin:end, :, first:last].reshape((end - begin) * k.shape[1], last - first, k.shape[3])


def _probs(q: Tensor, k: Tensor, seen: Spans, place: Place) -> Tensor:
    scores = torch.bmm(_queries(q, place), _keys(k, place).mT)
    _softmax("softmax_forward", seen, place, q.shape[1], q.shape[3], scores)
    return scores


def _softmax(name: str, seen: Spans, place: Place, sides: int, group: int, *scores: Tensor) -> None:
    begin, end, start, stop, first, last = place
    keys, tokens = last - first, seen.starts_BT.shape[1]
    ends_BT = None if seen.ends_BT is None else seen.ends_BT[begin:end]
    block = Block(end - begin, sides, stop - start, group, keys, start, first, tokens, torch.get_num_threads())
    call(name, byref(block), seen.starts_BT[begin:end], ends_BT, *scores)


def within(q: Tensor, k: Tensor, v: Tensor, seen: Spans) -> Tensor:
    """Attention (B, T, K G C) of scaled queries (B, K, T, G, C) with keys and values (B, K, T, C), all bf16."""
    return _Within.apply(q, k, v, seen)
