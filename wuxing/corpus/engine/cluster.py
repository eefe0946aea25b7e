"""Shards made as tasks of a Ray cluster.  Results come back through Ray's object store: nodes share no disk but the
one that holds the sources.  A task whose node dies is given to another one by Ray."""

from __future__ import annotations

import tempfile
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from wuxing.compute.cluster import connected
from wuxing.core.context import Context
from wuxing.core.error import WuxingError
from wuxing.corpus.engine.cache import ShardCache
from wuxing.corpus.engine.executor import Setup, _named
from wuxing.corpus.engine.shard import ShardFile
from wuxing.corpus.engine.worker import Task, Worker

AHEAD_PER_CORE = 2
RETRIES = 3

_workers: dict[str, Worker] = {}


def run_on_ray(setup: Setup, tasks: Sequence[Task]) -> Iterator[tuple[Task, ShardFile]]:
    """The shards of the tasks, each as soon as it is there."""
    ray = connected()
    run = ray.remote(num_cpus=1, max_retries=RETRIES, scheduling_strategy="SPREAD")(_run)
    shared = ray.put((setup, _files(setup.fitted)))
    cache, waiting = ShardCache(setup.shards), deque(tasks)
    running: dict[Any, Task] = {}
    try:
        while waiting or running:
            while waiting and len(running) < AHEAD_PER_CORE * max(1, int(ray.cluster_resources().get("CPU", 1))):
                task = waiting.popleft()
                running[run.remote(shared, task)] = task
            for done in ray.wait(list(running), num_returns=1)[0]:
                task = running.pop(done)
                content = _result(ray, done, setup, task)
                yield task, cache.put(setup.settings[task.source], task.name, [content])
    finally:
        for left in running:
            ray.cancel(left)


def _files(fitted: Path | None) -> dict[str, bytes] | None:
    """What steps learnt, to travel with the tasks."""
    if fitted is None or not fitted.is_dir():
        return None
    files = [path for path in fitted.rglob("*") if path.is_file()]
    return {path.relative_to(fitted).as_posix(): path.read_bytes() for path in files}


def _run(shared: tuple[Setup, dict[str, bytes] | None], task: Task) -> bytes:
    """On a node: one shard as bytes."""
    setup, files = shared
    key = "/".join(setup.settings)
    if key not in _workers:
        fitted = None
        if files is not None:
            fitted = Path(tempfile.mkdtemp(prefix="wuxing-fitted-"))
            for name, content in files.items():
                (fitted / name).parent.mkdir(parents=True, exist_ok=True)
                (fitted / name).write_bytes(content)
        here = replace(setup, fitted=fitted)
        _workers.clear()
        _workers[key] = Worker(here.config, fitted, Context(home=setup.home, cache=setup.cache))
    return _workers[key].run(task).to_bytes()


def _result(ray: Any, done: Any, setup: Setup, task: Task) -> bytes:
    try:
        content: bytes = ray.get(done)
        return content
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, WuxingError | OSError):
            raise error.cause from error
        raise
    except ray.exceptions.RayError as error:
        raise WuxingError(
            f"Ray gave up on {_named(setup, task)} after {RETRIES} retries: {type(error).__name__}",
            "Look at the cluster (ray status); finished shards are kept, so the same command goes on",
        ) from error
