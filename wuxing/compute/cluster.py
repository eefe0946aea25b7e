"""A Ray cluster as the ground on which processes find their places."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from wuxing.compute.place import Agent, LostError, News, Place
from wuxing.core.error import UsageError, WuxingError

REACH_SECONDS = 5.0
PLACE_SECONDS = 3.0
"""A placement that Ray has not granted after so long does not fit beside what else runs there."""
BEGIN_SECONDS = 120.0
"""An agent that has not answered after so long does not come."""


def connected() -> Any:
    """Ray, connected to the cluster of `RAY_ADDRESS`, to one of this machine, or to a new one of its cores."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        raise UsageError("--on ray needs Ray", "Install it: pip install 'wuxing[ray]'") from error
    if ray.is_initialized():
        return ray
    where = os.environ.get("RAY_ADDRESS", "")
    _reach(where)
    settings: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    with _own_signals():
        try:
            try:
                ray.init(include_dashboard=False, **settings)
            except ValueError:  # a cluster that is there already takes no settings
                ray.init(**settings)
        except (ConnectionError, RuntimeError) as error:
            said = " ".join(str(error).split())[:300]
            raise WuxingError(
                f"no Ray cluster answers at {where or 'this machine'} ({said})",
                "Start one: ray start --head; where it asks for a token, set RAY_AUTH_MODE=token",
            ) from error
    return ray


def _reach(address: str) -> None:
    """WuxingError when nobody listens at an address of the form host:port: Ray itself would try for two minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), REACH_SECONDS).close()
    except OSError as error:
        raise WuxingError(
            f"no Ray cluster answers at {address} ({error.strerror or error})",
            "Look at RAY_ADDRESS, or start one: ray start --head",
        ) from error


@contextmanager
def _own_signals() -> Iterator[None]:
    """Ray takes SIGTERM for itself; here it means: save and leave."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _NodeAgent(Agent):
    """An agent on a node of the cluster."""

    def seat(self) -> dict[str, str]:
        """Where this is."""
        import ray

        address = ray.util.get_node_ip_address()
        node = ray.get_runtime_context().get_node_id()
        return {"host": self.host(), "node": node, "address": address, "network": interface_of(address)}


