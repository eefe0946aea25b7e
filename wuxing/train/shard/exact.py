"""Sums of gradients that no number of processes changes, where the state is cut over them.

The same sums as `update/exact.py`: a process rounds the gradient of its piece to the grid before it is scattered, the
rows that arrive are added in fp64, and nothing is rounded again until the step is over.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.fsdp import FSDPModule

from wuxing.train.shard.cut import Shards
from wuxing.train.shard.exchange import scatter
from wuxing.train.update.exact import GRID, ExactSum


class ExactScatter:
    """What FSDP scatters the gradients of one group of matrices with: keeps their exact sums besides."""

    def __init__(self) -> None:
        self.held: Tensor | None = None
        """In multiples of the grid, as FSDP lays its rows out: matrix after matrix, filled up to equal shares."""

    def allocate(self, size: Any, *, dtype: torch.dtype, device: torch.device) -> Tensor:
        """Memory for what is sent and for what arrives."""
        return torch.empty(*size, dtype=dtype, device=device)

    def __call__(
        self, output_tensor: Tensor, input_tensor: Tensor, group: dist.ProcessGroup, op: Any, async_op: bool = False
    ) -> None:
        whole = input_tensor.double().mul_(GRID).round_()
        mine = torch.empty(output_tensor.shape, dtype=torch.float64, device=output_tensor.device)
        scatter(mine, whole, group)
        output_tensor.copy_(mine / GRID)
        self.held = mine if self.held is None else self.held.add_(mine)


class CutExactSum(ExactSum):
    """`ExactSum` for one of the processes that share a state: 8 bytes for each parameter that it keeps."""

    def __init__(self, shards: Shards) -> None:
        super().__init__()
        self.shards = shards
        self._scatters: list[tuple[ExactScatter, list[str]]] = []
        names = {id(matrix): name for name, matrix in shards.matrices.items()}
        for module in shards.network.modules():
            if isinstance(module, FSDPModule):
                scatter = ExactScatter()
                module.set_custom_reduce_scatter(scatter)  # type: ignore[arg-type]
                self._scatters.append((scatter, [names[id(matrix)] for matrix in _matrices(module)]))

    def take(self, named: Mapping[str, Tensor]) -> None:
        """Vectors as anywhere; of the matrices the sums are in the scatters already."""
        super().take({name: tensor for name, tensor in named.items() if name not in self.shards.matrices})
        for matrix in self.shards.matrices.values():
            matrix.grad = None

    @torch.no_grad()
    def give(self, named: Mapping[str, Tensor]) -> None:
        self.take({})  # what the passes without a piece have left
        super().give({name: tensor for name, tensor in named.items() if name not in self.shards.matrices})
        for group, names in self._scatters:
            learning = [name for name in names if self.shards.matrices[name].requires_grad]
            if not learning:
                continue
            assert group.held is not None, "every process goes through the network in every step"
            if self.shards.topology.replicas > 1:
                dist.all_reduce(group.held, group=self.shards.mesh.get_group("replicate"))
            for name, rows in zip(learning, self._rows(group.held, learning), strict=True):
                named[name].grad = rows.div_(GRID).to(named[name].dtype)
            group.held = None

    def _rows(self, held: Tensor, names: list[str]) -> list[Tensor]:
        """This process's rows of each matrix, out of what was scattered."""
        shards = self.shards.topology.shards
        shapes = [self.shards.shape(name) for name in names]
        sizes = [-(-shape[0] // shards) * shape[1] for shape in shapes]
        assert sum(sizes) == len(held), "FSDP lays its rows out in another way"
        found = []
        for part, shape in zip(held.split(sizes), shapes, strict=True):
            first, last = self.shards.rows(shape[0])
            found.append(part.view(-1, shape[1])[: last - first])
        return found

    def _most(self, values: Tensor) -> None:
        dist.all_reduce(values, dist.ReduceOp.MAX, group=self.shards.group)

    def _add_up(self, counts: Tensor, names: list[str]) -> None:
        """Vectors are whole on each process: they count once."""
        if self.shards.place:
            counts[[name not in self.shards.matrices for name in names]] = 0
        self.shards.add_up(counts)

    def _size(self, name: str, gradient: Tensor) -> int:
        return self.shards.shape(name).numel()


def _matrices(module: FSDPModule) -> list[Tensor]:
    """What FSDP gathers and scatters together for a module, in its order (torch 2.13 has lists of groups)."""
    state: Any = module._get_fsdp_state()
    groups = state._fsdp_param_groups if hasattr(state, "_fsdp_param_groups") else [state._fsdp_param_group]
    return [parameter.sharded_param for group in groups for parameter in group.fsdp_params]
