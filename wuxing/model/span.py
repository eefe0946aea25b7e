"""Attention inside documents that lie side by side in a row: only the blocks that some token sees are computed.

A row of packed documents needs no mask of T x T: token t sees the keys from its document's start up to itself, so one
number a token says it all.  The products are PyTorch's, over blocks of queries and the keys that they see; the softmax
between them is the compiled one (`native.c`).

Shapes: B rows, T tokens, K key-value heads, G query heads of each, C head channels, L keys of a block.
"""

from __future__ import annotations

from collections.abc import Iterator
from ctypes import byref
from dataclasses import dataclass
from typing import Any

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


@dataclass(frozen=True)
class Spans:
    """Which keys each token sees: from `starts_BT` (int32) up to itself."""

    starts_BT: Tensor
    blocks: tuple[tuple[int, int, int, int, int], ...]
    """(first row, last row + 1, first query, last query + 1, first key): the rows of a block see the same keys."""


def spans(documents_BT: Tensor | None, rows: int, tokens: int, scores_of_row: int) -> Spans | None:
    """The spans of rows whose documents' numbers rise, with padding (-1) at the end; None for other rows.

    `scores_of_row`: heads, by which the rows of a block are counted.
    """
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
    return Spans(starts_BT, tuple(_blocks(starts_BT, scores_of_row)))


def _blocks(starts_BT: Tensor, heads: int) -> Iterator[tuple[int, int, int, int, int]]:
    rows, tokens = starts_BT.shape
    first_keys = (starts_BT[:, ::QUERIES] // ROUND_TO * ROUND_TO).T.tolist()
    for number, keys_of_rows in enumerate(first_keys):
        start = number * QUERIES
        stop = min(start + QUERIES, tokens)
        begin = 0
        while begin < rows:
            first = keys_of_rows[begin]
            most = max(1, BLOCK_SCORES // (heads * (stop - start) * (stop - first)))
            end = begin + 1
            while end < rows and end - begin < most and keys_of_rows[end] == first:
                end += 1
            yield begin, end, start, stop, first
            begin = end


class _Within(torch.autograd.Function):
    """q (B, K, T, G, C), already scaled; k and v (B, K, T, C); the result (B, T, K G C).  All bf16."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, seen: Spans) -> Tensor:
        rows, sides, tokens, group, channels = q.shape
        out = torch.empty_like(q)
        keeps = tokens <= KEPT_TOKENS and any(ctx.needs_input_grad[:3])
        kept: list[Tensor] = []
        for begin, end, start, stop, first in seen.blocks:
            probs = _probs(q, k, seen, (begin, end, start, stop, first))
            part = torch.bmm(probs, _keys(v, begin, end, first, stop))
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
        for number, (begin, end, start, stop, first) in enumerate(ctx.seen.blocks):
            place = (begin, end, start, stop, first)
            probs = kept[number] if ctx.keeps else _probs(q, k, ctx.seen, place)
            queries, grads = _queries(q, place), _queries(grad, place)
            scores = torch.bmm(grads, _keys(v, begin, end, first, stop).mT)
            _softmax("softmax_backward", ctx.seen, place, sides, group, probs, scores)
            part = torch.bmm(scores, _keys(k, begin, end, first, stop))
            grad_q[begin:end, :, start:stop] = part.view(end - begin, sides, stop - start, group, channels)
            shape = (end - begin, sides, stop - first, channels)
            grad_k[begin:end, :, first:stop] += torch.bmm(scores.mT, queries).view(shape)
            grad_v[begin:end, :, first:stop] += torch.bmm(probs.mT, grads).view(shape)
        return grad_q, grad_k.to(k.dtype), grad_v.to(v.dtype), None


def _queries(q: Tensor, place: tuple[int, int, int, int, int]) -> Tensor:
    """The block's queries, (rows x K, tokens x G, C)."""
    begin, end, start, stop, _ = place
    part = q[begin:end, :, start:stop]
    return part.reshape((end - begin) * q.shape[1], (stop - start) * q.shape[3], q.shape[4])


def _keys(k: Tensor, begin: int, end: int, first: int, stop: int) -> Tensor:
    """The block's keys or values, (rows x K, L, C)."""
    return k[begin:end, :, first:stop].reshape((end - begin) * k.shape[1], stop - first, k.shape[3])


def _probs(q: Tensor, k: Tensor, seen: Spans, place: tuple[int, int, int, int, int]) -> Tensor:
    begin, end, _, stop, first = place
    scores = torch.bmm(_queries(q, place), _keys(k, begin, end, first, stop).mT)
    _softmax("softmax_forward", seen, place, q.shape[1], q.shape[3], scores)
    return scores


def _softmax(
    name: str, seen: Spans, place: tuple[int, int, int, int, int], sides: int, group: int, *scores: Tensor
) -> None:
    begin, end, start, stop, first = place
    keys, tokens = stop - first, seen.starts_BT.shape[1]
    block = Block(end - begin, sides, stop - start, group, keys, start, first, tokens, torch.get_num_threads())
    call(name, byref(block), seen.starts_BT[begin:end], *scores)


def within(q: Tensor, k: Tensor, v: Tensor, seen: Spans) -> Tensor:
    """Attention (B, T, K G C) of scaled queries (B, K, T, G, C) with keys and values (B, K, T, C), all bf16."""
    return _Within.apply(q, k, v, seen)
