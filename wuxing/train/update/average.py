"""Averaged weights: what is measured and kept, where it is not what learns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass
class Average:
    """An exponential moving average of weights (Polyak and Juditsky 1992; Tarvainen and Valpola 2017).

    Step t (from 1) moves it by 1 - min(decay, t / (t + 9)), so that the first weights are soon forgotten.
    """

    decay: float
    tensors: dict[str, Tensor] = field(default_factory=dict)

    @torch.no_grad()
    def update(self, named: Mapping[str, Tensor], step: int) -> None:
        """Take in the weights after step `step`."""
        if not self.tensors:
            self.tensors = {name: tensor.detach().clone() for name, tensor in named.items()}
            return
        weight = 1 - min(self.decay, step / (step + 9))
        mine = [self.tensors[name] for name in named]
        torch._foreach_lerp_(mine, [tensor.detach() for tensor in named.values()], weight)


@contextmanager
def swapped(named: Mapping[str, Tensor], others: Mapping[str, Tensor]) -> Iterator[None]:
    """The network with `others` in place of its own weights; afterwards every bit is as before."""
    own = {name: named[name].data for name in others}
    try:
        for name, tensor in others.items():
            named[name].data = tensor.to(own[name].dtype)
        yield
    finally:
        for name, tensor in own.items():
            named[name].data = tensor
