"""What sums that no number of processes changes (`exact_sums`) cost in time: processor and wall, in turns.

    python benchmarks/exact.py [--size 10m] [--processes 2] [--turns 6]

Both trainers stand in the same processes and take a step by turns, so that whatever else the machine does meets both.
A step is cut as a run cuts it: with exact sums into `SAME_PIECES` pieces for all processes together, else one for each.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from wuxing.compute import team
from wuxing.compute.device import pick_precision
from wuxing.data.source import SAME_PIECES
from wuxing.model.architecture import Architecture, count_parameters, resolve
from wuxing.model.network import Network
from wuxing.objective.next_token import NextToken
from wuxing.train.config import OptimizerConfig
from wuxing.train.trainer import Trainer
from wuxing.train.update.exact import ExactSum
from wuxing.train.update.optimizer import Optimizer
from wuxing.train.update.schedule import Schedule

sys.path.insert(0, str(Path(__file__).parent / "peers"))
from processes import answers
from train_wuxing import RandomTokens

LENGTH, VOCABULARY = 256, 8192
WAYS = ("as they come", "cut alike, as they come", "exact")


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """One process: the seconds of each step of each way, of its processor and of the clock."""
    torch.set_num_threads(1)
    shape = resolve(Architecture(size=arguments.size, max_positions=LENGTH), VOCABULARY)
    rows = arguments.batch_tokens // LENGTH // team.ranks()
    alike = max(1, arguments.batch_tokens // LENGTH // SAME_PIECES)
    trainers = []
    for way, piece_rows in zip(WAYS, (rows, alike, alike), strict=True):
        network = Network(shape).initialise(1)
        optimizer = Optimizer(network, OptimizerConfig.model_validate({"kind": arguments.optimizer}), 1e-4)
        exact = ExactSum() if way == "exact" else None
        parts = (network, RandomTokens(VOCABULARY, LENGTH, rows, piece_rows), NextToken(), optimizer, Schedule(), 10**6)
        trainers.append(Trainer(*parts, precision=pick_precision(torch.device("cpu")), exact=exact))
    found: dict[str, Any] = {way: {"processor": [], "wall": []} for way in WAYS}
    for turn in range(arguments.turns + 1):
        for way, trainer in zip(WAYS, trainers, strict=True):
            dist.barrier()
            processor, wall = time.process_time(), time.perf_counter()
            trainer.step()
            if turn:  # the first one allocates
                found[way]["processor"].append(time.process_time() - processor)
                found[way]["wall"].append(time.perf_counter() - wall)
    return {"parameters": count_parameters(shape), "ways": found}


def run(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Fresh processes; what each of them measured."""
    told = [f"--{name}={getattr(arguments, name.replace('-', '_'))}" for name in ("size", "optimizer", "turns")]
    told.append(f"--batch-tokens={arguments.batch_tokens}")
    return answers(__file__, arguments.processes, told, {"OMP_NUM_THREADS": "1"})


def main() -> None:
    """Print the table, or measure as one of the processes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="10m")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--optimizer", default="muon")
    parser.add_argument("--batch-tokens", type=int, default=8192)
    parser.add_argument("--turns", type=int, default=6)
    parser.add_argument("--rank", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.rank:
        dist.init_process_group("gloo")
        print(json.dumps(measure(arguments)))
        dist.destroy_process_group()
        return
    found = run(arguments)
    print(f"{found[0]['parameters']:,} parameters, {arguments.processes} processes of one thread, a step of")
    print(f"{arguments.batch_tokens:,} positions; medians of {arguments.turns} turns\n")
    print("| sums | CPU-seconds of a step, all processes | seconds by the clock | CPU beside the first | clock |")
    print("|---|--:|--:|--:|--:|")
    base: dict[str, float] = {}
    for way in WAYS:
        processor = [sum(turn) for turn in zip(*(one["ways"][way]["processor"] for one in found), strict=True)]
        wall = [max(turn) for turn in zip(*(one["ways"][way]["wall"] for one in found), strict=True)]
        spent = {"processor": statistics.median(processor), "wall": statistics.median(wall)}
        base = base or spent
        ratios = " | ".join(f"{spent[name] / base[name]:.2f}" for name in ("processor", "wall"))
        print(f"| {way} | {spent['processor']:.2f} | {spent['wall']:.2f} | {ratios} |")


if __name__ == "__main__":
    main()
