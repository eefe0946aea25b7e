"""A network laid out for inference: norms folded into the matrices, projections joined, weights packed for the CPU.

Shapes: N tokens of all rows in one line, B rows, T new tokens per row, S tokens attended to, D width, H query heads,
K key-value heads, G query heads per key-value head, C head channels, V vocabulary.

A decode step of a small model is bound by memory traffic and by calls, so both are cut (5 M parameters, one Zen 5
core, batch 16: oneDNN's packed bf16 output matrix 0.38 ms against 2.2 ms for `F.linear` in fp32).  The residual
stream, norms, rotations and attention stay fp32 on a CPU, where fp32 attention over one new token is also the fastest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wuxing.model.network import Layer, Network

ROUND_TO = 16
"""Products of more rows get a multiple of so many, of fewer a power of two: oneDNN keeps a kernel for every shape that
it has met, some 0.6 MB each, and as replies end a batch goes through every number of rows (256 rows of a model of two
layers: 620 MB of kernels)."""

Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]
"""(layer, q_NHC, k_NKC, v_NKC) -> mixed_NHC."""


def padded_rows(rows: int) -> int:
    """How many rows a product of so many gets."""
    return 1 << (rows - 1).bit_length() if rows < ROUND_TO else -(-rows // ROUND_TO) * ROUND_TO


class Matrix:
    """`x @ weight.T + bias` with the weight in one precision, packed where oneDNN can."""

    def __init__(self, weight: Tensor, bias: Tensor | None, dtype: torch.dtype):
        self.weight = weight.to(dtype).contiguous()
        self.bias = None if bias is None else bias.to(dtype)
        self.packed = self.weight.device.type == "cpu" and _can_pack(dtype)
        if self.packed:
            self.weight = torch.ops.mkldnn._reorder_linear_weight(self.weight)

    def __call__(self, x_ND: Tensor) -> Tensor:
        if self.packed:
            return torch.ops.mkldnn._linear_pointwise(x_ND, self.weight, self.bias, "none", [], "")
        return F.linear(x_ND, self.weight, self.bias)


class PackedLayer:
    """One transformer block."""

    def __init__(self, layer: Any, config: dict[str, Any], dtype: torch.dtype):
        attention, ffn = layer.self_attn, layer.mlp
        pairs = _pairs(config["head_dim"], config["num_attention_heads"] + config["num_key_value_heads"])
        rows = torch.cat((pairs, torch.arange(len(pairs), len(pairs) + attention.v_proj.weight.shape[0])))
        rows = rows.to(attention.q_proj.weight.device)
        joined = torch.cat([p.weight for p in (attention.q_proj, attention.k_proj, attention.v_proj)]).float()
        bias = None
        if attention.q_proj.bias is not None:
            bias = torch.cat([p.bias for p in (attention.q_proj, attention.k_proj, attention.v_proj)])[rows]
        self.qkv = Matrix(joined[rows] * layer.input_layernorm.weight.float(), bias, dtype)
        self.out = Matrix(attention.o_proj.weight, attention.o_proj.bias, dtype)
        gate_up = torch.cat((ffn.gate_proj.weight, ffn.up_proj.weight)).float()
        bias = None if ffn.gate_proj.bias is None else torch.cat((ffn.gate_proj.bias, ffn.up_proj.bias))
        self.gate_up = Matrix(gate_up * layer.post_attention_layernorm.weight.float(), bias, dtype)
        self.down = Matrix(ffn.down_proj.weight, ffn.down_proj.bias, dtype)
        self.head_scale: Tensor | None = None
        if attention.normed:
            order = _pairs(config["head_dim"], 1).to(rows.device)
            q, k = attention.q_norm.weight.float()[order], attention.k_norm.weight.float()[order]
            heads = (config["num_attention_heads"], config["num_key_value_heads"])
            self.head_scale = torch.cat((q.expand(heads[0], -1), k.expand(heads[1], -1))).clone()


class Packed:
    """The network's weights in `dtype`, copied when made: make a new one after the weights have changed.

    Where the network is cut over processes all of them make theirs together, each a whole one: block after block is
    gathered in fp32 and packed, so that the copy has the bits that a whole network's would have.
    """

    def __init__(self, network: Network, dtype: torch.dtype):
        config = network.config
        self.config, self.dtype = config, dtype
        self.width, self.channels = int(config["hidden_size"]), int(config["head_dim"])
        self.heads, self.kv_heads = int(config["num_attention_heads"]), int(config["num_key_value_heads"])
        self.inner, self.eps = int(config["intermediate_size"]), float(config["rms_norm_eps"])
        with torch.inference_mode():
            self.table_VD = _gathered(network, "model.embed_tokens.weight")
            self.layers = [PackedLayer(layer, config, dtype) for layer in _whole_layers(network)]
            head_VD = self.table_VD if config["tie_word_embeddings"] else _gathered(network, "lm_head.weight")
            self.head = Matrix(head_VD.float() * network.model.norm.weight.float(), None, dtype)
            self.turns = torch.complex(network.cos, network.sin)
            device = self.table_VD.device
            self._eps = torch.tensor(self.eps, device=device)

    def forward(self, tokens_N: Tensor, positions_N: Tensor, attend: Attend) -> Tensor:
        """The last hidden states (N, D) before the final norm, fp32."""
        rows = len(tokens_N)
        more = padded_rows(rows) - rows
        if more:
            tokens_N, positions_N = F.pad(tokens_N, (0, more)), F.pad(positions_N, (0, more))
        x_ND = F.embedding(tokens_N, self.table_VD).float()
        turns_N1c = self.turns[positions_N][:, None]
        both, channels = self.heads + self.kv_heads, self.channels
        for number, layer in enumerate(self.layers):
            heads_NHC = layer.qkv(self._normed(x_ND)).float().view(-1, both + self.kv_heads, channels)
            q_k = heads_NHC[:, :both]
            if layer.head_scale is not None:
                q_k = q_k * self._scale(q_k, channels) * layer.head_scale
            q_k = torch.view_as_real(torch.view_as_complex(q_k.unflatten(-1, (-1, 2))) * turns_N1c).flatten(-2)
            mixed = attend(number, q_k[:rows, : self.heads], q_k[:rows, self.heads :], heads_NHC[:rows, both:])
            mixed_ND = mixed.reshape(rows, self.heads * channels).to(self.dtype)
            x_ND += layer.out(F.pad(mixed_ND, (0, 0, 0, more)) if more else mixed_ND)
            inner = layer.gate_up(self._normed(x_ND))
            x_ND += layer.down(F.silu(inner[:, : self.inner]) * inner[:, self.inner :])
        return x_ND[:rows]

    def logits(self, x_ND: Tensor) -> Tensor:
        """Logits (N, V) in fp32 of the states that `forward` returned."""
        rows = len(x_ND)
        x_ND = self._normed(x_ND)
        more = padded_rows(rows) - rows
        return self.head(F.pad(x_ND, (0, 0, 0, more)) if more else x_ND)[:rows].float()

    def _normed(self, x_ND: Tensor) -> Tensor:
        return (x_ND * self._scale(x_ND, self.width)).to(self.dtype)

    def _scale(self, x: Tensor, size: int) -> Tensor:
        """1 / rms of the last axis."""
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        return torch.addcmul(self._eps, length, length, value=1 / size).rsqrt_()


def _gathered(network: Network, name: str) -> Tensor:
    """The values of one parameter, whole although they may be cut over processes."""
    return network.get_parameter(name).detach() if network.cut is None else network.cut.whole(name)


def _whole_layers(network: Network) -> Iterator[nn.Module]:
    """The blocks with all their values: where they are cut over processes, a copy of one at a time."""
    for number, layer in enumerate(network.model.layers):
        if network.cut is None:
            yield layer
            continue
        with torch.device("meta"):
            copied = Layer(network.config)
        names = [name for name, _ in copied.named_parameters()]
        values = {name: nn.Parameter(_gathered(network, f"model.layers.{number}.{name}")) for name in names}
        copied.load_state_dict(values, assign=True)
        yield copied


def _pairs(channels: int, heads: int) -> Tensor:
    """Row order that puts channel i beside i + channels/2, so that a rotation is one complex product."""
    one = torch.arange(channels).view(2, -1).T.reshape(-1)
    return (torch.arange(heads)[:, None] * channels + one).reshape(-1)


_PACKS: dict[torch.dtype, bool] = {}


def _can_pack(dtype: torch.dtype) -> bool:
    """Whether this build of PyTorch packs weights of `dtype` and multiplies them right (tried once)."""
    if dtype not in _PACKS:
        _PACKS[dtype] = _try_packing(dtype)
    return _PACKS[dtype]


def _try_packing(dtype: torch.dtype) -> bool:
    if not torch.backends.mkldnn.is_available():
        return False
    weight = torch.linspace(-1, 1, 96, dtype=dtype).view(12, 8)
    x = torch.linspace(1, 2, 16, dtype=dtype).view(2, 8)
    try:
        packed = torch.ops.mkldnn._reorder_linear_weight(weight)
        found = torch.ops.mkldnn._linear_pointwise(x, packed, None, "none", [], "")
    except (RuntimeError, AttributeError, NotImplementedError):
        return False
    return torch.allclose(found.float(), F.linear(x, weight).float(), rtol=0.02, atol=0.02)