class RayPlace:
    """A place on a node of the cluster, through the agent there."""

    def __init__(self, ray: Any, agent: Any, seat: Mapping[str, str], threads: int) -> None:
        self._ray, self._agent, self.threads = ray, agent, threads
        self.name = f"{seat['host']}, node {seat['node'][:8]}"
        self.address, self.node, self._network = seat["address"], seat["node"], seat["network"]
        self._asked: Any = None

    def free_port(self) -> int:
        return int(self._get(self._agent.free_port.remote(), REACH_SECONDS))

    def start(self, module: str, job: str, environment: Mapping[str, str], speaks: bool) -> int:
        more = {name: self._network for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME") if self._network}
        whole = {**more, **environment}
        return int(self._get(self._agent.start.remote(module, job, whole, speaks), BEGIN_SECONDS))

    def news(self) -> News | None:
        self._asked = self._asked or self._agent.news.remote()
        if not self._ray.wait([self._asked], timeout=0)[0]:
            return None
        asked, self._asked = self._asked, None
        try:
            news: News = self._ray.get(asked)
        except self._ray.exceptions.ActorUnavailableError:  # Ray is not sure yet
            return None
        except self._ray.exceptions.RayActorError as error:
            raise LostError("went away with its node or its Ray worker") from error
        return news

    def signal(self, number: int) -> None:
        self._agent.signal.remote(number)

    def end(self) -> None:
        """The process ends with its agent, if it has not before."""
        with suppress(LostError):  # that is what is wanted
            self._get(self._agent.end.remote(), REACH_SECONDS)
        self._ray.kill(self._agent)

    def _get(self, asked: Any, seconds: float) -> Any:
        try:
            return self._ray.get(asked, timeout=seconds)
        except (self._ray.exceptions.RayActorError, self._ray.exceptions.GetTimeoutError) as error:
            raise LostError(f"a process on {self.name} was lost with its node or its Ray worker") from error


class RayGround:
    """The nodes of a Ray cluster.  Places are packed: as many as fit beside each other, a GPU each where there are
    any, and the cores shared out."""

    def __init__(self, device: str = "auto") -> None:
        self.ray = connected()
        self._group: Any = None
        self._gpus = device != "cpu" and any(node.get("GPU", 0) for node in self._nodes())

    def _nodes(self) -> list[dict[str, float]]:
        """What each living node has."""
        return [node["Resources"] for node in self.ray.nodes() if node["Alive"]]

    def _cores(self, wanted: int) -> int:
        """The most cores that each of so many processes can have; 0 when there are not as many places."""
        nodes = [(int(node.get("CPU", 0)), int(node.get("GPU", 0))) for node in self._nodes()]
        for cores in range(max((cpus for cpus, _ in nodes), default=0), 0, -1):
            fitting = (min(cpus // cores, gpus) if self._gpus else cpus // cores for cpus, gpus in nodes)
            if sum(fitting) >= wanted:
                return cores
        return 0

    def places(self, wanted: int) -> list[Place] | None:
        cores = self._cores(wanted)
        while cores:
            if (found := self._placed(wanted, cores)) is not None:
                return found
            cores //= 2  # others may hold some
        return None

    def _placed(self, wanted: int, cores: int) -> list[Place] | None:
        from ray.util.placement_group import placement_group
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        bundle = {"CPU": cores, **({"GPU": 1} if self._gpus else {})}
        self.give_back()
        self._group = placement_group([bundle] * wanted, strategy="PACK")
        if not self._group.wait(PLACE_SECONDS):
            self.give_back()
            return None
        kind = self.ray.remote(_NodeAgent)
        agents = []
        for number in range(wanted):
            seat = PlacementGroupSchedulingStrategy(self._group, number)
            options = {"num_cpus": cores, "num_gpus": bundle.get("GPU", 0), "scheduling_strategy": seat}
            agents.append(kind.options(**options).remote())
        seats = self._seats(agents)
        if seats is None:
            self.give_back()
            return None
        found = [RayPlace(self.ray, agent, seat, cores) for agent, seat in zip(agents, seats, strict=True)]
        nodes = [place.node for place in found]
        return [place for node in dict.fromkeys(nodes) for place in found if place.node == node]

    def _seats(self, agents: list[Any]) -> list[dict[str, str]] | None:
        try:
            seats: list[dict[str, str]] = self.ray.get([agent.seat.remote() for agent in agents], timeout=BEGIN_SECONDS)
            return seats
        except self.ray.exceptions.RayTaskError as error:
            raise WuxingError(
                f"a node of the cluster cannot run wuxing ({' '.join(str(error.cause).split())[:200]})",
                "Install the same wuxing[ray] on every node",
            ) from error
        except (self.ray.exceptions.RayActorError, self.ray.exceptions.GetTimeoutError) as error:
            if "ModuleNotFoundError" in str(error):
                raise WuxingError(
                    "a node of the cluster has no wuxing installed", "Install the same wuxing[ray] on every node"
                ) from error
            return None  # the node was lost meanwhile

    def short_of(self, wanted: int) -> str:
        nodes = self._nodes()
        what = f"{wanted} processes need {'a GPU and a core' if self._gpus else 'a core'} each"
        has = [f"{node.get('GPU', 0):.0f} GPUs and " * self._gpus + f"{node.get('CPU', 0):.0f} cores" for node in nodes]
        return f"{what}; the cluster's {len(nodes)} nodes have {', '.join(sorted(has)) or 'none'}, less what others use"

    def give_back(self) -> None:
        if self._group is not None:
            from ray.util.placement_group import remove_placement_group

            remove_placement_group(self._group)
            self._group = None
            time.sleep(0.1)


def interface_of(address: str) -> str:
    """The network interface that has an address; empty where none of this host has it."""
    import psutil

    for name, addresses in psutil.net_if_addrs().items():
        if any(one.address == address for one in addresses):
            return str(name)
    return ""
