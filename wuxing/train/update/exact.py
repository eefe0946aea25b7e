"""Sums of gradients that neither the order of the pieces nor the number of processes changes.

Each piece's gradient is rounded to whole multiples of 2^-48 and added in fp64, where whole numbers below 2^53 add up
without rounding: any order gives the same bits.  (Demmel and Nguyen 2013 choose the grid from the data; a gradient that
is divided by the step's labels has elements far below 32, so a fixed one does.)
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from wuxing.compute import team

GRID = 2.0**48
"""Multiples of 3.6e-15, exact up to sums of 32 in size; larger ones are rounded like any fp64, and values that are not
finite stay so."""


class ExactSum:
    """The gradient of a step while its pieces go through; 8 bytes per parameter."""

    def __init__(self) -> None:
        self._held: dict[str, Tensor] = {}

    @torch.no_grad()
    def take(self, named: Mapping[str, Tensor]) -> None:
        """Add what a piece has left in the parameters, and take it away there."""
        for name, parameter in named.items():
            if parameter.grad is None:
                continue
            whole = parameter.grad.double().mul_(GRID).round_()
            parameter.grad = None
            if name in self._held:
                self._held[name].add_(whole)
            else:
                self._held[name] = whole

    @torch.no_grad()
    def give(self, named: Mapping[str, Tensor]) -> None:
        """Leave the sum over all pieces of all processes in the parameters that learn."""
        learning = {name: parameter for name, parameter in named.items() if parameter.requires_grad}
        sums = [
            self._held[name] if name in self._held else torch.zeros_like(parameter, dtype=torch.float64)
            for name, parameter in learning.items()
        ]
        self._held = {}
        if team.ranks() > 1:
            team.add_up(sums)
        for parameter, whole in zip(learning.values(), sums, strict=True):
            parameter.grad = whole.div_(GRID).to(parameter.dtype)


def exact_sums(values: Sequence[Sequence[float]], width: int) -> list[float]:
    """Column sums of all processes' rows, rounded once: no order changes them."""
    rows = [row for part in team.of_everyone([list(row) for row in values]) for row in part]
    columns = list(zip(*rows, strict=True)) if rows else [()] * width
    return [fsum(column) for column in columns]


def fsum(values: Sequence[float]) -> float:
    """`math.fsum`, in which a value that is not finite makes the sum so."""
    return math.fsum(values) if all(math.isfinite(value) for value in values) else math.nan
