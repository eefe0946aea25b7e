"""How fast processes sum up tensors among themselves: latency and bandwidth of an all-reduce, measured."""

from __future__ import annotations

import os
import statistics
import time
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.distributed as dist

from wuxing.compute.device import pick_device
from wuxing.compute.team import BUCKET_BYTES, Team, from_environment, start_followers

SMALL_BYTES = 4
"""What takes as long as the way there and back."""
SMALL_TURNS, LARGE_TURNS = 50, 8
"""The same on every rank: clocks differ, and one that stopped earlier would leave the others waiting."""


@dataclass(frozen=True)
class Exchange:
    """One measured all-reduce.  The median of each size's turns; the slowest rank counts."""

    processes: int
    backend: str
    bytes: int
    """Of the large tensor: a parcel of gradients."""
    seconds: float
    """For the large tensor."""
    latency_seconds: float
    """For a single number."""

    @property
    def gigabytes(self) -> float:
        """What each process sends per second, in 1e9 bytes: a ring sends 2 (P - 1) / P of the tensor."""
        return 2 * (self.processes - 1) / self.processes * self.bytes / self.seconds / 1e9

    def to_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {**asdict(self), "gigabytes": self.gigabytes}


def measure_all_reduce(processes: int, device: str = "auto", size: int = BUCKET_BYTES) -> Exchange:
    """All-reduces between `processes` of this host: NCCL between its GPUs, gloo between CPUs.

    Under torchrun between all processes that it started; call it on each of them.  Takes a few
    seconds, most of them to start.  Raises WuxingError, with rank and place, when one of them is lost.
    """
    team = from_environment()
    if team is not None:
        return _measure(team, device, size)
    team = start_followers(processes, ["-m", "wuxing.compute.collective"], timeout_seconds=60.0)
    try:
        team.give({"device": device, "size": size})
        return _measure(team, device, size)
    finally:
        team.close()


def _measure(team: Team, device: str, size: int) -> Exchange:
    place = pick_device(device)
    if place.type == "cuda":
        place = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    with team.working(place):
        latency = _turns(torch.ones(SMALL_BYTES // 4, device=place), SMALL_TURNS)
        seconds = _turns(torch.ones(size // 4, device=place), LARGE_TURNS)
        slowest = torch.tensor([latency, seconds], dtype=torch.float64)
        dist.all_reduce(slowest, dist.ReduceOp.MAX)
    backend = "nccl" if place.type == "cuda" else "gloo"
    return Exchange(team.ranks, backend, size, float(slowest[1]), float(slowest[0]))


def _turns(tensor: torch.Tensor, turns: int) -> float:
    times = []
    for _ in range(turns + 2):
        started = time.perf_counter()
        dist.all_reduce(tensor)
        if tensor.is_cuda:
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
        tensor.fill_(1.0)
    return statistics.median(times[2:])  # the first ones connect and allocate


def main() -> None:
    """A process that measures with the one that started it."""
    team = from_environment()
    assert team is not None, "started without RANK and WORLD_SIZE"
    while not (job := team.take()).get("end"):
        _measure(team, job["device"], job["size"])


if __name__ == "__main__":
    main()
