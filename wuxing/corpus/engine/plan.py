"""What has to be done: the parts of every source, which of them a kept shard holds, and the tasks for the rest.

Nothing here depends on the number of workers.  Small files share a task; when new files come, the shards of the old
ones stay as they are and the new ones get shards of their own: `merge` puts the rows into the order of the sources.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from wuxing.core.context import Context
from wuxing.core.digest import digest_of, digest_of_file, digest_of_files
from wuxing.core.file import read_json, write_json
from wuxing.core.step import content_of
from wuxing.corpus.clean.learn import step_inputs
from wuxing.corpus.config import CorpusConfig
from wuxing.corpus.engine.cache import ShardCache
from wuxing.corpus.engine.look import wanted
from wuxing.corpus.engine.shard import ShardFile
from wuxing.corpus.engine.worker import Task, state_of
from wuxing.source import source_digest
from wuxing.source.config import SourceConfig
from wuxing.source.format.cut import STRETCH_BYTES, cut
from wuxing.source.row import Origin, Part

TASK_BYTES = 4 << 20
TASK_PARTS = 1000
REMEMBERED = 200_000
"""Files whose digests are remembered."""
LIBRARIES = (
    "ftfy",
    "fasttext-predict",
    "resiliparse",
    "pyarrow",
    "orjson",
    "Pillow",
    "soundfile",
    "soxr",
    "onnxruntime",
    "opencc",
)
"""Distributions that may decide what a row becomes."""
CODE = ("core/record.py", "core/splits.py", "source", "text", "media", "corpus/clean", "corpus/engine")
"""The code that decides what is in a shard: when a byte of it changes, shards are made anew."""


@dataclass(frozen=True)
class Wanted:
    """One part that the corpus is made of."""

    source: int
    settings: str
    key: str
    part: Part


@dataclass
class Plan:
    """All parts in the order of the sources, the shards that are there, and the tasks for those that are not."""

    parts: list[Wanted] = field(default_factory=list)
    found: dict[tuple[str, str], ShardFile] = field(default_factory=dict)
    """(settings, key of a part) → its shard."""
    tasks: list[Task] = field(default_factory=list)
    settings: list[str] = field(default_factory=list)
    """Of each source."""

    @property
    def reused(self) -> int:
        """Shards that an earlier run made."""
        return len({shard.path for shard in self.found.values()})

    def to_json(self, directory: Path) -> dict[str, list[str]]:
        """The shards that a corpus is made of, by the folder they lie in: what `prune` keeps."""
        paths = sorted({shard.path.relative_to(directory) for shard in self.found.values()})
        return {str(path.parent): [p.stem for p in paths if p.parent == path.parent] for path in paths}


@cache
def code_digest() -> str:
    """The digest of the code that decides what is in a shard."""
    root = Path(__file__).parents[2]
    files = [path for name in CODE for path in ([root / name] if name.endswith(".py") else (root / name).rglob("*"))]
    known = {p.relative_to(root).as_posix(): digest_of_file(p) for p in files if p.suffix in (".py", ".c", ".h")}
    return digest_of_files(known)


def settings_of(config: CorpusConfig, number: int, fitted: Path | None, beside: Mapping[str, str]) -> str:
    """The digest of all that decides the shards of a source besides its content.

    `fitted` holds what steps learnt; `beside` the digests of files that they read.
    """
    source, near = config.sources[number], config.duplicates
    written = {name: value for name, value in content_of(source).items() if name != "license"}
    learnt = {}
    if fitted is not None and fitted.is_dir():
        files = sorted(path for path in fitted.rglob("*") if path.is_file())
        learnt = {path.relative_to(fitted).as_posix(): digest_of_file(path) for path in files}
    return digest_of(
        {
            "source": {**written, "label": source.label},
            "clean": [[step.chosen, content_of(step.settings)] for step in config.clean],
            "signatures": [near.shingle_words, near.hashes] if near.near_jaccard is not None else None,
            "looks": sorted(wanted(near)),
            "samples": config.dropped_samples,
            "fitted": learnt,
            "beside": dict(beside),
            "code": code_digest(),
            "libraries": {name: _version(name) for name in LIBRARIES},
        }
    )[:32]


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def plan(
    config: CorpusConfig, origins: Sequence[Origin], cache: ShardCache, fitted: Path | None, context: Context
) -> Plan:
    """List, cut and identify the parts of all sources, and look for their shards."""
    made = Plan()
    beside = step_inputs(config, context)
    memory = _Memory(cache.directory / "parts.json")
    for number, origin in enumerate(origins):
        source = config.sources[number]
        settings = settings_of(config, number, fitted, beside)
        made.settings.append(settings)
        outside: list[str] = []
        mine = []
        for part in origin.parts:
            for stretch in memory.cut(_absolute(part), source):
                identity = memory.identity(stretch) or _outside(outside, source, context)
                mine.append(Wanted(number, settings, _key(stretch, identity), stretch))
        known = cache.find(settings, [wanted.key for wanted in mine], context.workers)
        made.parts += mine
        made.found |= {(settings, key): shard for key, shard in known.items()}
        made.tasks += _tasks(number, [wanted for wanted in mine if wanted.key not in known])
    memory.keep()
    return made


def _absolute(part: Part) -> Part:
    """The same part for a worker in another directory."""
    path = getattr(part.blob, "path", None)
    if path is None or path.is_absolute():
        return part
    return replace(part, blob=replace(part.blob, path=path.absolute()))


def _outside(known: list[str], source: SourceConfig, context: Context) -> str:
    """The identity of a source whose parts have none of their own."""
    if not known:
        known.append(source_digest(source, context) or "")
    return known[0]


def _key(part: Part, identity: str) -> str:
    name = getattr(part.blob, "name", "")
    stretch = [part.first_row] if part.digest else [part.first_row, part.start, part.stop]
    return digest_of([name, identity, part.format, *stretch])[:32]


def _tasks(source: int, wanted: Sequence[Wanted]) -> Iterator[Task]:
    """The parts in their order, small ones together."""
    group: list[Wanted] = []
    size = 0
    for item in wanted:
        mine = _size(item.part)
        if group and (size + mine > TASK_BYTES or len(group) == TASK_PARTS):
            yield _task(source, group)
            group, size = [], 0
        group.append(item)
        size += mine
    if group:
        yield _task(source, group)


def _size(part: Part) -> int:
    if part.stop is not None:
        return part.stop - part.start if part.digest else STRETCH_BYTES
    return int(getattr(part.blob, "bytes", STRETCH_BYTES))


def _task(source: int, group: Sequence[Wanted]) -> Task:
    keys = tuple(item.key for item in group)
    parts = tuple(item.part for item in group)
    name = hashlib.sha256("".join(keys).encode()).hexdigest()[:32]
    return Task(source, name, parts, keys, tuple(state_of(part.blob) for part in parts), sum(map(_size, parts)))


class _Memory:
    """Digests and cuts of files, remembered while the file system says that they are the same files."""

    def __init__(self, path: Path):
        self.path = path
        self._old: dict[str, Any] = {}
        if path.is_file():
            try:
                self._old = read_json(path)
            except ValueError:
                self._old = {}  # cut short by a crash: it is only a memory
        self._new: dict[str, Any] = {}
        self._fresh = False

    def cut(self, part: Part, source: SourceConfig) -> list[Part]:
        """`cut`, remembered for files that were cut."""
        if getattr(part.blob, "bytes", 0) <= STRETCH_BYTES or getattr(part.blob, "path", None) is None:
            return [part]
        reading = "|".join((part.format, source.per, source.encoding))
        key = f"{part.blob.path}|{state_of(part.blob)}|{reading}"
        if key not in self._old:
            try:
                stretches = cut(part, source)
            except OSError:
                return [part]  # its reader says what is wrong
            self._fresh = True
            names = ("start", "stop", "first_row", "digest")
            self._old[key] = [[getattr(stretch, name) for name in names] for stretch in stretches]
        self._new[key] = self._old[key]
        return [
            replace(part, start=start, stop=stop, first_row=row, digest=digest)
            for start, stop, row, digest in self._old[key]
        ]

    def identity(self, part: Part) -> str | None:
        """The digest of what a part is read from; None where its blob has none."""
        if part.digest:
            return part.digest
        archive = getattr(part.blob, "archive", None)
        if archive is not None:
            return digest_of([self._file(archive, f"{archive}|{state_of(part.blob)}"), part.blob.member])
        path = getattr(part.blob, "path", None)
        if path is not None:
            return self._file(path, f"{path}|{state_of(part.blob)}")
        digest = getattr(part.blob, "digest", None)
        return None if digest is None else str(digest())

    def _file(self, path: Path, key: str) -> str:
        if key not in self._old:
            try:
                self._old[key] = digest_of_file(path)
            except OSError:
                return "unreadable"
            self._fresh = True
        self._new[key] = self._old[key]
        return str(self._old[key])

    def keep(self) -> None:
        """Write what was learnt; what was not asked for this time goes first when there is too much."""
        if self._fresh:
            older = {key: value for key, value in self._old.items() if key not in self._new}
            spare = max(0, REMEMBERED - len(self._new))
            write_json(self.path, {**dict(list(older.items())[-spare:] if spare else []), **self._new})
