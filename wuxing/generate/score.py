"""Log-probabilities of given continuations.  Continuations of one prompt lie behind it in one row and share it.

Shapes: N tokens of all rows in one line, B rows, T tokens of a row, D width, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from wuxing.core.error import WuxingError
from wuxing.generate.cache import Masked
from wuxing.generate.packed import Packed

BATCH_TOKENS = 4096
"""Tokens, padding included, in one pass: larger costs memory and gains nothing on a CPU."""
LOGIT_ROWS = 1024
"""Positions whose logits are held at once."""


@dataclass
class _Row:
    """One prompt with some of its continuations: (index of the pair, tokens)."""

    prompt: list[int]
    continuations: list[tuple[int, list[int]]] = field(default_factory=list)

    @property
    def tokens(self) -> list[int]:
        """The last token of a continuation predicts nothing that is asked for, so it is left out."""
        return self.prompt + [token for _, tokens in self.continuations for token in tokens[:-1]]


def score_pairs(packed: Packed, pairs: list[tuple[list[int], list[int]]], max_positions: int) -> list[list[float]]:
    """Log-probabilities (natural) of the continuation tokens of each (prompt, continuation)."""
    for prompt, continuation in pairs:
        if not prompt:
            raise WuxingError("a prompt to score is empty", "Start it with the end-of-text token")
        if len(prompt) + len(continuation) - 1 > max_positions:
            raise WuxingError(
                f"a text of {len(prompt) + len(continuation)} tokens is longer than the {max_positions} positions "
                "of the model",
                "Cut it into windows",
            )
    scores: list[list[float]] = [[] for _ in pairs]
    rows = sorted(_rows(pairs), key=lambda row: (len(row.continuations) > 1, len(row.tokens)))
    batch: list[_Row] = []
    for row in rows:
        grown = [*batch, row]
        mixed = len({len(r.continuations) > 1 for r in grown}) > 1
        if batch and (mixed or len(grown) * max(len(r.tokens) for r in grown) > BATCH_TOKENS):
            _score_batch(packed, batch, scores)
            grown = [row]
        batch = grown
    if batch:
        _score_batch(packed, batch, scores)
    return scores


def _rows(pairs: list[tuple[list[int], list[int]]]) -> list[_Row]:
    """Group continuations by prompt; a row that would grow past the batch's tokens is followed by another."""
    rows: list[_Row] = []
    newest: dict[tuple[int, ...], _Row] = {}
    for index, (prompt, continuation) in enumerate(pairs):
        if not continuation:
            continue
        row = newest.get(tuple(prompt))
        if row is None or len(row.tokens) + len(continuation) > max(BATCH_TOKENS // 4, len(prompt)):
            row = newest[tuple(prompt)] = _Row(prompt)
            rows.append(row)
        row.continuations.append((index, continuation))
    return rows


def _score_batch(packed: Packed, batch: list[_Row], scores: list[list[float]]) -> None:
    device = packed.table_VD.device
    width = max(len(row.tokens) for row in batch)
    tokens_BT = torch.zeros(len(batch), width, dtype=torch.int64)
    positions_BT = torch.arange(width).repeat(len(batch), 1)
    parts_BT = torch.zeros(len(batch), width, dtype=torch.int64)
    places: list[int] = []
    targets: list[int] = []
    for number, row in enumerate(batch):
        tokens_BT[number, : len(row.tokens)] = torch.tensor(row.tokens)
        prompt = start = len(row.prompt)
        for part, (_, tokens) in enumerate(row.continuations, 1):
            end = start + len(tokens) - 1
            positions_BT[number, start:end] = torch.arange(prompt, prompt + end - start)
            parts_BT[number, start:end] = part
            places += [number * width + place for place in (prompt - 1, *range(start, end))]
            targets += tokens
            start = end
    mask = _tree_mask(parts_BT).to(device) if any(len(row.continuations) > 1 for row in batch) else None
    attend = Masked(len(batch), width, mask, torch.float32 if device.type == "cpu" else packed.dtype)
    positions_BT.clamp_(max=packed.turns.shape[0] - 1)
    hidden_ND = packed.forward(tokens_BT.flatten().to(device), positions_BT.flatten().to(device), attend)
    logprobs = _logprobs(packed, hidden_ND[torch.tensor(places, device=device)], torch.tensor(targets, device=device))
    start = 0
    for row in batch:
        for index, tokens in row.continuations:
            scores[index] = logprobs[start : start + len(tokens)]
            start += len(tokens)


def _tree_mask(parts_BT: Tensor) -> Tensor:
    """Where a token may look (B, T, T): back, at the prompt (part 0) and at its own continuation."""
    width = parts_BT.shape[1]
    causal_TT = torch.ones(width, width, dtype=torch.bool).tril()
    seen_BTT = (parts_BT[:, None] == 0) | (parts_BT[:, :, None] == parts_BT[:, None])
    return seen_BTT & causal_TT


def _logprobs(packed: Packed, hidden_ND: Tensor, targets_N: Tensor) -> list[float]:
    found: list[float] = []
    for some_ND, some_N in zip(hidden_ND.split(LOGIT_ROWS), targets_N.split(LOGIT_ROWS), strict=True):
        logits_NV = packed.logits(some_ND)
        chosen_N = logits_NV.gather(1, some_N[:, None])[:, 0]
        found += (chosen_N - logits_NV.logsumexp(-1)).tolist()
    return found
