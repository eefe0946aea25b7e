"""Several processes that train one network: who they are, what they share, and who of them is gone.

The lead (rank 0) runs the recipe.  The others follow: they wait for jobs and do their share of each.  Processes meet in
a TCP store; tensors go through torch.distributed (NCCL between GPUs, gloo between CPUs).
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from wuxing.compute.place import LostError
from wuxing.core.error import WuxingError

BEAT_SECONDS = 1.0
SILENT_SECONDS = 4.0
"""A process that has not been heard of for so long is called gone, once something has failed."""
BUCKET_BYTES = 32 << 20
"""Gradients travel in parcels of this size: small ones cost a round each, a single one would hold everything twice."""


@dataclass
class Team:
    """This process's place among `ranks`."""

    rank: int
    ranks: int
    address: str
    port: int
    """0: the lead takes one that is free."""
    timeout_seconds: float = 120.0
    """How long a collective may wait for another process before it counts as lost."""
    local_ranks: int = 1
    """Processes of the team on this host."""
    lost: str = ""
    """Why this is not the first life of the team, where the store that it meets in has seen others."""
    followers: list[subprocess.Popen[bytes]] = field(default_factory=list)
    _jobs: int = 0
    _heard: float = 0.0
    """When the store last answered."""

    def __post_init__(self) -> None:
        hosts = self.rank == 0 and not _agent_holds_store()
        options: dict[str, Any] = {"wait_for_workers": False, "timeout": timedelta(seconds=self._patience)}
        try:
            store = dist.TCPStore(self.address, self.port, is_master=hosts, **options)
        except dist.DistNetworkError as error:
            place = f"{self.address}:{self.port}"
            if hosts:
                raise WuxingError(f"rank 0 cannot listen at {place}: {error}", "Take a port that is free") from None
            raise WuxingError(
                f"rank {self.rank} found no rank 0 at {place} within {self._patience:g} s",
                "Start all processes together; MASTER_ADDR and MASTER_PORT must be those of rank 0's host",
            ) from None
        self.port = store.port
        beats = dist.TCPStore(self.address, self.port, is_master=False, **options)
        self._over = threading.Event()
        attempt = f"attempt/{self._attempt(store, beats)}"
        self.store, self._beats = dist.PrefixStore(attempt, store), dist.PrefixStore(attempt, beats)
        self._beats.set(f"place/{self.rank}", f"{platform.node() or 'this host'}, process {os.getpid()}")
        threading.Thread(target=self._beat, name="heartbeat", daemon=True).start()

    @property
    def _patience(self) -> float:
        """Seconds in which the others must have come."""
        return max(60.0, self.timeout_seconds)

    def _attempt(self, store: dist.Store, beats: dist.Store) -> int:
        """Which life of the team this is.

        torchrun keeps one store over its restarts, with all that earlier lives wrote into it, and its own count of
        restarts may differ between hosts.  So the lead counts, and answers each newcomer's greeting.
        """
        if not _agent_holds_store():
            return 0
        if self.rank == 0:
            attempt = store.add("attempts", 1)
            self.lost = f"restart {attempt - 1} by torchrun" if attempt > 1 else ""
            threading.Thread(target=self._welcome, args=(beats, attempt), name="welcome", daemon=True).start()
            return attempt
        greeting, until = uuid.uuid4().hex, time.monotonic() + self._patience
        store.set(f"hello/{self.rank}", greeting)
        while not store.check([f"welcome/{greeting}"]):
            if time.monotonic() > until:
                raise LostError(f"rank 0 at {self.address} has not come", "Start all processes again")
            time.sleep(0.05)
        return int(store.get(f"welcome/{greeting}"))

    def _welcome(self, store: dist.Store, attempt: int) -> None:
        """The lead: answer the others; greetings of earlier lives among them do no harm."""
        answered: set[bytes] = set()
        while not self._over.wait(0.1 if len(answered) < self.ranks - 1 else BEAT_SECONDS):
            try:
                for rank in range(1, self.ranks):
                    greeting = store.get(f"hello/{rank}") if store.check([f"hello/{rank}"]) else b""
                    if greeting and greeting not in answered:
                        answered.add(greeting)
                        store.set(f"welcome/{greeting.decode()}", str(attempt))
            except (RuntimeError, OSError):  # torchrun is gone: the next collective will say so
                return

    def _beat(self) -> None:
        number = 0
        while not self._over.wait(BEAT_SECONDS if number else 0.0):
            number += 1
            try:
                self._beats.set(f"beat/{self.rank}", str(number))
                self._beats.check(["place/0"])  # setting waits for no answer
                self._heard = time.monotonic()
            except (RuntimeError, OSError):  # the lead is gone: the next collective will say so
                return

    def give(self, job: Mapping[str, Any]) -> None:
        """The lead: hand a job, as JSON, to the others."""
        self._jobs += 1
        self.store.set(f"job/{self._jobs}", json.dumps(job))

    def take(self) -> dict[str, Any]:
        """The others: wait for the next job, as long as the lead lives."""
        self._jobs += 1
        key, alone = f"job/{self._jobs}", os.getppid()
        while True:
            try:
                if self.store.check([key]):
                    job: dict[str, Any] = json.loads(self.store.get(key))
                    return job
            except (RuntimeError, OSError) as error:
                raise LostError(f"rank 0 at {self.address} is gone", "Start all processes again") from error
            if os.getppid() != alone:
                raise WuxingError("the process that started this one is gone", "Start all processes again")
            time.sleep(0.1)

    def ready(self, wrong: str = "") -> None:
        """The others: say that the job can begin, or what is wrong here."""
        self.store.set(f"ready/{self._jobs}/{self.rank}", wrong or "yes")

    def wait_ready(self) -> None:
        """The lead: wait for the others.  Raises WuxingError with what is wrong with one, LostError for a lost one."""
        until = time.monotonic() + self._patience
        for rank in range(1, self.ranks):
            key = f"ready/{self._jobs}/{rank}"
            while not self.store.check([key]):
                if time.monotonic() > until:
                    raise LostError(f"training stopped: {self._who_is_gone()}", "Start all processes again")
                time.sleep(0.02)
            if (said := self.store.get(key).decode()) != "yes":
                raise WuxingError(f"rank {rank} ({self._read(f'place/{rank}')}): {said}")

    @contextmanager
    def working(self, device: torch.device) -> Iterator[None]:
        """A process group for one job.  A process that is gone ends it as a WuxingError that names rank and place."""
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        if device.type == "cuda":
            torch.cuda.set_device(device)
        try:
            dist.init_process_group(
                backend,
                store=dist.PrefixStore(f"group/{self._jobs}", self.store),
                rank=self.rank,
                world_size=self.ranks,
                timeout=timedelta(seconds=self.timeout_seconds),
            )
            yield
        except (RuntimeError, dist.DistError) as error:
            if not isinstance(error, dist.DistError) and not _is_lost_connection(error):
                raise
            raise LostError(
                f"training stopped: {self._who_is_gone()}", "Type the same command again: it goes on from the last save"
            ) from error
        finally:
            if dist.is_initialized():
                dist.destroy_process_group()

    def _who_is_gone(self) -> str:
        """The ranks that have fallen silent, with their places."""
        if not self._answers():
            return f"rank 0 ({self.address}) is gone or cannot be reached"
        try:
            before = {rank: self._read(f"beat/{rank}") for rank in range(self.ranks)}
            time.sleep(SILENT_SECONDS)
            silent = [rank for rank, beat in before.items() if self._read(f"beat/{rank}") == beat]
            gone = [f"rank {rank} ({self._read(f'place/{rank}')})" for rank in silent if rank != self.rank]
            for rank in range(self.ranks):
                if self._beats.check([f"failed/{rank}"]):
                    place = self._read(f"place/{rank}")
                    return f"rank {rank} ({place}) failed: {self._read(f'failed/{rank}')}"
        except (RuntimeError, OSError):
            return f"rank 0 ({self.address}) is gone or cannot be reached"
        return f"{' and '.join(gone)} is gone or cannot be reached" if gone else "the connection between ranks was lost"

    def _answers(self) -> bool:
        """Whether the store still does: asking one behind a cut link would wait for minutes."""
        time.sleep(SILENT_SECONDS)
        return time.monotonic() - self._heard < SILENT_SECONDS

    def fail(self, error: BaseException) -> None:
        """Leave word of what ended this process, for the lead to tell."""
        if isinstance(error, LostError) or not self._answers():
            return
        self._beats.set(f"failed/{self.rank}", " ".join(str(error).split())[:500] or type(error).__name__)

    def _read(self, key: str) -> str:
        found = self._beats.get(key) if self._beats.check([key]) else b"never seen"
        return found.decode()

    def close(self) -> None:
        """The lead: tell the others that there is nothing more, and wait for those it started."""
        if self.rank == 0:
            self.give({"end": True})
        for process in self.followers:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
        self._over.set()


