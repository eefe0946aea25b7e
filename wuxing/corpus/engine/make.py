"""The two halves of making a corpus: clean what no kept shard holds, then merge."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from wuxing.core.context import Context
from wuxing.corpus.clean import Cleaning
from wuxing.corpus.config import CorpusConfig
from wuxing.corpus.duplicate import bands_for
from wuxing.corpus.engine.cache import ShardCache
from wuxing.corpus.engine.executor import Setup, execute
from wuxing.corpus.engine.merge import Merged, write_corpus
from wuxing.corpus.engine.pieces import Pieces
from wuxing.corpus.engine.plan import Plan, plan
from wuxing.corpus.engine.statistics import Tally
from wuxing.corpus.engine.verdict import compare
from wuxing.source.row import Origin

POOL_FROM_BYTES = 32 << 20
"""Below this a pool's start costs more than it gains."""
STANDS = "its finished shards are kept"


def clean(
    config: CorpusConfig, origins: Sequence[Origin], cache: ShardCache, fitted: Path | None, context: Context
) -> tuple[Plan, str]:
    """All shards of a corpus, made or found; and a line on how many were found."""
    with context.progress.bar("looking at the sources"):
        found = plan(config, origins, cache, fitted, context)
    reused, new = found.reused, len(found.tasks)
    said = f"{reused:,} of {reused + new:,} reused"
    if reused or cache.damaged:
        damaged = f", {cache.damaged:,} damaged ones are made again" if cache.damaged else ""
        context.progress.say(f"  {said.replace(' reused', ' shards reused')}{damaged}")
    workers = config.workers or context.workers
    if config.workers is None and sum(task.bytes for task in found.tasks) < POOL_FROM_BYTES:
        workers = 1
    setup = Setup(config, tuple(found.settings), fitted, context.home, context.cache_directory, cache.directory)
    context.stop.leave(STANDS)
    rows = records = 0
    with context.progress.bar("reading and cleaning", sum(len(task.parts) for task in found.tasks) or None) as bar:
        for task, shard in execute(setup, found.tasks, context, workers):
            for held in shard.parts:
                found.found[found.settings[task.source], held.key] = shard
                rows, records = rows + held.rows[1] - held.rows[0], records + held.records[1] - held.records[0]
            bar.advance(len(task.parts))
            bar.note(f"{rows:,} rows read, {records:,} go on; {said.replace(' reused', ' shards reused')}")
            context.stop.leave(STANDS)
    return found, said


def merge(directory: Path, found: Plan, config: CorpusConfig, context: Context) -> Merged:
    """The corpus of these shards, written into `directory`; `.work` in it is left for the caller to remove."""
    pieces = Pieces(found)
    tally = Tally(config, Cleaning(config.clean, context, _fitted(directory)).cleaners)
    try:
        near = config.duplicates.near_jaccard
        bands = bands_for(near, config.duplicates.hashes).count if near is not None else 1
        with context.progress.bar("looking for duplicates", bands) as bar:
            verdicts = compare(pieces, config, directory / ".work", bar.advance)
        context.stop.leave(STANDS)
        with context.progress.bar("writing the splits", pieces.rows) as bar:
            return write_corpus(directory, pieces, verdicts, tally, config, bar.advance)
    finally:
        pieces.close()


def _fitted(directory: Path) -> Path | None:
    return directory / "fitted" if (directory / "fitted").is_dir() else None
