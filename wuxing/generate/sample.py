"""Drawing tokens: what a request draws depends on its own seed, its token's index and the model, on nothing else.

Shapes: B rows, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

_MASK = 2**64 - 1


@dataclass(frozen=True)
class Sampling:
    """How one request draws: see `Request`."""

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int = 0

    @property
    def greedy(self) -> bool:
        return self.temperature == 0

    @property
    def filtered(self) -> bool:
        """Whether only the likeliest tokens may be drawn."""
        return self.top_p < 1 or self.top_k > 0


def uniform(seed: int, index: int) -> float:
    """A number in [0, 1) from (seed, token index): SplitMix64 (Steele, Lea and Flood 2014) over both, 32 bits."""
    return (_mix(_mix(seed & _MASK) + (index + 1) * 0x9E3779B97F4A7C15) >> 32) / 2**32


def sample(logits_BV: Tensor, samplings: Sequence[Sampling], indices: Sequence[int]) -> tuple[Tensor, Tensor]:
    """One token per row, and its log-probability under the plain softmax of the logits (both B).

    `indices[b]` is how many tokens the request of row b has drawn before.  The draw inverts the cumulative
    distribution: in the order of the vocabulary, or from the likeliest token down where top-k or top-p filters.
    """
    logprobs_BV = logits_BV.log_softmax(-1)
    if all(s.greedy for s in samplings):
        tokens_B = logits_BV.argmax(-1)
    else:
        tokens_B = torch.empty(len(samplings), dtype=torch.int64, device=logits_BV.device)
        groups: dict[str, list[int]] = {"greedy": [], "plain": [], "filtered": []}
        for row, s in enumerate(samplings):
            groups["greedy" if s.greedy else "filtered" if s.filtered else "plain"].append(row)
        if groups["greedy"]:
            tokens_B[groups["greedy"]] = logits_BV[groups["greedy"]].argmax(-1)
        for name in ("plain", "filtered"):
            if rows := groups[name]:
                chosen = [samplings[row] for row in rows]
                draws = [uniform(samplings[row].seed, indices[row]) for row in rows]
                some_BV = logits_BV if len(rows) == len(samplings) else logits_BV[rows]
                tokens_B[rows] = (_draw if name == "plain" else _draw_filtered)(some_BV, chosen, draws)
    return tokens_B, logprobs_BV.gather(1, tokens_B[:, None])[:, 0]


def _tempered(logits_BV: Tensor, samplings: Sequence[Sampling]) -> Tensor:
    temperatures = [s.temperature for s in samplings]
    if all(t == 1 for t in temperatures):
        return logits_BV.softmax(-1)
    scale = torch.tensor([1 / t for t in temperatures], device=logits_BV.device)
    return (logits_BV * scale[:, None]).softmax(-1)


def _invert(weights_BV: Tensor, draws: Sequence[float]) -> Tensor:
    """The first place where the cumulative weight passes draw × total; never a place of weight 0."""
    cumulative_BV = weights_BV.cumsum(-1, dtype=torch.float64)
    u_B1 = torch.tensor(draws, dtype=torch.float64, device=weights_BV.device)[:, None]
    return torch.searchsorted(cumulative_BV, u_B1 * cumulative_BV[:, -1:], right=True)[:, 0]


def _draw(logits_BV: Tensor, samplings: Sequence[Sampling], draws: Sequence[float]) -> Tensor:
    return _invert(_tempered(logits_BV, samplings), draws)


def _draw_filtered(logits_BV: Tensor, samplings: Sequence[Sampling], draws: Sequence[float]) -> Tensor:
    probs_BV, order_BV = _tempered(logits_BV, samplings).sort(stable=True, dim=-1, descending=True)
    device, size = logits_BV.device, logits_BV.shape[1]
    top_p = torch.tensor([s.top_p for s in samplings], device=device)[:, None]
    top_k = torch.tensor([s.top_k or size for s in samplings], device=device)[:, None]
    before_BV = probs_BV.cumsum(-1, dtype=torch.float64) - probs_BV
    dropped_BV = (before_BV >= top_p) | (torch.arange(size, device=device) >= top_k)
    dropped_BV[:, 0] = False
    places_B = _invert(probs_BV.masked_fill(dropped_BV, 0.0), draws)
    return order_BV.gather(1, places_B[:, None])[:, 0]


def _mix(x: int) -> int:
    x &= _MASK
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 & _MASK
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB & _MASK
    return x ^ (x >> 31)
