"""Memory and speed of a state that is whole on each process and one that is cut over them, beside the plan.

    python benchmarks/shard.py --size 60m --processes 2

Every run is made by fresh processes.  Memory is the kernel's peak of resident pages beyond what the process held before
it built its network, without the copy that a checkpoint takes.
"""

from __future__ import annotations

import argparse
import importlib
import json
import statistics
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from wuxing.compute import team
from wuxing.compute.device import pick_precision
from wuxing.compute.memory import plan_memory
from wuxing.compute.mesh import Topology, cut
from wuxing.model.architecture import Architecture, count_parameters, resolve
from wuxing.model.network import Network
from wuxing.objective.next_token import NextToken
from wuxing.train.config import OptimizerConfig
from wuxing.train.plan.memory import Watch
from wuxing.train.shard.build import cut_for_run
from wuxing.train.trainer import Trainer
from wuxing.train.update.optimizer import Optimizer
from wuxing.train.update.schedule import Schedule

sys.path.insert(0, str(Path(__file__).parent / "peers"))
from processes import answers
from train_wuxing import RandomTokens

LENGTH, VOCABULARY = 256, 8192
QUIET = {"OMP_NUM_THREADS": "1", "MALLOC_MMAP_THRESHOLD_": str(1 << 17), "MALLOC_ARENA_MAX": "1"}
"""glibc keeps freed blocks for later; mapped ones it gives back, so that the peak is one of living tensors."""
MOMENTS = {"adamw": 8, "lion": 4, "muon": 4}
"""Bytes per parameter that the optimizer keeps."""


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """One process: a few steps, and what they took."""
    torch.set_num_threads(1)
    device = torch.device("cpu")
    precision = pick_precision(device)
    shape = resolve(Architecture(size=arguments.size, max_positions=LENGTH), VOCABULARY)
    topology = Topology(*arguments.topology)
    if topology.shards > 1:
        importlib.import_module("wuxing.train.shard.cut")  # the code of FSDP2 is no part of the state
    dist.all_reduce(torch.zeros(1))
    watch = Watch()
    shards = cut_for_run(shape, None, 1, device, precision, topology) if topology.shards > 1 else None
    network = shards.network if shards else Network(shape).initialise(1)
    begun = watch.peak()
    optimizer = Optimizer(network, OptimizerConfig.model_validate({"kind": arguments.optimizer}), 0.001, shards)
    source = RandomTokens(VOCABULARY, LENGTH, arguments.rows, arguments.rows, position=10**6 * team.rank())
    trainer = Trainer(network, source, NextToken(), optimizer, Schedule(), arguments.steps, precision, shards=shards)
    seconds = [trainer.step().seconds for _ in range(arguments.steps)]
    held = [*trainer.tensors()["model"].values(), *optimizer.tensors().values()]
    parameters = count_parameters(shape)
    width, moments = torch.finfo(precision).bits // 8, MOMENTS[arguments.optimizer]
    plan = plan_memory(shape, parameters, arguments.rows * LENGTH, LENGTH, width, moments)
    return {
        "parameters": parameters,
        "initial": begun,
        "peak": watch.peak(),
        "tensors": sum(tensor.nbytes for tensor in held),
        "planned": cut(plan, shape, topology.shards).peak,
        "seconds": statistics.median(seconds[1:]),
    }


def run(arguments: argparse.Namespace, topology: Topology) -> list[dict[str, Any]]:
    """Fresh processes, one after the other's end."""
    told = [f"--{name}={getattr(arguments, name)}" for name in ("size", "optimizer", "rows", "steps")]
    told += ["--topology", str(topology.replicas), str(topology.shards)]
    return answers(__file__, topology.ranks, told, QUIET)


def main() -> None:
    """Print the table, or measure as one of the processes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", default="60m")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--optimizer", default="adamw", choices=sorted(MOMENTS))
    parser.add_argument("--rows", type=int, default=2)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--rank", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--topology", type=int, nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.rank:
        dist.init_process_group("gloo")
        print(json.dumps(measure(arguments)))
        dist.destroy_process_group()
        return
    count = arguments.processes
    topologies = [Topology(count, 1), Topology(1, count), *([Topology(count // 2, 2)] if count >= 4 else [])]
    print("| state | parameters | after initialisation | weights and moments | peak | planned | seconds a step |")
    print("|---|--:|--:|--:|--:|--:|--:|")
    for topology in topologies:
        found = run(arguments, topology)
        sizes = [
            f"{max(one[name] for one in found) / 1e6:,.0f} MB" for name in ("initial", "tensors", "peak", "planned")
        ]
        seconds = statistics.median(one["seconds"] for one in found)
        print(f"| {topology.described} | {found[0]['parameters']:,} | {' | '.join(sizes)} | {seconds:.2f} |")


if __name__ == "__main__":
    main()
