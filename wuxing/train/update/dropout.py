"""Dropout whose masks belong to samples: the same for any cut of a step, any number of ranks, and after a kill.

Shapes: B rows, T tokens, D width.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from wuxing.model.network import Network


@dataclass(frozen=True)
class Dropout:
    """Which share is left out, and the seed of the masks."""

    share: float
    seed: int

    def mask(
        self, step: int, sample_id: int, branch: int, tokens: int, width: int, device: torch.device, part: int = 0
    ) -> Tensor:
        """0 or 1 / (1 - share), T x D: a function of seed, step, sample, branch and the sample's part only."""
        place = f"{self.seed}/{step}/{sample_id}/{branch}" + (f"/{part}" if part else "")
        digest = hashlib.sha256(place.encode()).digest()
        generator = torch.Generator(device).manual_seed(int.from_bytes(digest[:8], "little") >> 1)
        kept_TD = torch.rand(tokens, width, generator=generator, device=device) >= self.share
        return kept_TD / (1 - self.share)


@contextmanager
def dropped(network: Network, dropout: Dropout | None, step: int, sample_ids: Sequence[int]) -> Iterator[None]:
    """The network with dropout for the piece that holds these samples."""
    if dropout is None:
        yield
        return

    seen: Counter[int] = Counter()
    parts = []
    for sample in sample_ids:  # rows of one sample stand together in one piece
        parts.append(seen[sample])
        seen[sample] += 1

    def drop(x_BTD: Tensor, branch: int) -> Tensor:
        rows, tokens, width = x_BTD.shape
        assert rows == len(sample_ids), "a piece has one id a row"
        masks = [
            dropout.mask(step, sample, branch, tokens, width, x_BTD.device, part)
            for sample, part in zip(sample_ids, parts, strict=True)
        ]
        return x_BTD * torch.stack(masks).to(x_BTD.dtype)

    network.drop = drop
    try:
        yield
    finally:
        network.drop = None
