"""FlexAttention on a GPU: a mask by document whose empty blocks are never computed (Dong et al. 2024).

Shapes: B rows, T tokens, H query heads, K key-value heads, C head channels.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

BLOCK = 128
"""Tokens of a block, as its kernels want them; rows of another length take the dense mask."""


def document_blocks(documents_BT: Tensor, causal: bool = True) -> BlockMask:
    """Inside each document, back only where `causal`; padding (-1) sees padding."""
    rows, tokens = documents_BT.shape

    def inside(row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return documents_BT[row, query] == documents_BT[row, key]

    def back(row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (query >= key) & inside(row, head, query, key)

    seen = back if causal else inside

    return create_block_mask(seen, rows, None, tokens, tokens, device=str(documents_BT.device), BLOCK_SIZE=BLOCK)


def flex(q_BHTC: Tensor, k_BKTC: Tensor, v_BKTC: Tensor, blocks: BlockMask) -> Tensor:
    """Attention (B, H, T, C) of heads that share keys, over the blocks that hold something."""
    plain = torch.compiler.is_compiling() or q_BHTC.device.type == "cpu"
    attention: Any = flex_attention if plain else _compiled()
    mixed: Tensor = attention(q_BHTC, k_BKTC, v_BKTC, block_mask=blocks, enable_gqa=q_BHTC.shape[1] != k_BKTC.shape[1])
    return mixed


@cache
def _compiled() -> Callable[..., Any]:
    """Eager FlexAttention holds all scores; compiled it is one kernel."""
    return torch.compile(flex_attention, dynamic=False)
