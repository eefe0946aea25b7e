"""Who makes the shards: this process, a pool of processes, or a Ray cluster; each with the same `Worker`.

An executor gives back each task with its shard, in any order: a shard is found by its name, and the corpus is put
together in the order of its sources.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

from wuxing.core.context import Context
from wuxing.core.error import WuxingError
from wuxing.core.memory import give_memory_back
from wuxing.corpus.config import CorpusConfig
from wuxing.corpus.engine.cache import ShardCache
from wuxing.corpus.engine.shard import ShardFile
from wuxing.corpus.engine.worker import Task, Worker


@dataclass(frozen=True)
class Setup:
    """What a worker needs to know once."""

    config: CorpusConfig
    settings: tuple[str, ...]
    """Of each source."""
    fitted: Path | None
    home: Path
    cache: Path
    shards: Path


Done = Iterator[tuple[Task, ShardFile]]


def execute(setup: Setup, tasks: Sequence[Task], context: Context, workers: int) -> Done:
    """The shards of the tasks, each as soon as it is there."""
    if not tasks:
        return iter(())
    if context.on == "ray":
        from wuxing.corpus.engine.cluster import run_on_ray

        return run_on_ray(setup, tasks)
    if workers <= 1:
        return _here(setup, tasks, context)
    return _pool(setup, tasks, min(workers, len(tasks)))


def _here(setup: Setup, tasks: Iterable[Task], context: Context) -> Done:
    worker, cache = Worker(setup.config, setup.fitted, context), ShardCache(setup.shards)
    for task in tasks:
        yield task, cache.put(setup.settings[task.source], task.name, worker.run(task).pieces())


# ---------------------------------------------------------------------------------------------------- processes
_worker: Worker | None = None
_setup: Setup | None = None


def _start(setup: Setup, parent: int) -> None:
    global _worker, _setup
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    threading.Thread(target=_leave_with, args=(parent,), daemon=True).start()
    _setup = setup
    give_memory_back()
    _worker = Worker(setup.config, setup.fitted, Context(home=setup.home, cache=setup.cache))


def _leave_with(parent: int) -> None:
    """End this worker when its parent is gone: a killed parent cannot say good-bye, and its queue never ends."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _run(task: Task) -> Path:
    assert _worker is not None and _setup is not None
    shard = _worker.run(task)
    return ShardCache(_setup.shards).put(_setup.settings[task.source], task.name, shard.pieces()).path


def _pool(setup: Setup, tasks: Iterable[Task], workers: int) -> Done:
    """A pool; when a process is killed, what was under way runs again one by one, and the rest goes on."""
    waiting = deque(tasks)
    while waiting:
        broken: list[Task] = []
        yield from _until_broken(setup, waiting, workers, broken)
        for task in broken:
            again: list[Task] = []
            yield from _until_broken(setup, deque([task]), 1, again)
            if again:
                raise WuxingError(
                    f"the process that cleans {_named(setup, task)} was killed twice; memory may have run out",
                    "Close other programs, or set workers: 1; finished shards are kept",
                )


def _until_broken(setup: Setup, waiting: deque[Task], workers: int, broken: list[Task]) -> Done:
    import multiprocessing

    spawn = multiprocessing.get_context("spawn")  # forking a process that holds threads of torch or Arrow can hang
    running: dict[Future[Path], Task] = {}
    pool = ProcessPoolExecutor(workers, mp_context=spawn, initializer=_start, initargs=(setup, os.getpid()))
    try:
        while waiting or running:
            while waiting and len(running) < workers + 1:
                task = waiting.popleft()
                running[pool.submit(_run, task)] = task
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                path = future.result()
                found = ShardFile.open(path)
                assert found is not None, "a shard that was just written is whole"
                yield running.pop(future), found
    except BrokenProcessPool:
        broken += running.values()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _named(setup: Setup, task: Task) -> str:
    name = getattr(task.parts[0].blob, "name", "a part")
    more = f" and {len(task.parts) - 1} more files" if len(task.parts) > 1 else ""
    return f"{setup.config.sources[task.source].label}/{name}{more}"
