"""One function over many items in several processes; the results come in the order of the items."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from wuxing.core.error import WuxingError

T = TypeVar("T")
R = TypeVar("R")

_function: Callable[[Any], Any] | None = None


def ordered_map(
    make: Callable[..., Callable[[T], R]], arguments: tuple[Any, ...], items: Iterable[T], workers: int
) -> Iterator[R]:
    """`make(*arguments)` applied to each item: in this process for one worker, else in a pool a little ahead.

    `make` is called once in each process and must be a module's function.  Neither order nor values depend on
    `workers`.  WuxingError when a process is killed.
    """
    if workers <= 1:
        yield from map(make(*arguments), items)
        return
    import multiprocessing

    start = (os.getpid(), make, arguments)
    spawn = multiprocessing.get_context("spawn")  # forking a process that holds threads of torch or Arrow can hang
    with ProcessPoolExecutor(workers, mp_context=spawn, initializer=_start, initargs=start) as pool:
        ahead: deque[Future[R]] = deque()
        try:
            for item in items:
                ahead.append(pool.submit(_run, item))
                if len(ahead) > 2 * workers:
                    yield _result(ahead.popleft())
            while ahead:
                yield _result(ahead.popleft())
        finally:
            for future in ahead:
                future.cancel()


def _start(parent: int, make: Callable[..., Callable[[Any], Any]], arguments: tuple[Any, ...]) -> None:
    global _function
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    threading.Thread(target=_leave_with, args=(parent,), daemon=True).start()
    _function = make(*arguments)


def _leave_with(parent: int) -> None:
    """End this worker when its parent is gone: a killed parent cannot say good-bye, and its queue never ends."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _run(item: Any) -> Any:
    assert _function is not None
    return _function(item)


def _result(future: Future[R]) -> R:
    try:
        return future.result()
    except BrokenProcessPool as error:
        raise WuxingError("a worker process was killed; memory may have run out", "Set workers: 1") from error
