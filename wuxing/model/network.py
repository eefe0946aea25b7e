"""Transformers of the Qwen3 and Llama families, causal or seeing both ways; names are those of `transformers`.

Shapes: B rows, T tokens, D width, H query heads, K key-value heads, C head channels, F inner
width of the feed-forward block, V vocabulary.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from wuxing.model import float8, native
from wuxing.model.flex import BLOCK, BlockMask, document_blocks, flex
from wuxing.model.fused import attend, gated, rms_norm, rotate
from wuxing.model.rope import rope_tables
from wuxing.model.span import Spans, spans, within

Sight = Any
"""Which tokens a token sees: an additive mask (B, 1, T, T); `Spans`, by which the compiled kernels of the CPU run;
FlexAttention's `BlockMask` on a GPU; or None, all that stand before it, in an encoder all of the row."""


class Matrix(nn.Linear):
    """A matrix of a block; in float8 where that was asked for, and where autocast lets products be rounded."""

    float8 = False

    def forward(self, input: Tensor) -> Tensor:
        if not (self.float8 and torch.is_autocast_enabled(input.device.type)):
            return super().forward(input)
        product = float8.linear(input, self.weight)
        return product if self.bias is None else product + self.bias.to(product.dtype)


class Drop(Protocol):
    """What a branch (B, T, D) is made of before it joins the residual stream; branches are numbered from 0."""

    def __call__(self, x_BTD: Tensor, branch: int) -> Tensor: ...


TABLE_DEVIATION, LOGIT_DEVIATION = 0.1, 0.32


class Cut(Protocol):
    """This process's part of a network that is cut over several; they do all of this together."""

    def keep_up(self) -> None:
        """Go through the network with nothing, because another process has more."""

    def whole(self, name: str) -> Tensor:
        """One whole tensor, in fp32."""
        ...

    def release(self) -> None:
        """Give up what is gathered."""


class Norm(nn.Module):
    """RMS norm (Zhang and Sennrich 2019), computed in fp32, returned in the type that the next matrix multiplies in."""

    def __init__(self, width: int, eps: float):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return rms_norm(x, self.weight, self.eps, matmul_dtype(x))

    def add(self, x: Tensor, delta: Tensor | None, seen: Sight) -> tuple[Tensor, Tensor]:
        """(x + delta, its norm): a branch joins the residual stream where the next one begins."""
        if isinstance(seen, Spans):
            return native.norm(x, delta, self.weight, self.eps)
        x = x if delta is None else x + delta
        return x, self(x)


class Attention(nn.Module):
    """Grouped-query attention with rotary positions; Qwen3 norms queries and keys per head."""

    def __init__(self, config: dict[str, Any]):
        super().__init__()
        width, self.channels = config["hidden_size"], config["head_dim"]
        self.heads, self.kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
        bias = bool(config.get("attention_bias"))
        self.q_proj = Matrix(width, self.heads * self.channels, bias=bias)
        self.k_proj = Matrix(width, self.kv_heads * self.channels, bias=bias)
        self.v_proj = Matrix(width, self.kv_heads * self.channels, bias=bias)
        self.o_proj = Matrix(self.heads * self.channels, width, bias=bias)
        self.normed = config["model_type"] == "qwen3"
        self.causal = is_causal(config)
        self.eps = config["rms_norm_eps"]
        if self.normed:
            self.q_norm = Norm(self.channels, self.eps)
            self.k_norm = Norm(self.channels, self.eps)

    def forward(self, x_BTD: Tensor, cos: Tensor, sin: Tensor, seen: Sight) -> Tensor:
        if isinstance(seen, Spans):
            return self._within(x_BTD, cos, sin, seen)
        rows, tokens = x_BTD.shape[:2]
        q_BTHC = self.q_proj(x_BTD).view(rows, tokens, self.heads, self.channels)
        k_BTKC = self.k_proj(x_BTD).view(rows, tokens, self.kv_heads, self.channels)
        v_BTKC = self.v_proj(x_BTD).view(rows, tokens, self.kv_heads, self.channels)
        if self.normed:
            q_BTHC, k_BTKC = self.q_norm(q_BTHC), self.k_norm(k_BTKC)
        q_BTHC, k_BTKC = (rotate(x, cos, sin, v_BTKC.dtype) for x in (q_BTHC, k_BTKC))
        sides = (q_BTHC.transpose(1, 2), k_BTKC.transpose(1, 2), v_BTKC.transpose(1, 2))
        mixed_BHTC = flex(*sides, seen) if isinstance(seen, BlockMask) else attend(*sides, seen, self.causal)
        return self.o_proj(mixed_BHTC.transpose(1, 2).reshape(rows, tokens, -1))

    def _within(self, x_BTD: Tensor, cos: Tensor, sin: Tensor, seen: Spans) -> Tensor:
        """The same by the compiled kernels of the CPU."""
        qkv = multiplied(x_BTD, seen, self.q_proj, self.k_proj, self.v_proj)
        norms = (self.q_norm.weight, self.k_norm.weight) if self.normed else None
        q, k, v = native.heads(qkv, norms, cos, sin, (self.heads, self.kv_heads, self.channels, self.eps))
        return multiplied(within(q, k, v, seen), seen, self.o_proj)


