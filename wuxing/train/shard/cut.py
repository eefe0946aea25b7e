"""A network whose matrices are cut over processes (FSDP2), seen from one of them.

Every process keeps its rows of every matrix and table, of their gradients and of all that the optimizer holds for them.
Vectors (norms, biases: a millionth of a large network) stay whole on each.  Blocks are gathered when they compute, in
the type of their products, which is what autocast would round them to; tables in fp32, as the embedding reads them.  So
the gradients are those of replicated training bit for bit, up to the order in which pieces are added.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, Placement, Replicate, Shard

from wuxing.compute import team
from wuxing.compute.mesh import Topology, device_mesh
from wuxing.model.network import Network
from wuxing.model.rope import rope_tables
from wuxing.train.shard.exchange import Exchange, gather, rows_of


@dataclass
class Shards:
    """This process's part of a network."""

    network: Network
    mesh: DeviceMesh
    topology: Topology
    matrices: dict[str, DTensor]
    """What is cut, by name."""
    named: dict[str, Tensor]
    """What this process updates: its rows of each matrix (the memory of `matrices`), and every vector."""

    @property
    def group(self) -> dist.ProcessGroup:
        """The processes that share one state."""
        return self.mesh.get_group("shard")

    @property
    def place(self) -> int:
        """This process's number within its group."""
        return int(self.mesh.get_local_rank("shard"))

    @property
    def replica(self) -> int:
        """The number of its group."""
        return int(self.mesh.get_local_rank("replicate")) if self.topology.replicas > 1 else 0

    @property
    def reading_mesh(self) -> DeviceMesh:
        """The same places for tensors on the CPU."""
        if self.mesh.device_type == "cpu":
            return self.mesh
        return DeviceMesh("cpu", self.mesh.mesh, mesh_dim_names=self.mesh.mesh_dim_names, _init_backend=False)

    @property
    def placements(self) -> list[Placement]:
        """How a matrix lies on the mesh."""
        return [*([Replicate()] if self.topology.replicas > 1 else []), Shard(0)]

    def rows(self, height: int) -> tuple[int, int]:
        """First and last (exclusive) of this process's rows of a matrix of `height` rows."""
        return rows_of(height, self.topology.shards, self.place)

    def orthogonalise(self, updates: list[Tensor], shape: torch.Size, how: Callable[[Tensor], Tensor]) -> list[Tensor]:
        """This process's rows of the orthogonalised updates of one shape: `how` does a batch of whole ones."""
        exchange = Exchange(self.group, self.topology.shards, self.place, len(updates), *shape)
        whole = exchange.to_owners(updates)
        return exchange.to_rows(how(whole) if len(whole) else whole)

    def add_up(self, tensor: Tensor) -> None:
        """Sum over the processes that share one state, in place."""
        dist.all_reduce(tensor, group=self.group)

    def shape(self, name: str) -> torch.Size:
        """Of a whole tensor."""
        return self.matrices[name].shape if name in self.matrices else self.named[name].shape

    @torch.no_grad()
    def fill(self, whole: Callable[[str, torch.Size], Tensor]) -> None:
        """Keep this process's rows of the tensors that `whole` gives by name and shape: one at a time is in memory."""
        for name, mine in self.named.items():
            tensor = whole(name, self.shape(name))
            if name in self.matrices:
                first, last = self.rows(tensor.shape[0])
                tensor = tensor[first:last]
            mine.copy_(tensor)

    def learn(self, active: set[str]) -> None:
        """Let only these learn."""
        for name, tensor in self.matrices.items():
            tensor.requires_grad_(name in active)

    def last(self, last: bool) -> None:
        """Whether the next backward pass is the step's last one: sums between groups are made once a step."""
        assert isinstance(self.network, FSDPModule)
        if self.topology.replicas > 1:
            self.network.set_requires_all_reduce(last)

    def keep_up_with(self, passes: int) -> None:
        """Take part in the last passes of a step, of which others have so many more."""
        for left in reversed(range(passes)):
            self.last(left == 0)
            self.keep_up()

    def keep_up(self) -> None:
        """Take part in the others' pass while this process has nothing to learn from."""
        hidden = self.network.hidden(torch.zeros((1, 1), dtype=torch.int64, device=self.network.device))
        if torch.is_grad_enabled():
            (hidden.float().sum() * 0 + self.network.head_VD.sum() * 0).backward()

    def collect(self) -> None:
        """After the last backward pass: give each tensor of `named` its gradient, summed over all processes."""
        vectors = []
        for name, mine in self.named.items():
            if name in self.matrices:
                gradient = self.matrices[name].grad
                mine.grad = None if gradient is None else gradient.to_local()  # type: ignore[attr-defined]
                self.matrices[name].grad = None
            elif mine.requires_grad:
                mine.grad = torch.zeros_like(mine) if mine.grad is None else mine.grad
                vectors.append(mine.grad)
        if vectors:
            team.add_up(vectors)

    def norm(self) -> float:
        """Of the whole gradient: the same number on every process."""
        given = {name: mine.grad for name, mine in self.named.items() if mine.grad is not None}
        cut = [gradient for name, gradient in given.items() if name in self.matrices]
        whole = [gradient for name, gradient in given.items() if name not in self.matrices]
        (squares,) = team.summed([_squares(cut)])
        return float((squares / self.topology.replicas + _squares(whole)) ** 0.5)

    def whole(self, name: str) -> Tensor:
        """A whole tensor in fp32, gathered: all processes of a group ask for the same one at the same time."""
        mine = self.named[name].detach()
        if name not in self.matrices:
            return mine
        shape, shards = self.shape(name), self.topology.shards
        height = -(-shape[0] // shards)
        if len(mine) < height:
            mine = torch.cat([mine, mine.new_zeros(height - len(mine), *shape[1:])])
        got = mine.new_empty(height * shards, *shape[1:])
        gather(got, mine.contiguous(), self.group)
        return got[: shape[0]]

    @contextmanager
    def exchanged(self, others: Mapping[str, Tensor]) -> Iterator[None]:
        """The network with `others` in place of its own values; afterwards every bit is as before."""
        self._swap(others)
        try:
            yield
        finally:
            self.release()
            self._swap(others)

    @torch.no_grad()
    def _swap(self, others: Mapping[str, Tensor]) -> None:
        """In place, for the gathering reads this memory; `others` hold the own values meanwhile."""
        for name, other in others.items():
            mine = self.named[name]
            kept = mine.detach().clone()
            mine.copy_(other)
            other.copy_(kept)
        self.release()

    def release(self) -> None:
        """Give up what is gathered: the tables stay whole after a pass without a backward one, and would be stale."""
        assert isinstance(self.network, FSDPModule)
        self.network.reshard()


def cut_network(network: Network, topology: Topology, device: torch.device, precision: torch.dtype) -> Shards:
    """A network on the meta device, cut; its values are not set yet.

    On every process of the group at once.  Nothing of the size of the whole network is ever allocated.
    """
    # a block's output may be a view; nothing changes it in place, which is what this warns of
    warnings.filterwarnings("ignore", r"FSDP2-wrapped module \(\w+\) returned a view tensor")
    mesh = device_mesh(topology, device)
    names = {parameter: name for name, parameter in network.named_parameters()}
    vectors = {parameter for parameter in names if parameter.ndim < 2}
    half = None if precision == torch.float32 else precision
    block = MixedPrecisionPolicy(param_dtype=half, reduce_dtype=torch.float32, cast_forward_inputs=False)
    tables = MixedPrecisionPolicy(reduce_dtype=torch.float32, cast_forward_inputs=False)
    for layer in network.model.layers:
        fully_shard(layer, mesh=mesh, mp_policy=block, ignored_params=vectors)
    fully_shard(network, mesh=mesh, mp_policy=tables, ignored_params=vectors, reshard_after_forward=False)
    register_fsdp_forward_method(network, "hidden")
    for module in network.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)  # sums, not means: the loss is divided by the step's count already
            module.set_force_sum_reduction_for_comms(True)  # gloo knows no other
    network.to_empty(device=device)
    cos, sin = rope_tables(network.config)
    network.cos, network.sin = cos.to(device), sin.to(device)
    matrices: dict[str, DTensor] = {n: p for n, p in network.named_parameters() if isinstance(p, DTensor)}
    named = {
        name: matrices[name]._local_tensor.detach() if name in matrices else parameter
        for name, parameter in network.named_parameters()
    }
    shards = Shards(network, mesh, topology, matrices, named)
    network.cut = shards
    return shards


def _squares(tensors: list[Tensor]) -> float:
    held = [tensor for tensor in tensors if tensor.numel()]
    return sum(float(norm) ** 2 for norm in torch._foreach_norm(held)) if held else 0.0
