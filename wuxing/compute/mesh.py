"""How processes share a model's state: whole on each, cut over all, or cut within groups that repeat one another.

Memory and traffic follow ZeRO stage 3 (Rajbhandari et al. 2020) and FSDP (Zhao et al. 2023): a process keeps its rows
of every matrix, of their gradients and of the optimizer's state, and gathers one block at a time to compute with it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from wuxing.compute.memory import MemoryPlan
from wuxing.core.error import UsageError

if TYPE_CHECKING:
    import torch
    from torch.distributed.device_mesh import DeviceMesh

Sharding = Literal["auto", "replicate", "shard", "hybrid"]
GATHERED_BLOCKS = 2
"""Blocks whose matrices are whole at one time: the one that computes, and the next, which is on its way."""


@dataclass(frozen=True)
class Topology:
    """`replicas` groups of `shards` processes; each group holds the whole state once."""

    replicas: int = 1
    shards: int = 1

    @property
    def ranks(self) -> int:
        """All processes."""
        return self.replicas * self.shards

    @property
    def sharding(self) -> str:
        """Its name in a recipe."""
        if self.shards == 1:
            return "replicate"
        return "shard" if self.replicas == 1 else "hybrid"

    @property
    def described(self) -> str:
        """For people."""
        if self.shards == 1:
            return f"whole on each of {self.replicas} processes" if self.replicas > 1 else "whole on one process"
        return f"cut over {self.shards} processes" + (f", {self.replicas} times" if self.replicas > 1 else "")

    def to_json(self) -> dict[str, int]:
        """For `start.json`."""
        return asdict(self)


def choose(
    sharding: str, ranks: int, per_host: int, group: int | None, fits: Callable[[int], bool] = lambda shards: True
) -> Topology:
    """The topology of a choice in a recipe.

    `auto` cuts no more than it must: whole where that `fits` (a function of the number of shards), else cut within a
    host, over whose links gathering is cheap, else over all.  `group`: processes of one copy in `hybrid`; those of a
    host unless given.  Raises UsageError for groups that do not come out even.
    """
    if sharding == "replicate" or ranks == 1:
        return Topology(ranks, 1)
    if sharding == "shard":
        return Topology(1, ranks)
    group = group or min(per_host, ranks)
    if sharding == "hybrid":
        if ranks % group:
            raise UsageError(
                f"{ranks} processes do not split into groups of {group}", "Choose shard_processes that divides them"
            )
        return Topology(ranks // group, group)
    whole, within = Topology(ranks, 1), Topology(ranks // group, group)
    candidates = [whole, *([within] if ranks % group == 0 else []), Topology(1, ranks)]
    return next((topology for topology in candidates if fits(topology.shards)), candidates[-1])


def device_mesh(topology: Topology, device: torch.device) -> DeviceMesh:
    """The processes as a mesh: (shard), or (replicate, shard) with the processes of one group next to each other."""
    from torch.distributed.device_mesh import init_device_mesh

    if topology.replicas == 1:
        return init_device_mesh(device.type, (topology.shards,), mesh_dim_names=("shard",))
    return init_device_mesh(device.type, (topology.replicas, topology.shards), mesh_dim_names=("replicate", "shard"))


def tables(shape: Mapping[str, Any]) -> int:
    """Parameters of the token table and, where it is a table of its own, the head."""
    return int(shape["vocab_size"]) * int(shape["hidden_size"]) * (1 if shape["tie_word_embeddings"] else 2)


def cut(
    plan: MemoryPlan, shape: Mapping[str, Any], shards: int, matmul_bytes: int = 2, exact: bool = False
) -> MemoryPlan:
    """The plan for one of `shards` processes that share the state: its share of everything that lasts, the tables whole
    in fp32 with their gradient, and two blocks whole in the type of the products with one gradient in fp32.

    `exact`: sums that no number of processes changes are scattered in fp64.  What draws replies is whole on each.
    """
    if shards == 1:
        return plan
    table = tables(shape)
    block = (plan.parameters - table) // int(shape["num_hidden_layers"])

    def share(size: int) -> int:
        return -(-size // shards)

    return replace(
        plan,
        weights=share(plan.weights) + 4 * table,
        gradients=share(plan.gradients) + 4 * table + 2 * 4 * block + exact * 8 * max(table, block),
        optimizer=share(plan.optimizer),
        copies=share(plan.copies),
        casts=GATHERED_BLOCKS * matmul_bytes * block,
    ).taking_turns()


@dataclass(frozen=True)
class Traffic:
    """What one process sends in one optimizer step, in bytes: between the processes of a group, and between groups."""

    within: float
    between: float


def traffic(
    topology: Topology, parameters: int, table: int = 0, pieces: int = 1, matmul_bytes: int = 2, muon: int = 0
) -> Traffic:
    """Collectives on rings.

    `table`: parameters gathered in fp32; `pieces`: passes of a process, forward and backward, in one step; `muon`:
    parameters whose updates are orthogonalised whole.

    Whole on each: one sum of fp32 gradients, 2 (P - 1) / P × 4 N.  Cut over S: each pass gathers the blocks forward and
    backward and the tables once, (S - 1) / S × (2 × 2 (N - table) + 4 table), and scatters the sums of fp32 gradients,
    (S - 1) / S × 4 N; Muon sends its updates to who orthogonalises them and back, (S - 1) / S × 2 × 4 / S a parameter.
    Between R groups the sums of a share, 2 (R - 1) / R × 4 N / S, once a step.
    """
    replicas, shards = topology.replicas, topology.shards
    around = 2 * (replicas - 1) / replicas * 4 * parameters / shards
    if shards == 1:
        return Traffic(around, 0.0)
    part = (shards - 1) / shards
    gathered = 2 * matmul_bytes * (parameters - table) + 4 * table
    within = part * (pieces * (gathered + 4 * parameters) + 8 * muon / shards)
    return Traffic(within, around)
