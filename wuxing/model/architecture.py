"""The shape of a network from one dial: `size: 5m` and a vocabulary give width, layers, heads and all the rest."""

from __future__ import annotations

import math
import re
from typing import Any, Literal

from pydantic import field_validator

from wuxing.core.error import UsageError
from wuxing.core.step import Config

MIN_ASPECT, MAX_ASPECT = 64, 128
"""Width per layer that the law aims at: 64 up to width 1024 (GPT-2 small 768/12), 128 from 2048 on (Llama 2048/16)."""
SLACK, SMALL_SLACK, SMALL = 1.05, 1.1, 10_000_000
"""How far a size may lie from the one asked for, for the sake of its proportions: between two widths or depths of a
network below 10 million parameters lie 10 to 50 % of them."""
_SIZE = re.compile(r"(?P<number>[0-9]+(?:\.[0-9]+)?)(?P<unit>[kmb])")
_UNIT = {"k": 1e3, "m": 1e6, "b": 1e9}


class Architecture(Config):
    """What is built.  Only `family` and `size` need a decision; what is left out follows from the size by a law."""

    family: Literal["qwen3", "llama"] = "qwen3"
    """`qwen3`: RMS norm on queries and keys, steadier at high learning rates; `llama`: without it."""
    size: str
    """All parameters, embeddings included (a tied table counts once): `5m`, `100m`, `1b`. Larger: better and slower."""
    max_positions: int = 1024
    """Longest sequence in tokens that the network is meant for."""
    tie_embeddings: bool = True
    """Use one table for the input and the output: saves vocabulary × width parameters; pays below about 1b."""
    rope_theta: float = 10_000.0
    """Base of the rotary embedding; larger for longer sequences (1e6 at 32k tokens)."""
    attention: Literal["causal", "bidirectional"] | None = None
    """What a token sees of its document: what stands before it, or all of it.  Left out: all for the objective
    `masked`, what stands before for any other.  A classifier may have either; whatever writes text is causal."""
    width: int | None = None
    """Override of the law: size of the residual stream, a multiple of 32."""
    layers: int | None = None
    """Override of the law."""
    heads: int | None = None
    """Override of the law: query heads."""
    kv_heads: int | None = None
    """Override of the law: key and value heads; fewer make the cache smaller."""
    ffn_width: int | None = None
    """Override of the law: inner width of the gated feed-forward block."""

    @field_validator("size")
    @classmethod
    def _size_is_readable(cls, size: str) -> str:
        size = size.lower()
        if not _SIZE.fullmatch(size):
            raise ValueError(f'size "{size}" is no number of parameters; write 5m, 100m or 1b')
        return size

    @property
    def parameters(self) -> int:
        """The parameters that the dial asks for."""
        match = _SIZE.fullmatch(self.size)
        assert match is not None
        return round(float(match["number"]) * _UNIT[match["unit"]])


def resolve(
    architecture: Architecture,
    vocab_size: int,
    end_of_text_id: int | None = None,
    end_of_turn_id: int | None = None,
) -> dict[str, Any]:
    """The values of a Hugging Face `config.json` for this architecture and vocabulary.

    The law: head channels 64 (32 where 64 does not divide the width, 128 from width 2048 on); one key-value head for
    two query heads below width 1024, for four above (where they divide); feed-forward width 8/3 of the width (Shazeer
    2020: the cost of a plain one of 4), rounded up to a multiple of 64; of all widths and depths within 5 % of the size
    (10 % below 10m), the one whose width per layer is nearest to 64 (growing to 128 between width 1024 and 2048).
    Raises UsageError when no network of that size can hold the vocabulary.
    """
    width, layers = _width_and_layers(architecture, vocab_size)
    shape = _shape(architecture, width, layers)
    ends = [end for end in (end_of_turn_id, end_of_text_id) if end is not None]
    return {
        "architectures": ["Qwen3ForCausalLM" if architecture.family == "qwen3" else "LlamaForCausalLM"],
        "model_type": architecture.family,
        "vocab_size": vocab_size,
        **shape,
        "max_position_embeddings": architecture.max_positions,
        "rope_parameters": {"rope_type": "default", "rope_theta": architecture.rope_theta},
        "rms_norm_eps": 1e-6,
        "hidden_act": "silu",
        "attention_bias": False,
        "attention_dropout": 0.0,
        "tie_word_embeddings": architecture.tie_embeddings,
        "initializer_range": 0.02,
        "use_cache": True,
        "dtype": "float32",
        "bos_token_id": None,
        "eos_token_id": ends if len(ends) > 1 else (ends[0] if ends else None),
        "pad_token_id": end_of_text_id,
        **({"mlp_bias": False} if architecture.family == "llama" else {"use_sliding_window": False}),
        **({"is_causal": False, "use_cache": False} if architecture.attention == "bidirectional" else {}),
    }


