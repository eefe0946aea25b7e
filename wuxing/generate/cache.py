"""Keys and values of tokens already seen, in rows of a fixed length that are allocated once."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


class Cache:
    """Room for `rows` sequences of at most `max_tokens` tokens: per layer (rows, heads, tokens, channels)."""

    def __init__(self, config: dict[str, Any], rows: int, max_tokens: int, device: torch.device, dtype: torch.dtype):
        self.rows, self.max_tokens, self.device, self.dtype = rows, max_tokens, device, dtype
        self.heads, self.channels = int(config["num_key_value_heads"]), int(config["head_dim"])
        shape = (rows, self.heads, max_tokens, self.channels)
        layers = int(config["num_hidden_layers"])
        self.keys = [torch.zeros(shape, device=device, dtype=dtype) for _ in range(layers)]
        self.values = [torch.zeros(shape, device=device, dtype=dtype) for _ in range(layers)]

    def copy_row(self, source: int, target: int, length: int) -> None:
        """Copy the first `length` tokens of row `source` over row `target`."""
        for tensor in (*self.keys, *self.values):
            tensor[target, :, :length] = tensor[source, :, :length]

    def prefill(self, row: int, rows: int, tokens: int) -> Prefill:
        """Attention for whole prompts of `tokens` tokens (padded on the right), one per row from `row` on."""
        assert row + rows <= self.rows and tokens <= self.max_tokens
        return Prefill(self, row, rows, tokens)

    def decode(self, lengths: list[int]) -> Decode:
        """Attention for one new token in each of the first rows, which hold `lengths` tokens."""
        assert len(lengths) <= self.rows and max(lengths) < self.max_tokens
        return Decode(self, lengths)


class Prefill:
    """Prompts from their first token attend to themselves only, so the cache is written but not read."""

    def __init__(self, cache: Cache, row: int, rows: int, tokens: int):
        self._cache, self._rows, self._shape = cache, slice(row, row + rows), (rows, tokens)

    def __call__(self, layer: int, q_NHC: Tensor, k_NKC: Tensor, v_NKC: Tensor) -> Tensor:
        cache, tokens = self._cache, self._shape[1]
        q, k, v = (t.unflatten(0, self._shape).transpose(1, 2).to(cache.dtype) for t in (q_NHC, k_NKC, v_NKC))
        cache.keys[layer][self._rows, :, :tokens] = k
        cache.values[layer][self._rows, :, :tokens] = v
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=q.shape[1] != k.shape[1])
        return mixed.transpose(1, 2)


class Decode:
    """One new token per row.  Heads that share keys lie on the query axis: no copy of keys, and a 7× faster kernel."""

    def __init__(self, cache: Cache, lengths: list[int]):
        device, heads, room = cache.device, cache.heads, cache.max_tokens
        self._cache, self._rows, self._end = cache, len(lengths), max(lengths) + 1
        self.positions_B = torch.tensor(lengths, device=device)
        first = torch.arange(self._rows * heads, device=device) * room
        self._places = first + (self.positions_B.repeat_interleave(heads) if self._rows > 1 else self.positions_B)
        self._mask: Tensor | None = None
        if min(lengths) != max(lengths):
            beyond_BS = torch.arange(self._end, device=device) > self.positions_B[:, None]
            self._mask = torch.zeros(beyond_BS.shape, device=device, dtype=cache.dtype)
            self._mask = self._mask.masked_fill_(beyond_BS, float("-inf"))[:, None, None]

    def __call__(self, layer: int, q_BHC: Tensor, k_BKC: Tensor, v_BKC: Tensor) -> Tensor:
        cache = self._cache
        keys, values = cache.keys[layer], cache.values[layer]
        keys.view(-1, cache.channels).index_copy_(0, self._places, k_BKC.reshape(-1, cache.channels).to(cache.dtype))
        values.view(-1, cache.channels).index_copy_(0, self._places, v_BKC.reshape(-1, cache.channels).to(cache.dtype))
        q_BKGC = q_BHC.reshape(self._rows, cache.heads, -1, cache.channels).to(cache.dtype)
        keys, values = keys[: self._rows, :, : self._end], values[: self._rows, :, : self._end]
        return F.scaled_dot_product_attention(q_BKGC, keys, values, attn_mask=self._mask)


class Masked:
    """Rows of `tokens` tokens that attend to what `mask_BTT` says (True: may look), or causally where it is None."""

    def __init__(self, rows: int, tokens: int, mask_BTT: Tensor | None, dtype: torch.dtype):
        self._shape, self._dtype = (rows, tokens), dtype
        self._mask = None if mask_BTT is None else mask_BTT[:, None]

    def __call__(self, layer: int, q_NHC: Tensor, k_NKC: Tensor, v_NKC: Tensor) -> Tensor:
        q, k, v = (t.unflatten(0, self._shape).transpose(1, 2).to(self._dtype) for t in (q_NHC, k_NKC, v_NKC))
        grouped = q.shape[1] != k.shape[1]
        mixed = F.scaled_dot_product_attention(
            q, k, v, attn_mask=self._mask, is_causal=self._mask is None, enable_gqa=grouped
        )
        return mixed.transpose(1, 2)
