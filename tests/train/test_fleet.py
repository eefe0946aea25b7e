"""Processes that are watched: who was lost is named, all start anew from the last save, and every bit is the same."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fated
import pytest
from small_run import base_config, base_parents, make_in
from test_together import samples

from wuxing.compute.cluster import connected
from wuxing.compute.fleet import Attempt, Ending
from wuxing.compute.place import LOST, LocalGround, LostError
from wuxing.core.artifact import Artifact
from wuxing.core.context import Context
from wuxing.core.digest import digest_of_file
from wuxing.core.error import Interrupted, RefusedError, UsageError, WuxingError
from wuxing.core.file import read_lines
from wuxing.train import fleet, together
from wuxing.train.fleet import ATTEMPTS
from wuxing.train.model_kind import ModelKind

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")


# ------------------------------------------------------------------------------------------- small processes, no model
def ended(tmp_path: Path, *bodies: str, hurt: Callable[[Attempt], None] = lambda a: None, **changes: Any) -> Ending:
    """How processes with these bodies end."""
    start = "import json, os, signal, sys, time\nsys.stdin.read()\n"
    lead, follower = (f"body_{os.getpid()}_{number}" for number in range(2))
    (tmp_path / f"{lead}.py").write_text(start + bodies[0])
    (tmp_path / f"{follower}.py").write_text(start + bodies[-1])
    heard: list[dict[str, Any]] = []
    says = {"hear": heard.append, "asked_to_stop": lambda: False, "saving": lambda: False, "timeout_seconds": 30}
    places = LocalGround().places(2)
    assert places is not None
    attempt = Attempt(places=places, **(says | changes))
    ending = attempt.run(lead, follower, "{}", {"PYTHONPATH": str(tmp_path)}, hurt)
    for pid in attempt.pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)  # nothing is left running
    return ending


def told(name: str, what: str, code: int) -> str:
    return f"print(json.dumps({{'error': {{'name': {name!r}, 'what': {what!r}, 'remedy': None}}}})); sys.exit({code})"


FOREVER = "time.sleep(600)"


def test_processes_that_end_well_have_nothing_to_say(tmp_path: Path) -> None:
    assert ended(tmp_path, 'print(\'{"say": "hello"}\')', "") == Ending()


@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_process_is_named_with_its_place_and_the_others_end(rank: int, tmp_path: Path) -> None:
    pids: list[int] = []

    def kill(attempt: Attempt) -> None:
        pids.extend(attempt.pids)
        os.kill(attempt.pids[rank], signal.SIGKILL)

    ending = ended(tmp_path, FOREVER, hurt=kill)
    assert ending.error is None
    assert ending.lost == f"rank {rank} ({os.uname().nodename}, process {pids[rank]}) was ended by SIGKILL"


def test_a_save_that_is_under_way_is_waited_for(tmp_path: Path) -> None:
    asked: list[float] = []

    def saving() -> bool:
        asked.append(time.monotonic())
        return asked[-1] - asked[0] < 0.5

    ending = ended(tmp_path, FOREVER, "os.kill(os.getpid(), 9)", saving=saving)
    assert "rank 1" in ending.lost and len(asked) > 1 and time.monotonic() - asked[0] >= 0.5


def test_the_error_of_the_lead_is_raised_as_what_it_was(tmp_path: Path) -> None:
    follower = "print('loss is not finite', file=sys.stderr); sys.exit(1)"
    ending = ended(tmp_path, "time.sleep(0.5);" + told("RefusedError", "too large", 3), follower)
    assert type(ending.error) is RefusedError and ending.error.what == "too large"
    full = ended(tmp_path, "print(json.dumps({'error': {'name': 'OSError', 'errno': 28, 'what': 'x', 'file': 'y'}}))"
                 "\nsys.exit(1)", FOREVER)  # fmt: skip
    assert isinstance(full.error, OSError) and full.error.errno == 28


def test_what_the_lead_says_of_a_silent_process_counts(tmp_path: Path) -> None:
    ending = ended(tmp_path, told("LostError", "training stopped: rank 1 (b, process 7) is gone", LOST), FOREVER)
    assert ending == Ending(lost="rank 1 (b, process 7) is gone")
    asked = ended(tmp_path, told("Interrupted", "saved at step 3", 130), FOREVER)
    assert "asked to stop from outside" in asked.lost
    deaf = f"signal.signal(signal.SIGTERM, signal.SIG_IGN); open({str(tmp_path)!r} + f'/deaf{{os.getpid()}}', 'w')\n"
    stopped = tmp_path / "stopped"
    until = f"while not os.path.exists({str(stopped)!r}): time.sleep(0.01)\n"
    lead = deaf + until + told("Interrupted", "saved at step 3", 130)

    def both_deaf() -> bool:
        if len(list(tmp_path.glob("deaf*"))) == 2:
            stopped.touch()
        return stopped.exists()

    mine = ended(tmp_path, lead, deaf + FOREVER, asked_to_stop=both_deaf)
    assert type(mine.error) is Interrupted and mine.error.what == "saved at step 3"
    early = ended(tmp_path, FOREVER, asked_to_stop=lambda: True)
    assert type(early.error) is Interrupted


def test_a_failure_that_nobody_told_is_the_last_line_of_its_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wuxing.compute.fleet.LEAD_SECONDS", 0.5)
    ending = ended(tmp_path, FOREVER, "raise KeyError('that')")
    assert ending.error is not None and "rank 1" in str(ending.error) and "KeyError: 'that'" in str(ending.error)
    lost = "print('wuxing: rank 1: training stopped: rank 0 (127.0.0.1) is gone. Type', file=sys.stderr); sys.exit(75)"
    said = ended(tmp_path, FOREVER, lost)
    assert re.fullmatch(rf"rank 0 \({os.uname().nodename}, process \d+\) is gone", said.lost) and said.error is None


def test_files_that_another_host_does_not_have_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(together, "SEEN_SECONDS", 0.2)
    with together.marked(tmp_path) as mark:
        assert together.wrong_here(mark) == ""
        assert "does not see the store's files at" in together.wrong_here({**mark, "path": "/nowhere/mark"})
        assert "does not see" in together.wrong_here({**mark, "content": "of another host"})
        other = {**mark, "releases": {**mark["releases"], "torch": "1.0"}}
        assert "rank 0 has 1.0: install the same" in together.wrong_here(other)
    assert not list(tmp_path.iterdir())


def test_without_ray_or_its_cluster_there_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "ray", None)
        with pytest.raises(UsageError, match=r"--on ray needs Ray\. Install it: pip install 'wuxing\[ray\]'"):
            connected()
    pytest.importorskip("ray")  # importing it takes a slow disk longer than looking for a cluster
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    began = time.monotonic()
    with pytest.raises(WuxingError, match=r"no Ray cluster answers at 127\.0\.0\.1:1 \(Connection refused\)"):
        connected()
    assert time.monotonic() - began < 10


# ------------------------------------------------------------------------------------------------------- whole models
HERE = str(Path(__file__).parent)


@pytest.fixture
def fates(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes of a fleet meet what was written for them."""
    monkeypatch.setattr(fleet, "LEAD", "fated")
    monkeypatch.setattr(fleet, "FOLLOWER", "fated")
    monkeypatch.setenv("PYTHONPATH", HERE, prepend=os.pathsep)


