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

SQUARE_BITS = 52
"""Whole numbers below 2^53 add up without rounding in fp64."""


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

    @torch.no_grad()
    def norm(self, named: Mapping[str, Tensor]) -> float:
        """Of the whole gradient, the same bits however it is cut: squares are rounded to a grid of each tensor's own,
        set by its largest element and its size, on which no sum of them is rounded."""
        gradients = {name: named[name].grad for name in sorted(named)}
        given = {name: gradient for name, gradient in gradients.items() if gradient is not None}
        names = list(given)
        tops = torch.stack([_largest(gradient) for gradient in given.values()])
        self._most(tops)
        if not bool(torch.isfinite(tops).all()):
            return math.nan
        sizes = [self._size(name, gradient).bit_length() for name, gradient in given.items()]
        powers = [(math.frexp(top)[1], SQUARE_BITS - size) for top, size in zip(tops.tolist(), sizes, strict=True)]
        counts = torch.stack(
            [
                gradient.double().mul_(2.0**-top).square_().mul_(2.0**bits).round_().sum()
                for gradient, (top, bits) in zip(given.values(), powers, strict=True)
            ]
        )
        self._add_up(counts, names)
        squares = [count * 2.0 ** (2 * top - bits) for count, (top, bits) in zip(counts.tolist(), powers, strict=True)]
        return fsum(squares) ** 0.5

    def _most(self, values: Tensor) -> None:
        """The largest of all processes that share a state, in place: here all of it is at hand."""

    def _add_up(self, counts: Tensor, names: list[str]) -> None:
        """Sums over the processes that share a state, in place."""

    def _size(self, name: str, gradient: Tensor) -> int:
        """Elements of the whole tensor."""
        return gradient.numel()


def _largest(gradient: Tensor) -> Tensor:
    """The largest size of an element, in fp64; 0 where there is none."""
    if not gradient.numel():
        return torch.zeros((), dtype=torch.float64, device=gradient.device)
    return gradient.abs().amax().double()


def exact_sums(values: Sequence[Sequence[float]], width: int) -> list[float]:
    """Column sums of all processes' rows, rounded once: no order changes them."""
    rows = [row for part in team.of_everyone([list(row) for row in values]) for row in part]
    columns = list(zip(*rows, strict=True)) if rows else [()] * width
    return [fsum(column) for column in columns]


def fsum(values: Sequence[float]) -> float:
    """`math.fsum`, in which a value that is not finite makes the sum so."""
    return math.fsum(values) if all(math.isfinite(value) for value in values) else math.nan
