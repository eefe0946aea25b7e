"""Matrices whose rows lie on several processes, gathered where one process needs them whole.

Muon orthogonalises whole updates: those of one shape are shared out, each travels to the process that orthogonalises
it, and the rows travel back (distributed Muon: Liu et al. 2025, Moonlight, 2.3; here one exchange for all of a shape).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def rows_of(height: int, shards: int, place: int) -> tuple[int, int]:
    """The rows of one of `shards` processes, as `torch.chunk` cuts them: the last ones may have fewer, or none."""
    step = -(-height // shards)
    return min(place * step, height), min((place + 1) * step, height)


def gather(whole: Tensor, mine: Tensor, group: dist.ProcessGroup) -> None:
    """Equal shares of all processes of a group, one behind the other."""
    _named("all_gather_single", "all_gather_into_tensor")(whole, mine, group=group)


def scatter(mine: Tensor, whole: Tensor, group: dist.ProcessGroup) -> None:
    """This process's share of the sum of what all processes of a group give."""
    _named("reduce_scatter_single", "reduce_scatter_tensor")(mine, whole, group=group)


def _named(name: str, before: str) -> Callable[..., Any]:
    """A collective by its name since torch 2.13, or the one that it had before."""
    return getattr(dist, name, None) or getattr(dist, before)


class Exchange:
    """Sends `count` matrices, cut over a group of P, to their owners and back; matrix i belongs to process i mod P."""

    def __init__(self, group: dist.ProcessGroup, shards: int, place: int, count: int, height: int, width: int):
        self.group, self.ranks, self.count, self.width = group, shards, count, width
        rows = [last - first for first, last in (rows_of(height, shards, other) for other in range(shards))]
        owned = [len(range(other, count, shards)) for other in range(shards)]
        self.rows, self.mine, self.owned = rows, rows[place], owned[place]
        self.in_rows = [number * self.mine * width for number in owned]
        """Elements of this process's rows, by owner."""
        self.in_matrices = [self.owned * number * width for number in rows]
        """Elements of the matrices that this process owns, by whose rows they are."""

    def to_owners(self, parts: list[Tensor]) -> Tensor:
        """The rows of all matrices here → the matrices that this process owns, n x height x width."""
        sent = torch.cat([part.reshape(-1) for owner in range(self.ranks) for part in parts[owner :: self.ranks]])
        got = sent.new_empty(sum(self.in_matrices))
        dist.all_to_all_single(got, sent, self.in_matrices, self.in_rows, group=self.group)
        pieces = got.split(self.in_matrices)
        return torch.cat([p.view(self.owned, rows, self.width) for p, rows in zip(pieces, self.rows, strict=True)], 1)

    def to_rows(self, matrices: Tensor) -> list[Tensor]:
        """The matrices that this process owns → its rows of all of them, in their order."""
        sent = torch.cat([part.reshape(-1) for part in matrices.split(self.rows, 1)])
        got = sent.new_empty(sum(self.in_rows))
        dist.all_to_all_single(got, sent, self.in_rows, self.in_matrices, group=self.group)
        if not self.mine:
            return [got.new_empty(0, self.width) for _ in range(self.count)]
        parts = [piece.view(-1, self.mine, self.width) for piece in got.split(self.in_rows)]
        return [parts[number % self.ranks][number // self.ranks] for number in range(self.count)]