def train(directory: Path, world: dict[str, Artifact], context: Context) -> Artifact:
    config = base_config(save_every_seconds=1e-6, budget={"steps": 60})
    return make_in(directory, ModelKind(), config, base_parents(world), context)


def same(made: Artifact, pair: Artifact) -> None:
    """The weights have the bits of an undisturbed run, and no step is twice in the log."""
    assert made.record["failures"] == []
    assert digest_of_file(made.path / "model.safetensors") == digest_of_file(pair.path / "model.safetensors")
    assert [line[0] for line in samples(made.path)] == list(range(1, 61))
    assert samples(made.path) == samples(pair.path)


def test_processes_of_one_host_are_replaced(
    world: dict[str, Artifact], pair: Artifact, tmp_path: Path, fates: None
) -> None:
    directory = tmp_path / "base"
    fated.write(directory, 1, 12, "kill")
    context = Context(home=tmp_path, workers=2, processes=2, replacements=0)
    with pytest.raises(LostError, match=r"rank 1 \(.*, process \d+\) was ended by SIGKILL \(--replacements is 0"):
        train(directory, world, context)
    before = (directory / ATTEMPTS).read_text()
    (directory / ATTEMPTS).unlink()
    fated.write(directory, 0, 24, "kill")
    context.replacements = 1
    made = train(directory, world, context)
    same(made, pair)
    lines = [*map(json.loads, before.splitlines()), *read_lines(directory / ATTEMPTS)]
    assert [list(line)[1] for line in lines] == ["attempt", "lost", "attempt", "lost", "attempt"]
    assert "rank 0" in lines[3]["lost"]
    assert [line["lost"] for line in read_lines(directory / "log.jsonl") if "lost" in line] == [lines[3]["lost"]]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A head without cores and two nodes with one each."""
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    memory = {"object_store_memory": 80 << 20}
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (HERE, before)))  # the nodes' own
    here = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False, **memory})
    for _ in range(2):
        here.add_node(num_cpus=1, **memory)
    ray.init(address=here.address, log_to_driver=False)
    os.environ["PYTHONPATH"] = before or ""
    yield here
    ray.shutdown()
    here.shutdown()


def test_a_cluster_replaces_a_process_and_a_node(
    cluster: Any,
    world: dict[str, Artifact],
    pair: Artifact,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    fates: None,
) -> None:
    spare = cluster.add_node(num_cpus=1, object_store_memory=80 << 20)
    directory, removed = tmp_path / "base", []

    def remove() -> None:
        fated.wait_for(directory, 0, 24)
        seats = [line for line in read_lines(directory / ATTEMPTS) if "attempt" in line][-1]["processes"]
        name = seats[0]["place"].split("node ")[1]
        node = next(node for node in cluster.worker_nodes if node.node_id.startswith(name))
        removed.append(name)
        cluster.remove_node(node, allow_graceful=False)

    fated.write(directory, 1, 12, "kill")
    fated.write(directory, 0, 24, "hold")
    remover = threading.Thread(target=remove, daemon=True)
    remover.start()
    context = Context(home=tmp_path, workers=1, processes=2, on="ray")
    same(train(directory, world, context), pair)
    remover.join()
    lost = [line["lost"] for line in read_lines(directory / ATTEMPTS) if "lost" in line]
    assert "rank 1" in lost[0] and "was ended by SIGKILL" in lost[0]
    assert f"rank 0 ({os.uname().nodename}, node {removed[0]}" in lost[1] and "went away with its node" in lost[1]
    assert spare is not None

    monkeypatch.setenv("WUXING_WAIT_SECONDS", "1")
    context.processes = 3
    with pytest.raises(WuxingError, match="no place for 3 processes after .* the cluster's 3 nodes have 0 cores, 1"):
        train(tmp_path / "three", world, context)
    context.processes, context.min_processes = 2, 1
    cluster.remove_node(cluster.worker_nodes.copy().pop(), allow_graceful=False)
    made = train(tmp_path / "one", world, context)
    assert made.record["failures"] == [] and samples(made.path) == samples(pair.path)
