"""Which topology a run has, and its network cut for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from wuxing.compute import team
from wuxing.compute.memory import MemoryPlan
from wuxing.compute.mesh import Topology, choose, cut
from wuxing.model.classifier import SUFFIX, Classifier, open_first
from wuxing.model.files import open_weights
from wuxing.model.network import Network
from wuxing.train.config import ModelConfig
from wuxing.train.plan.memory import free_memory
from wuxing.train.update.exact import ExactSum

if TYPE_CHECKING:
    from wuxing.train.shard.cut import Shards


def topology_of(
    config: ModelConfig,
    plan: Callable[[], tuple[MemoryPlan, Mapping[str, Any]]],
    device: torch.device,
    earlier: Mapping[str, Any],
    local_ranks: int,
) -> Topology:
    """How the processes of now share the state.

    What a run began with stays as long as the recipe's choice and the number of processes do: a resumed run must not
    choose anew because less memory happens to be free.  `plan`: what a whole state needs, and the network's shape.
    """
    ranks = team.ranks()
    if ranks == 1:
        return Topology(ranks, 1)
    choice = {"sharding": config.sharding, "shard_processes": config.shard_processes}
    if earlier and {name: earlier[name] for name in choice} == choice:
        before = Topology(earlier["replicas"], earlier["shards"])
        if before.ranks == ranks:
            return before

    free = min(team.of_everyone(free_memory(device)))  # on every process: the lead must not ask alone

    def decide() -> dict[str, int]:
        def fits(shards: int) -> bool:
            whole, shape = plan()
            return cut(whole, shape, shards, exact=config.adds_exactly).peak <= free

        return choose(config.sharding, ranks, local_ranks, config.shard_processes, fits).to_json()

    return Topology(**team.from_lead(decide))


def described(config: ModelConfig, topology: Topology) -> dict[str, Any]:
    """A decided topology with the choice that it came from, for `start.json`."""
    return {"sharding": config.sharding, "shard_processes": config.shard_processes, **topology.to_json()}


def cut_for_run(
    shape: dict[str, Any],
    start_from: Path | None,
    seed: int,
    device: torch.device,
    precision: torch.dtype,
    topology: Topology,
) -> Shards:
    """The network of a run in shards, with its first values: from the seed, or of the model that it starts from."""
    from wuxing.train.shard.cut import cut_network  # torch's FSDP takes two seconds to import

    named = str((shape.get("architectures") or [""])[0])
    with torch.device("meta"):
        network = (Classifier if named.endswith(SUFFIX) else Network)(shape)
    shards = cut_network(network, topology, device, precision)
    if start_from is None:
        shards.fill(lambda name, size: network.initial(name, size, seed))
    elif isinstance(network, Classifier):
        shards.fill(open_first(start_from, network, seed))
    else:
        shards.fill(open_weights(start_from, network))
    return shards


def exact_sum(shards: Shards | None) -> ExactSum:
    """Adds up a step's gradients the same on any number of processes, however they share the state."""
    if shards is None:
        return ExactSum()
    from wuxing.train.shard.exact import CutExactSum  # torch's FSDP takes two seconds to import

    return CutExactSum(shards)
