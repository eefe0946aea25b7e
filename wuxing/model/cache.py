"""Keys and values of tokens already seen, in rows of a fixed length that are allocated once."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class Cache:
    """Room for `rows` sequences of at most `max_tokens` tokens.  Layout per layer: rows, tokens, heads × channels."""

    def __init__(
        self, config: dict[str, Any], rows: int, max_tokens: int, device: torch.device | str, dtype: torch.dtype
    ):
        heads, channels = config["num_key_value_heads"], config["head_dim"]
        shape = (rows, max_tokens, heads, channels)
        self.rows, self.max_tokens = rows, max_tokens
        self.keys = [torch.zeros(shape, device=device, dtype=dtype) for _ in range(config["num_hidden_layers"])]
        self.values = [torch.zeros(shape, device=device, dtype=dtype) for _ in range(config["num_hidden_layers"])]

    @property
    def bytes(self) -> int:
        """What the cache holds in memory."""
        return sum(t.nbytes for t in (*self.keys, *self.values))

    def prefill(self, row: int, rows: int) -> Prefill:
        """A view for whole prompts, one per row from `row` on, padded on the right."""
        return Prefill(self, row, rows)

    def extend(self, lengths: list[int], tokens: int = 1) -> Extend:
        """A view for `tokens` further tokens of each of the first rows, which hold `lengths` tokens."""
        return Extend(self, lengths, tokens)

    def move(self, source: int, target: int, length: int) -> None:
        """Copy the first `length` tokens of row `source` over row `target`."""
        for tensor in (*self.keys, *self.values):
            tensor[target, :length] = tensor[source, :length]


class Prefill:
    """Prompts from their first token: they attend to themselves only, so no mask is needed."""

    mask: Tensor | None = None

    def __init__(self, cache: Cache, row: int, rows: int):
        assert row + rows <= cache.rows
        self._cache, self._rows = cache, slice(row, row + rows)

    def update(self, layer: int, keys_BTKC: Tensor, values_BTKC: Tensor) -> tuple[Tensor, Tensor]:
        """Store the keys and values of a layer; return those to attend to."""
        length = keys_BTKC.shape[1]
        self._cache.keys[layer][self._rows, :length] = keys_BTKC
        self._cache.values[layer][self._rows, :length] = values_BTKC
        return keys_BTKC, values_BTKC


class Extend:
    """New tokens behind those that are stored."""

    def __init__(self, cache: Cache, lengths: list[int], tokens: int):
        rows, self._end = len(lengths), max(lengths) + tokens
        assert rows <= cache.rows and self._end <= cache.max_tokens
        device = cache.keys[0].device
        self._cache, self._rows, self._tokens = cache, rows, tokens
        starts_B = torch.tensor(lengths, device=device)
        self.positions_BT = starts_B[:, None] + torch.arange(tokens, device=device)
        self.mask: Tensor | None = None
        self._single = lengths[0] if rows == 1 else -1
        if rows > 1 or tokens > 1:
            columns_S = torch.arange(self._end, device=device)
            self.mask = (columns_S <= self.positions_BT[:, :, None])[:, None]
            flat_BT = self.positions_BT + torch.arange(rows, device=device)[:, None] * cache.max_tokens
            self._flat = flat_BT.reshape(-1)

    def update(self, layer: int, keys_BTKC: Tensor, values_BTKC: Tensor) -> tuple[Tensor, Tensor]:
        """Store the keys and values of a layer; return all those of the rows."""
        keys, values = self._cache.keys[layer], self._cache.values[layer]
        if self._single >= 0:
            keys[0, self._single : self._end] = keys_BTKC[0]
            values[0, self._single : self._end] = values_BTKC[0]
        else:
            keys.view(-1, *keys.shape[2:]).index_copy_(0, self._flat, keys_BTKC.flatten(0, 1).to(keys.dtype))
            values.view(-1, *keys.shape[2:]).index_copy_(0, self._flat, values_BTKC.flatten(0, 1).to(keys.dtype))
        return keys[: self._rows, : self._end], values[: self._rows, : self._end]
