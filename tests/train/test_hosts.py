"""Two hosts, made of network namespaces, and torchrun: what is lost, what is named, and what goes on."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import fated
import pytest
from small_run import signed
from test_together import samples

from wuxing.compute.place import LOST
from wuxing.core.artifact import Artifact
from wuxing.core.digest import digest_of_file
from wuxing.core.file import read_json, read_lines

MEMBER = [sys.executable, str(Path(__file__).parent / "member.py")]
STEPS = 60


def hosts() -> str | None:
    """Why two network namespaces cannot be made here; None when they can."""
    if os.geteuid() != 0 or not shutil.which("ip"):
        return "network namespaces need root and the command ip"
    made = subprocess.run(["ip", "netns", "add", "wuxing-try"], capture_output=True, text=True)
    subprocess.run(["ip", "netns", "del", "wuxing-try"], capture_output=True)
    return made.stderr.strip() or None if made.returncode else None


@contextmanager
def cable(name: str) -> Iterator[tuple[str, str]]:
    """Two hosts with a cable between them; their names."""
    if reason := hosts():
        pytest.skip(reason)
    a, b = f"wx{name}a{os.getpid()}", f"wx{name}b{os.getpid()}"
    commands = [
        f"ip netns add {a}", f"ip netns add {b}",
        f"ip link add {a} netns {a} type veth peer name {b} netns {b}",
        f"ip -n {a} addr add 10.77.0.1/24 dev {a}", f"ip -n {b} addr add 10.77.0.2/24 dev {b}",
        f"ip -n {a} link set {a} up", f"ip -n {b} link set {b} up",
        f"ip -n {a} link set lo up", f"ip -n {b} link set lo up",
    ]  # fmt: skip
    try:
        for command in commands:
            subprocess.run(command.split(), check=True, capture_output=True)
        yield a, b
    finally:
        for host in (a, b):
            subprocess.run(["ip", "netns", "del", host], capture_output=True)


def on(host: str, rank: int, home: Path, timeout_seconds: int, steps: int = STEPS) -> subprocess.Popen[str]:
    place = {"RANK": rank, "WORLD_SIZE": 2, "MASTER_ADDR": "10.77.0.1", "MASTER_PORT": 29511, "LOCAL_RANK": 0}
    place |= {"WUXING_TIMEOUT_SECONDS": timeout_seconds, "GLOO_SOCKET_IFNAME": host, "OMP_NUM_THREADS": 1}
    environment = {**os.environ, **{name: str(value) for name, value in place.items()}}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    command = ["ip", "netns", "exec", host, *MEMBER, str(home), str(steps)]
    return subprocess.Popen(command, env=environment, text=True, **pipes)


@pytest.fixture
def home(world: dict[str, Artifact], tmp_path: Path) -> Path:
    """A home with the world in it."""
    (tmp_path / "world").symlink_to(world["vocabulary"].path.parent)
    return tmp_path


def same_bits(home: Path, pair: Artifact) -> None:
    """The weights are those of two processes on one host, and no step is twice in the log."""
    assert digest_of_file(home / "base" / "model.safetensors") == digest_of_file(pair.path / "model.safetensors")
    assert [line[0] for line in samples(home / "base")] == list(range(1, STEPS + 1))
    assert samples(home / "base") == samples(pair.path)


@pytest.fixture
def link() -> Iterator[tuple[str, str]]:
    with cable("") as names:
        yield names


def test_a_host_that_loses_its_process_is_named_and_a_stalled_link_is_waited_for(
    link: tuple[str, str], home: Path, pair: Artifact
) -> None:
    fated.write(home / "base", 1, 5, "hold")
    fated.write(home / "base", 1, 30, "hold")
    lead, other = on(link[0], 0, home, 40), on(link[1], 1, home, 40)
    fated.wait_for(home / "base", 1, 5, lambda: lead.poll() is None)
    other.send_signal(signal.SIGKILL)
    said, errors = lead.communicate(timeout=120)
    place = rf"rank 1 \(.*, process {other.pid}\) is gone or cannot be reached"
    assert re.search(f"ERROR training stopped: {place}", said) and lead.returncode == LOST, said + errors

    lead, other = on(link[0], 0, home, 40), on(link[1], 1, home, 40)
    fated.wait_for(home / "base", 1, 30, lambda: lead.poll() is None)
    nobody = ["lladdr", "02:00:00:00:00:99", "dev", link[0], "nud", "permanent"]
    subprocess.run(["ip", "-n", link[0], "neigh", "replace", "10.77.0.2", *nobody], check=True)  # all packets are lost
    fated.release(home / "base", 1, 30)
    time.sleep(1.5)
    assert len(samples(home / "base")) <= 31, "the link was not stalled"
    subprocess.run(["ip", "-n", link[0], "neigh", "del", "10.77.0.2", "dev", link[0]], check=True)
    said, errors = lead.communicate(timeout=120)
    assert "failures: []" in said, said + errors
    assert other.wait(60) == 0
    same_bits(home, pair)


def test_a_cut_link_and_a_process_that_stands_still_are_named(home: Path) -> None:
    """Three teams at once, for most of it is waiting: the link is cut, rank 0 stands still, rank 1 stands still."""
    with ExitStack() as stack:
        teams = []
        for name in ("cut", "0", "1"):
            own, ends = home / name, stack.enter_context(cable(name))
            own.mkdir()
            (own / "world").symlink_to((home / "world").resolve())
            for rank in (0, 1):
                fated.write(own / "base", rank, 5, "hasten 6")
            fated.write(own / "base", int(name == "1"), 6, "hold")
            both = [on(host, rank, own, 60, 4000) for rank, host in enumerate(ends)]
            for process in both:
                stack.callback(process.kill)
            teams.append((name, own, ends, both))

        def hurt(name: str, own: Path, ends: tuple[str, str], both: list[subprocess.Popen[str]]) -> None:
            fated.wait_for(own / "base", int(name == "1"), 6, lambda: both[0].poll() is None)
            if name == "cut":
                subprocess.run(["ip", "-n", ends[1], "link", "set", ends[1], "down"], check=True)
                fated.release(own / "base", 0, 6)
            else:
                both[int(name)].send_signal(signal.SIGSTOP)

        with ThreadPoolExecutor(3) as pool:  # each as soon as it has come so far: the others wait for six seconds
            list(pool.map(lambda team: hurt(*team), teams))
        cut, *still = [both for *_, both in teams]
        said, errors = cut[0].communicate(timeout=120)
        assert re.search(r"ERROR training stopped: rank 1 \(.*\) is gone or cannot be reached", said), said + errors
        _, errors = cut[1].communicate(timeout=120)
        assert "rank 0" in errors and cut[1].returncode == LOST, errors
        for stopped, both in enumerate(still):
            said, errors = both[1 - stopped].communicate(timeout=120)
            gone = rf"training stopped: rank {stopped} \(.*\) is gone or cannot be reached"
            assert re.search(gone, said + errors) and both[1 - stopped].returncode == LOST, said + errors


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def test_torchrun_on_two_hosts_starts_a_killed_process_anew(home: Path, pair: Artifact) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1"]
    command += ["--max-restarts", "2", "--rdzv-backend", "c10d", "--rdzv-endpoint", f"localhost:{free_port()}"]
    command += ["--rdzv-id", "pair", *MEMBER[1:], str(home), str(STEPS)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "WUXING_TIMEOUT_SECONDS": "30"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    fated.write(home / "base", 1, 8, "hold")
    agents = [subprocess.Popen(command, env=environment, text=True, **pipes) for _ in range(2)]
    try:
        fated.wait_for(home / "base", 1, 8, lambda: all(agent.poll() is None for agent in agents))
        of_rank = workers_of(agents)
        os.kill(of_rank[1], signal.SIGKILL)
        said = [agent.communicate(timeout=150)[0] for agent in agents]
    finally:
        for agent in agents:
            agent.kill()
    assert [agent.returncode for agent in agents] == [0, 0] and "failures: []" in "".join(said), "".join(said)
    same_bits(home, pair)
    lost = [line for line in read_lines(home / "base" / "log.jsonl") if "lost" in line]
    assert [line["lost"] for line in lost] == ["restart 1 by torchrun"] and lost[0]["processes"] == 2


def workers_of(agents: list[subprocess.Popen[str]]) -> dict[int, int]:
    """Rank → process id of what torchrun started."""
    import psutil

    children = [child for agent in agents for child in psutil.Process(agent.pid).children(recursive=True)]
    return {int(child.environ()["RANK"]): child.pid for child in children if "RANK" in child.environ()}


def test_torchrun_runs_a_recipe(tmp_path: Path) -> None:
    recipe = tmp_path / "r.yaml"
    text = [f"The {n} birds of island number {n * n} sing about {n % 7} rivers and {n % 11} hills." for n in range(900)]
    (tmp_path / "t.txt").write_text("\n".join(text))
    recipe.write_text(
        "name: pair\nseed: 3\nsteps:\n"
        f"  birds: {{make: corpus, sources: [{{files: {tmp_path}/t.txt, per: line}}],\n"
        "    split: {validation: 0.1, test: 0.1}}\n"
        "  words: {make: tokenizer, corpus: birds, vocab_size: 300}\n"
        "  base: {make: model, architecture: {size: 60k, width: 32, layers: 2}, tokenizer: words, data: {birds: 1.0},\n"
        "    objective: next_token, length_tokens: 64, batch_tokens: 512, budget: {steps: 6}}\n"
    )
    environment = {**os.environ, "WUXING_HOME": str(tmp_path / "home"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "wuxing"]
    done = subprocess.run([*command, "run", str(recipe)], env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    training = read_json(tmp_path / "home" / "model" / "base" / "v1" / "training.json")
    assert training["steps"] == 6 and training["threads"] == 1
    assert not signed(tmp_path / "home" / "model" / "base" / "v1", "model", "base").failures