class FeedForward(nn.Module):
    """SwiGLU (Shazeer 2020)."""

    def __init__(self, config: dict[str, Any]):
        super().__init__()
        width, inner, bias = config["hidden_size"], config["intermediate_size"], bool(config.get("mlp_bias"))
        self.gate_proj = Matrix(width, inner, bias=bias)
        self.up_proj = Matrix(width, inner, bias=bias)
        self.down_proj = Matrix(inner, width, bias=bias)

    def forward(self, x_BTD: Tensor, seen: Sight = None) -> Tensor:
        if isinstance(seen, Spans):
            both = multiplied(x_BTD, seen, self.gate_proj, self.up_proj)
            return multiplied(native.gated(both), seen, self.down_proj)
        return self.down_proj(gated(self.gate_proj(x_BTD), self.up_proj(x_BTD)))


class Layer(nn.Module):
    """One pre-norm transformer block."""

    def __init__(self, config: dict[str, Any]):
        super().__init__()
        self.self_attn = Attention(config)
        self.mlp = FeedForward(config)
        self.input_layernorm = Norm(config["hidden_size"], config["rms_norm_eps"])
        self.post_attention_layernorm = Norm(config["hidden_size"], config["rms_norm_eps"])

    def forward(
        self,
        x_BTD: Tensor,
        delta_BTD: Tensor | None,
        cos: Tensor,
        sin: Tensor,
        seen: Sight,
        drops: tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """(residual stream, what this block adds to it): the sum is left to the next block, beside its norm.

        `delta_BTD` is what the block before adds.
        """
        x_BTD, normed_BTD = self.input_layernorm.add(x_BTD, delta_BTD, seen)
        delta_BTD = self.self_attn(normed_BTD, cos, sin, seen)
        delta_BTD = delta_BTD if drops is None else drops[0](delta_BTD)
        x_BTD, normed_BTD = self.post_attention_layernorm.add(x_BTD, delta_BTD, seen)
        delta_BTD = self.mlp(normed_BTD, seen)
        return x_BTD, delta_BTD if drops is None else drops[1](delta_BTD)


class Body(nn.Module):
    """Embedding, blocks, final norm."""

    def __init__(self, config: dict[str, Any]):
        super().__init__()
        self.embed_tokens = nn.Embedding(config["vocab_size"], config["hidden_size"])
        self.layers = nn.ModuleList(Layer(config) for _ in range(config["num_hidden_layers"]))
        self.norm = Norm(config["hidden_size"], config["rms_norm_eps"])
        self.is_compiled = False
        """Then the plain formulas run, which the compiler fuses, in place of the compiled kernels of the CPU."""
        self.recompute = False
        """Keep the two inputs of each block only and compute it again in the backward pass: the same bits, a third more
        arithmetic, and of each token and layer 4 D bytes (the residual stream) + 2 D (what the block before adds) in
        place of `compute.memory.activation_bytes`; one block's activations are there at a time."""

    def compile(self, *args: Any, **settings: Any) -> None:
        """Compile one block, which all of them then use; static shapes, so that another length compiles once more."""
        self.is_compiled = True
        for layer in self.layers:
            layer.compile(*args, **{"dynamic": False, **settings})

    def forward(
        self, tokens_BT: Tensor, cos: Tensor, sin: Tensor, seen: Sight = None, drop: Drop | None = None
    ) -> Tensor:
        x_BTD, delta_BTD = self.embed_tokens(tokens_BT), None
        again = self.recompute and torch.is_grad_enabled()
        for number, layer in enumerate(self.layers):
            drops = None if drop is None else (partial(drop, branch=2 * number), partial(drop, branch=2 * number + 1))
            if again:
                x_BTD, delta_BTD = checkpoint(
                    layer, x_BTD, delta_BTD, cos, sin, seen, drops, use_reentrant=False, preserve_rng_state=False
                )
            else:
                x_BTD, delta_BTD = layer(x_BTD, delta_BTD, cos, sin, seen, drops)
        return self.norm.add(x_BTD, delta_BTD, seen)[1]


class Network(nn.Module):
    """A language model from the values of a `config.json` (see `architecture.resolve`, `files.read_config`)."""

    role = "language model"
    """What it is for; `files.role_of` finds it in a directory."""
    cos: Tensor
    sin: Tensor

    def __init__(self, config: dict[str, Any]):
        super().__init__()
        self.config = config
        self.model = Body(config)
        self.flex = True
        """FlexAttention for packed documents on a GPU; else a mask of T x T."""
        self.drop: Drop | None = None
        """What the branches of the blocks lose while it learns; set by a trainer for one piece."""
        self.cut: Cut | None = None
        """Where its matrices are cut over processes: this one's part."""
        if not config["tie_word_embeddings"]:
            self.lm_head = nn.Linear(config["hidden_size"], config["vocab_size"], bias=False)
        cos, sin = rope_tables(config)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)

    @property
    def causal(self) -> bool:
        """Whether a token sees only what stands before it, so that text can be written token by token."""
        return is_causal(self.config)

    @property
    def vocab_size(self) -> int:
        return int(self.config["vocab_size"])

    @property
    def max_positions(self) -> int:
        """Longest sequence in tokens."""
        return int(self.config["max_position_embeddings"])

    @property
    def device(self) -> torch.device:
        return self.model.embed_tokens.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights."""
        return self.model.embed_tokens.weight.dtype

    @property
    def head_VD(self) -> Tensor:
        """The output table: the embedding itself where they are tied."""
        return self.model.embed_tokens.weight if self.config["tie_word_embeddings"] else self.lm_head.weight

    def hidden(
        self,
        tokens_BT: Tensor,
        positions_BT: Tensor | None = None,
        documents_BT: Tensor | None = None,
    ) -> Tensor:
        """The last hidden states (B, T, D) after the final norm; `hidden @ head_VD.T` are the logits.

        Attention is causal, or goes both ways as the config has it; with `documents_BT` tokens see only their own
        document number inside the row.  Positions count from 0 unless given.
        """
        cos, sin = self.rotations(tokens_BT.shape[1], positions_BT)
        seen = self._sight(tokens_BT, documents_BT)
        return self.model(tokens_BT, cos, sin, seen, self.drop)

    def _sight(self, tokens_BT: Tensor, documents_BT: Tensor | None) -> Sight:
        """Which tokens each token sees, in the form that the fastest way of this place and precision wants."""
        weight = self.model.embed_tokens.weight
        dtype = matmul_dtype(weight)
        if not self.model.is_compiled and native.ready(dtype, weight.device) and weight.dtype == torch.float32:
            rows, tokens = tokens_BT.shape
            seen = spans(documents_BT, rows, tokens, self.config["num_attention_heads"], self.causal)
            if seen is not None:
                return seen
        if documents_BT is None:
            return None
        if self.flex and weight.device.type == "cuda" and tokens_BT.shape[1] % BLOCK == 0:
            return document_blocks(documents_BT, self.causal)
        return document_mask(documents_BT, dtype, self.causal)

    def use_float8(self) -> None:
        """Multiply the blocks' matrices in float8 from now on."""
        for module in self.model.layers.modules():
            if isinstance(module, Matrix):
                module.float8 = True

    @property
    def recompute(self) -> bool:
        """See `Body.recompute`."""
        return self.model.recompute

    @recompute.setter
    def recompute(self, value: bool) -> None:
        self.model.recompute = value

    def forward(
        self,
        tokens_BT: Tensor,
        positions_BT: Tensor | None = None,
        documents_BT: Tensor | None = None,
    ) -> Tensor:
        """Logits (B, T, V) of the next token."""
        return F.linear(self.hidden(tokens_BT, positions_BT, documents_BT), self.head_VD)

    def rotations(self, tokens: int, positions_BT: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Cosines and sines, each (B or 1, T, 1, C)."""
        if positions_BT is None:
            return self.cos[None, :tokens, None], self.sin[None, :tokens, None]
        return self.cos[positions_BT][:, :, None], self.sin[positions_BT][:, :, None]

    @torch.no_grad()
    def initialise(self, seed: int) -> Network:
        """Random weights that depend on the seed and the tensor's name only, not on order, device or dtype."""
        for name, parameter in self.named_parameters():
            parameter.copy_(self.initial(name, parameter.shape, seed))
        return self

    def initial(self, name: str, shape: torch.Size, seed: int) -> Tensor:
        """The first values of one tensor, on the CPU: of all of it, though a process may keep a few rows only.

        Matrices: standard deviation 1/sqrt(fan in), those that write to the residual stream divided by sqrt(2 layers)
        (GPT-2); tables 0.1, so that the blocks' first words do not drown the token's own.  The last norm makes up for
        it: its weights are such that the first logits have a spread of about 1/3 at any width.
        """
        if name == "model.norm.weight":
            return torch.full(shape, LOGIT_DEVIATION / (TABLE_DEVIATION * math.sqrt(shape[0])))
        if name.endswith("norm.weight"):
            return torch.ones(shape)
        if name.endswith(".bias"):
            return torch.zeros(shape)
        scale = 1 / math.sqrt(shape[1])
        if name.endswith(("embed_tokens.weight", "lm_head.weight")):
            scale = TABLE_DEVIATION
        elif name.endswith(("o_proj.weight", "down_proj.weight")):
            scale /= math.sqrt(2 * self.config["num_hidden_layers"])
        return torch.randn(shape, generator=_generator(seed, name)).mul_(scale)


def multiplied(x: Tensor, seen: Sight, *matrices: nn.Linear) -> Tensor:
    """What each of them makes of x, side by side."""
    if isinstance(seen, Spans) and all(matrix.bias is None for matrix in matrices):
        return native.joined(x, *(matrix.weight for matrix in matrices))
    return torch.cat([matrix(x) for matrix in matrices], -1)


def matmul_dtype(x: Tensor) -> torch.dtype:
    """The type in which a surrounding autocast multiplies, or the tensor's own."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype


def is_causal(config: dict[str, Any]) -> bool:
    """Whether a network with this `config.json` sees only back; the key is that of `transformers`, true if left out."""
    return bool(config.get("is_causal", True))


def document_mask(documents_BT: Tensor, dtype: torch.dtype, causal: bool = True) -> Tensor | None:
    """0 where a token may look (B, 1, T, T): inside its own document, back only where `causal`; -inf elsewhere.  None
    where attention without a mask does the same.

    Padding (-1) looks at padding, so that no row of the softmax is empty.  Of `dtype`, as attention wants it, or every
    layer would make and keep a copy of its own.
    """
    if not torch.compiler.is_compiling() and bool((documents_BT == documents_BT[:, :1]).all()):
        return None
    tokens = documents_BT.shape[1]
    seen_BTT = documents_BT[:, :, None] == documents_BT[:, None, :]
    if causal:
        seen_BTT = seen_BTT & torch.ones(tokens, tokens, dtype=torch.bool, device=documents_BT.device).tril()
    mask_BTT = torch.zeros(seen_BTT.shape, dtype=dtype, device=documents_BT.device)
    return mask_BTT.masked_fill_(~seen_BTT, float("-inf"))[:, None]


def _generator(seed: int, name: str) -> torch.Generator:
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