def count_parameters(config: dict[str, Any]) -> int:
    """All parameters of a network with this `config.json`, a tied table once."""
    width, layers = config["hidden_size"], config["num_hidden_layers"]
    channels, heads, kv_heads = config["head_dim"], config["num_attention_heads"], config["num_key_value_heads"]
    attention = width * channels * (2 * heads + 2 * kv_heads)
    if config.get("attention_bias"):
        attention += channels * (heads + 2 * kv_heads) + width
    feed_forward = 3 * width * config["intermediate_size"]
    if config.get("mlp_bias"):
        feed_forward += 2 * config["intermediate_size"] + width
    norms = 2 * width + (2 * channels if config["model_type"] == "qwen3" else 0)
    tables = 1 if config["tie_word_embeddings"] else 2
    return tables * config["vocab_size"] * width + layers * (attention + feed_forward + norms) + width


def describe(config: dict[str, Any]) -> str:
    """One line for people: what the law derived."""
    tied = "tied" if config["tie_word_embeddings"] else "separate"
    table = config["vocab_size"] * config["hidden_size"] * (1 if config["tie_word_embeddings"] else 2)
    attention = "" if config.get("is_causal", True) else ", sees both ways"
    return (
        f"{config['model_type']}, {count_parameters(config):,} parameters ({table:,} of them {tied} embeddings): "
        f"width {config['hidden_size']}, {config['num_hidden_layers']} layers, "
        f"{config['num_attention_heads']} heads of {config['head_dim']} "
        f"({config['num_key_value_heads']} for keys and values), feed-forward {config['intermediate_size']}, "
        f"{config['max_position_embeddings']} positions, vocabulary {config['vocab_size']:,}{attention}"
    )


def _shape(architecture: Architecture, width: int, layers: int) -> dict[str, int]:
    channels = 32 if width % 64 or width < 128 else 64 if width < 2048 else 128
    heads = architecture.heads or max(1, width // channels)
    if architecture.heads:
        if width % heads or (width // heads) % 2:
            raise UsageError(f"width {width} does not split into {heads} heads", "Choose a number that divides it")
        channels = width // heads
    group = 4 if width >= 1024 and heads % 4 == 0 else 2 if heads % 2 == 0 else 1
    kv_heads = architecture.kv_heads or heads // group
    if heads % kv_heads:
        raise UsageError(f"{heads} heads cannot share {kv_heads} kv_heads", "Choose a number that divides the heads")
    return {
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": channels,
        "intermediate_size": architecture.ffn_width or 64 * math.ceil(width * 8 / 3 / 64),
    }


def _width_and_layers(architecture: Architecture, vocab_size: int) -> tuple[int, int]:
    target = architecture.parameters
    candidates = []
    for width in [architecture.width] if architecture.width else _widths():
        for layers in [architecture.layers] if architecture.layers else range(2, 129):
            config = {
                "model_type": architecture.family,
                "vocab_size": vocab_size,
                "tie_word_embeddings": architecture.tie_embeddings,
                **_shape(architecture, width, layers),
            }
            error = abs(math.log(count_parameters(config) / target))
            aspect = min(max(width / 16, MIN_ASPECT), MAX_ASPECT)
            candidates.append((error, abs(math.log(width / layers / aspect)), width, layers))
    if architecture.width and architecture.layers:
        return architecture.width, architecture.layers
    best = min(candidates)[0]
    if best > math.log(1.3):
        raise UsageError(
            f"no network of size {architecture.size} fits a vocabulary of {vocab_size:,}",
            "Choose a larger size or a smaller vocab_size",
        )
    allowed = max(math.log(SMALL_SLACK if target < SMALL else SLACK), best)
    _, _, width, layers = min((c for c in candidates if c[0] <= allowed), key=lambda c: (c[1], c[0]))
    return width, layers


def _widths() -> list[int]:
    return [*range(32, 256, 32), *range(256, 512, 64), *range(512, 2048, 128), *range(2048, 16385, 512)]