def _agent_holds_store() -> bool:
    """torchrun keeps the store in its own process."""
    return os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"


def _is_lost_connection(error: BaseException) -> bool:
    """Whether a RuntimeError comes from gloo or the store, which have no class of their own for a lost peer."""
    text = str(error).lower()
    signs = ("gloo", "connection", "timed out", "timeout", "broken pipe", "socket", "peer", "nccl", "recv", "rank")
    return any(sign in text for sign in signs)


def from_environment() -> Team | None:
    """The place that torchrun (or whoever sets RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT) gave this process."""
    ranks = int(os.environ.get("WORLD_SIZE", "1"))
    if ranks < 2:
        return None
    missing = [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
    if missing:
        raise WuxingError(f"WORLD_SIZE is {ranks}, but {missing[0]} is not set", "Start it with torchrun")
    timeout = float(os.environ.get("WUXING_TIMEOUT_SECONDS", "120"))
    rank, port = int(os.environ["RANK"]), int(os.environ["MASTER_PORT"])
    local_ranks = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return Team(rank, ranks, os.environ["MASTER_ADDR"], port, timeout, local_ranks)


def own_threads() -> int:
    """Threads of this process as whoever started it said; 0 when nobody did.

    OMP_NUM_THREADS is torchrun's word for one process; without torchrun it is what a user allows the whole command.
    """
    torchrun = os.environ.get("OMP_NUM_THREADS", "0") if "TORCHELASTIC_RUN_ID" in os.environ else "0"
    return int(os.environ.get("WUXING_THREADS") or torchrun)


def start_followers(processes: int, command: list[str], timeout_seconds: float = 120.0) -> Team:
    """This process as the lead of `processes` on this host; the others run `command`."""
    team = Team(0, processes, "127.0.0.1", 0, timeout_seconds, local_ranks=processes)
    for rank in range(1, processes):
        place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes, "MASTER_ADDR": "127.0.0.1"}
        place |= {"LOCAL_WORLD_SIZE": processes, "MASTER_PORT": team.port, "WUXING_TIMEOUT_SECONDS": timeout_seconds}
        environment = {**os.environ, **{name: str(value) for name, value in place.items()}}
        team.followers.append(subprocess.Popen([sys.executable, *command], env=environment))
    return team


