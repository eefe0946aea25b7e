"""Rotary frequencies, with the two scalings that we know exactly: linear, and Llama 3's by wavelength."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from wuxing.core.error import WuxingError

KNOWN_SCALINGS = ("default", "linear", "llama3")


def rope_tables(config: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """Cosines and sines, each (positions, head channels / 2), fp32; angles computed in fp64."""
    angles = torch.outer(torch.arange(config["max_position_embeddings"], dtype=torch.float64), rope_frequencies(config))
    return angles.cos().float(), angles.sin().float()


def plain_frequencies(config: dict[str, Any]) -> Tensor:
    """Radians per position of each channel pair, before any scaling, fp64."""
    exponents = torch.arange(0, config["head_dim"], 2, dtype=torch.float64) / config["head_dim"]
    return float(config["rope_parameters"]["rope_theta"]) ** -exponents


def rope_frequencies(config: dict[str, Any]) -> Tensor:
    """Radians per position of each channel pair, fp64.  Raises WuxingError for a scaling that is not known."""
    rope, plain = config["rope_parameters"], plain_frequencies(config)
    kind = rope.get("rope_type", "default")
    if kind == "default":
        return plain
    if kind == "linear":
        return plain / rope["factor"]
    if kind == "llama3":
        return _llama3(plain, rope)
    raise WuxingError(
        f'rope scaling "{kind}" is not supported', f"Known: {', '.join(KNOWN_SCALINGS)}; use the unscaled model"
    )


def _llama3(plain: Tensor, rope: dict[str, Any]) -> Tensor:
    """Long wavelengths divided by `factor`, short ones kept, a ramp between (Llama 3.1's model card)."""
    factor, low, high = rope["factor"], rope["low_freq_factor"], rope["high_freq_factor"]
    turns = rope["original_max_position_embeddings"] * plain / (2 * math.pi)
    keep = ((turns - low) / (high - low)).clamp(0, 1)
    return keep * plain + (1 - keep) * plain / factor
