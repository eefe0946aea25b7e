"""Networks and their tokenizers as one GGUF file, as llama.cpp reads it.

llama.cpp's own converter refuses every tokenizer that it does not know by name, so all that our users train; this
writer takes the name of the text split from the tokenizer and leaves the proof to `parity.py`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from wuxing.core.error import WuxingError
from wuxing.core.file import sync
from wuxing.model.network import Network
from wuxing.model.rope import plain_frequencies, rope_frequencies

if TYPE_CHECKING:
    from gguf import GGUFWriter

    from wuxing.text.tokenizer import Tokenizer

_OUTSIDE = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}
_INSIDE = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


def write_gguf(network: Network, tokenizer: Tokenizer, path: Path, name: str, precision: str = "f32") -> None:
    """Write `path`.  `precision` of the matrices: `f32`, `f16` or `bf16`; norms and biases are always f32.

    Raises WuxingError for a tokenizer whose text split llama.cpp has no name for.
    """
    from gguf import GGUFWriter, LlamaFileType

    file_types = {"f32": LlamaFileType.ALL_F32, "f16": LlamaFileType.MOSTLY_F16, "bf16": LlamaFileType.MOSTLY_BF16}
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    writer = GGUFWriter(str(draft), network.config["model_type"])
    try:
        writer.add_name(name)
        writer.add_file_type(file_types[precision])
        _add_shape(writer, network.config)
        _add_tokenizer(writer, tokenizer, network.vocab_size)
        for tensor_name, values in stored_tensors(network, precision):
            rounded = values.dtype != np.float32
            writer.add_tensor(tensor_name, values, raw_dtype=_type(precision) if rounded else None)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        with open(draft, "rb") as file:
            os.fsync(file.fileno())
        os.replace(draft, path)
        sync(path.parent)
    finally:
        draft.unlink(missing_ok=True)


def stored_tensors(network: Network, precision: str) -> Iterator[tuple[str, np.ndarray]]:
    """Name and values of each tensor as the file holds them: matrices rounded to `precision`, the rest fp32."""
    from gguf import quantize

    for name, tensor in _tensors(network):
        values = np.ascontiguousarray(tensor.detach().float().cpu().numpy())
        yield name, quantize(values, _type(precision)) if values.ndim > 1 and precision != "f32" else values


def _type(precision: str) -> Any:
    from gguf import GGMLQuantizationType

    return GGMLQuantizationType[precision.upper()]


def _add_shape(writer: GGUFWriter, config: dict[str, Any]) -> None:
    from gguf import RopeScalingType

    if config["model_type"] == "qwen3" and config.get("attention_bias"):
        raise WuxingError("a Qwen3 model with attention biases has no GGUF form", "Release it as safetensors only")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(config["head_dim"])
    writer.add_value_length(config["head_dim"])
    writer.add_rope_dimension_count(config["head_dim"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    writer.add_vocab_size(config["vocab_size"])
    if config["rope_parameters"]["rope_type"] == "linear":
        writer.add_rope_scaling_type(RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(config["rope_parameters"]["factor"])


def _add_tokenizer(writer: GGUFWriter, tokenizer: Tokenizer, vocab_size: int) -> None:
    import json

    from gguf import TokenType

    if not tokenizer.pre_tokenizer:
        raise WuxingError(
            "llama.cpp has no name for this tokenizer's way to split text, so a GGUF file would tokenize wrongly",
            'Set "pre_tokenizer" in tokenizer_config.json if you know the name, or release as safetensors only',
        )
    backend = json.loads(tokenizer.backend.to_str())
    spellings: dict[int, str] = {number: token for token, number in backend["model"]["vocab"].items()}
    types = dict.fromkeys(spellings, TokenType.NORMAL)
    for added in backend["added_tokens"]:
        spellings[added["id"]] = added["content"]
        types[added["id"]] = TokenType.CONTROL if added["special"] else TokenType.USER_DEFINED
    tokens = [spellings.get(number, f"[UNUSED{number}]") for number in range(vocab_size)]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(tokenizer.pre_tokenizer)
    writer.add_token_list(tokens)
    writer.add_token_types([types.get(number, TokenType.UNUSED) for number in range(vocab_size)])
    merges = backend["model"]["merges"]
    writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in merges])
    writer.add_eos_token_id(tokenizer.end_of_turn_id)
    writer.add_eot_token_id(tokenizer.end_of_turn_id)
    writer.add_pad_token_id(tokenizer.end_of_text_id)
    writer.add_add_bos_token(False)
    writer.add_chat_template(tokenizer.template.source)


def _tensors(network: Network) -> Iterator[tuple[str, Tensor]]:
    config = network.config
    if config["rope_parameters"]["rope_type"] == "llama3":
        yield "rope_freqs.weight", plain_frequencies(config) / rope_frequencies(config)
    parameters: list[tuple[str, Tensor]] = list(network.named_parameters())
    for name, parameter in parameters:
        if name in _OUTSIDE:
            yield _OUTSIDE[name], parameter
            continue
        _, _, layer, inside = name.split(".", 3)
        module, _, leaf = inside.rpartition(".")
        if config["model_type"] == "llama" and module in ("self_attn.q_proj", "self_attn.k_proj"):
            parameter = _interleaved(parameter, config["head_dim"])
        yield f"blk.{layer}.{_INSIDE[module]}.{leaf}", parameter


def _interleaved(weight: Tensor, channels: int) -> Tensor:
    """llama.cpp rotates neighbours (0, 1), (2, 3), … in its llama family; ours rotates i with i + channels/2."""
    heads = weight.shape[0] // channels
    return weight.view(heads, 2, channels // 2, *weight.shape[1:]).transpose(1, 2).reshape(weight.shape)