_by_itself = 0


@contextmanager
def alone() -> Iterator[None]:
    """Within: this process counts as the only one, so that it can try something out while the others wait."""
    global _by_itself
    _by_itself += 1
    try:
        yield
    finally:
        _by_itself -= 1


def rank() -> int:
    """This process's number; 0 when it works alone."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def ranks() -> int:
    """How many processes work together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() and not _by_itself else 1


def ranks_here() -> int:
    """Processes of the team on this host: as whoever started them said, else those on hosts of this one's name.

    All of them ask together, for only some may have been told.
    """
    told, name = int(os.environ.get("LOCAL_WORLD_SIZE") or 0), platform.node()
    here = [said for node, said in of_everyone([name, told]) if node == name]
    return told or max(len(here), *here)


def summed(values: list[float]) -> list[float]:
    """Sums over all ranks, in fp64."""
    if ranks() == 1:
        return values
    tensor = torch.tensor(values, dtype=torch.float64)
    dist.all_reduce(tensor)
    return [float(value) for value in tensor]


def any_of(flags: list[bool]) -> list[bool]:
    """Whether any rank says so."""
    if ranks() == 1:
        return flags
    tensor = torch.tensor(flags, dtype=torch.int32)
    dist.all_reduce(tensor, dist.ReduceOp.MAX)
    return [bool(value) for value in tensor]


def from_lead(make: Callable[[], Any]) -> Any:
    """What the lead's `make` gives, as JSON, on every rank; the others do not call it."""
    if ranks() == 1:
        return make()
    raw = json.dumps(make()).encode() if rank() == 0 else b""
    size = torch.tensor(len(raw), dtype=torch.int64)
    dist.broadcast(size, 0)
    content = torch.zeros(int(size), dtype=torch.uint8)
    if rank() == 0:
        content.copy_(torch.frombuffer(bytearray(raw), dtype=torch.uint8))
    dist.broadcast(content, 0)
    return json.loads(content.numpy().tobytes())


def of_everyone(value: Any) -> list[Any]:
    """Each rank's value, as JSON, in the order of the ranks."""
    if ranks() == 1:
        return [value]
    raw = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)
    sizes = [torch.tensor(0, dtype=torch.int64) for _ in range(ranks())]
    dist.all_gather(sizes, torch.tensor(len(raw), dtype=torch.int64))
    longest = int(max(sizes))
    parts = [torch.zeros(longest, dtype=torch.uint8) for _ in sizes]
    dist.all_gather(parts, torch.cat([raw, torch.zeros(longest - len(raw), dtype=torch.uint8)]))
    return [json.loads(part[: int(size)].numpy().tobytes()) for part, size in zip(parts, sizes, strict=True)]


def tensors_from_lead(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The lead's tensors, on every rank, by name and on the CPU; the others give none."""
    shapes = from_lead(lambda: {name: [str(t.dtype)[6:], list(t.shape)] for name, t in tensors.items()})
    if ranks() == 1:
        return dict(tensors)
    found = {}
    for name, (dtype, shape) in shapes.items():
        mine = tensors[name].cpu().contiguous() if rank() == 0 else torch.empty(shape, dtype=getattr(torch, dtype))
        dist.broadcast(mine, 0)
        found[name] = mine
    return found


def add_up(gradients: list[Tensor]) -> None:
    """Sum tensors over all ranks, in place, in parcels that travel while the next is packed."""
    parcels: list[tuple[list[Tensor], Tensor, Any]] = []
    waiting: list[Tensor] = []
    for gradient in [*gradients, None]:
        full = sum(tensor.nbytes for tensor in waiting) >= BUCKET_BYTES
        if waiting and (gradient is None or full or gradient.dtype != waiting[0].dtype):
            flat = torch.cat([tensor.flatten() for tensor in waiting])
            parcels.append((waiting, flat, dist.all_reduce(flat, async_op=True)))
            waiting = []
        if gradient is not None:
            waiting.append(gradient)
    for members, flat, work in parcels:
        work.wait()
        for tensor, part in zip(members, flat.split([tensor.numel() for tensor in members]), strict=True):
            tensor.copy_(part.view_as(tensor))
