"""One shard of a corpus: raw rows in, an Arrow batch of cleaned records and a fate for every row out.

A shard depends on nothing but its rows and the recipe, so shards run in this process or in a pool, with equal results.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from wuxing.core.context import Context
from wuxing.core.error import WuxingError
from wuxing.core.record import Drop, Record
from wuxing.core.splits import record_batch
from wuxing.corpus.clean import Cleaning, StepCount
from wuxing.corpus.clean.privacy import Privacy
from wuxing.corpus.fingerprint import content_key, split_key
from wuxing.source.fields import Mapper
from wuxing.source.row import Row

if TYPE_CHECKING:
    import pyarrow

    from wuxing.corpus.config import CorpusConfig

SAMPLE_CHARACTERS = 2000

Fate = tuple[str, str, str]
"""id, fate, detail; the fate is empty for a record that goes on."""


@dataclass
class Shard:
    """The result of a shard."""

    batch: pyarrow.RecordBatch
    keys: bytes
    """Content and split key of each record of the batch, one after the other."""
    fates: list[Fate]
    """One for each row, in order."""
    samples: list[tuple[str, str, str, str]]
    """id, fate, detail, text of some that were dropped."""
    counts: list[StepCount] = field(default_factory=list)
    """What each cleaning step did."""
    fields: set[str] = field(default_factory=set)
    """Names of the fields of rows that lacked one."""


class Worker:
    """Cleans shards of one source after the other."""

    def __init__(self, config: CorpusConfig, context: Context):
        self.config, self.context = config, context

    def run(self, source: int, rows: Sequence[Row]) -> Shard:
        """One shard, of the source with this number in the recipe."""
        settings = self.config.sources[source]
        mapper, cleaning = Mapper(settings), Cleaning(self.config.clean, self.context)
        redact = Privacy().change if self.config.redacts else str
        kept: list[Record] = []
        fates: list[Fate] = []
        samples: list[tuple[str, str, str, str]] = []
        taken: Counter[str] = Counter()
        every = [row.value if isinstance(row.value, Record) else mapper.record(row) for row in rows]
        cleaned = iter(cleaning.clean([made for made in every if isinstance(made, Record)]))
        for row, made in zip(rows, every, strict=True):
            ended = next(cleaned) if isinstance(made, Record) else made
            if isinstance(ended, Record):
                kept.append(ended)
                fates.append((ended.id, "", ""))
                continue
            stage = "unreadable" if isinstance(row.value, Drop) and not settings.exchanges else "filtered"
            fate = (_clean(f"{settings.label}/{row.place}"), f"{stage}:{ended.reason}", _clean(ended.detail))
            fates.append(fate)
            if taken[fate[1]] < self.config.dropped_samples:
                taken[fate[1]] += 1
                samples.append((*fate, redact(_sample(made))))
        keys = b"".join(content_key(record) + split_key(record) for record in kept)
        return Shard(record_batch(kept), keys, fates, samples, cleaning.counts, mapper.seen_fields)


def _clean(text: str) -> str:
    """Text that a file can keep, whatever the row held."""
    return text.encode("utf-8", errors="backslashreplace").decode("utf-8")


def _sample(made: Record | Drop) -> str:
    if isinstance(made, Drop):
        return ""
    text = made.text if made.messages is None else "\n".join(f"{m['role']}: {m['content']}" for m in made.messages)
    return _clean((text or "")[:SAMPLE_CHARACTERS])


def cut(rows: Iterable[Row], size: int) -> Iterator[list[Row]]:
    """Rows in lists of `size`."""
    remaining = iter(rows)
    while part := list(islice(remaining, size)):
        yield part


_worker: Worker | None = None


def _start(config: CorpusConfig, home: Path, cache: Path, parent: int) -> None:
    global _worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    threading.Thread(target=_leave_with, args=(parent,), daemon=True).start()
    _worker = Worker(config, Context(home=home, cache=cache))


def _leave_with(parent: int) -> None:
    """End this worker when its parent is gone: a killed parent cannot say good-bye, and its queue never ends."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _run(source: int, rows: Sequence[Row]) -> Shard:
    assert _worker is not None
    return _worker.run(source, rows)


def run_shards(
    config: CorpusConfig, context: Context, tasks: Iterator[tuple[int, list[Row]]], workers: int
) -> Iterator[Shard]:
    """The shards in the order of the tasks; in this process for one worker, else in a pool that runs a little ahead."""
    if workers <= 1:
        worker = Worker(config, context)
        yield from (worker.run(source, rows) for source, rows in tasks)
        return
    import multiprocessing

    start = (config, context.home, context.cache_directory, os.getpid())
    spawn = multiprocessing.get_context("spawn")  # forking a process that holds threads of torch or Arrow can hang
    with ProcessPoolExecutor(workers, mp_context=spawn, initializer=_start, initargs=start) as pool:
        ahead: deque[Future[Shard]] = deque()
        for source, rows in tasks:
            ahead.append(pool.submit(_run, source, rows))
            if len(ahead) > 2 * workers:
                yield _result(ahead.popleft())
        while ahead:
            yield _result(ahead.popleft())


def _result(future: Future[Shard]) -> Shard:
    try:
        return future.result()
    except BrokenProcessPool as error:
        raise WuxingError("a cleaning process was killed; memory may have run out", "Set workers: 1") from error
