"""Where shards are kept between runs: `<cache>/shards/<settings>/<name>.shard`.

A shard is found by the keys of the parts in it; a file that does not fit its digest is removed and made anew.  Whoever
reads shards holds `shards/.lock` together with others; `prune` needs it alone.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from wuxing.core.error import WuxingError
from wuxing.core.file import read_json
from wuxing.core.store import Store
from wuxing.corpus.engine.shard import ShardFile

SUFFIX = ".shard"


class ShardCache:
    """The shards that were made under one directory of a cache."""

    def __init__(self, directory: Path):
        self.directory = directory
        self.damaged = 0
        """Files that did not fit their digest."""

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Within: nothing here is pruned."""
        with _locked(self.directory, fcntl.LOCK_SH):
            yield

    def path(self, settings: str, name: str) -> Path:
        """The file of a shard."""
        return self.directory / settings / f"{name}{SUFFIX}"

    def put(self, settings: str, name: str, pieces: Iterable[bytes | memoryview]) -> ShardFile:
        """Write a shard whole or not at all.  No sync: what a power cut tears does not fit its digest."""
        path = self.path(settings, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f".{name}.{socket.gethostname()}.{os.getpid()}.tmp")
        try:
            with open(draft, "wb") as file:
                file.writelines(pieces)
            os.replace(draft, path)
        finally:
            draft.unlink(missing_ok=True)
        found = ShardFile.open(path)
        assert found is not None, "a shard that was just written is whole"
        return found

    def find(self, settings: str, wanted: Sequence[str], threads: int = 1) -> dict[str, ShardFile]:
        """Part key → shard, for shards of which every part is wanted: what steps found is known per shard only."""
        left = set(wanted)
        chosen: list[ShardFile] = []
        self._sweep(settings)
        for path in sorted((self.directory / settings).glob(f"*{SUFFIX}")):
            shard = ShardFile.open(path)
            if shard is None:
                self._remove(path)
            elif shard.header["lasting"] and (keys := {held.key for held in shard.parts}) <= left and keys:
                left -= keys
                chosen.append(shard)
        found: dict[str, ShardFile] = {}
        with ThreadPoolExecutor(max(1, threads)) as pool:
            for shard, intact in zip(chosen, pool.map(_intact, chosen), strict=True):
                if intact:
                    found.update((held.key, shard) for held in shard.parts)
                else:
                    self._remove(shard.path)
        return found

    def _remove(self, path: Path) -> None:
        self.damaged += 1
        path.unlink(missing_ok=True)

    def _sweep(self, settings: str) -> None:
        """Remove what killed processes of this machine were writing."""
        for path in (self.directory / settings).glob(f".*.{socket.gethostname()}.*.tmp"):
            if not _alive(int(path.name.split(".")[-2])):
                path.unlink(missing_ok=True)


def _intact(shard: ShardFile) -> bool:
    try:
        return shard.intact()
    except OSError:
        return False


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


@contextmanager
def _locked(directory: Path, how: int) -> Iterator[None]:
    directory.mkdir(parents=True, exist_ok=True)
    handle = os.open(directory / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(handle, how)
        yield
    finally:
        os.close(handle)


def used_shards(store: Store, keep: int = 1) -> dict[str, set[str]]:
    """Settings → names of the shards that the newest `keep` versions of each corpus are made of."""
    found: dict[str, set[str]] = {}
    for kind, name in store.names():
        for artifact in store.versions(kind, name)[-keep:] if kind == "corpus" else ():
            note = artifact.path / "shards.json"
            for settings, names in (read_json(note) if note.is_file() else {}).items():
                found.setdefault(settings, set()).update(names)
    return found


def unused(directory: Path, used: Mapping[str, set[str]]) -> list[tuple[Path, int]]:
    """Files of a shard directory that no corpus names in `used` (settings → names of shards), and their sizes."""
    found = []
    for path in sorted(directory.glob("*/*")):
        name = path.name.removesuffix(SUFFIX)
        if path.is_file() and (path.suffix != SUFFIX or name not in used.get(path.parent.name, set())):
            found.append((path, path.stat().st_size))
    return found


def remove_unused(directory: Path, used: Mapping[str, set[str]]) -> int:
    """Remove them; returns the bytes freed.  WuxingError while a corpus is being made from shards."""
    try:
        with _locked(directory, fcntl.LOCK_EX | fcntl.LOCK_NB):
            freed = 0
            for path, size in unused(directory, used):
                path.unlink(missing_ok=True)
                freed += size
            for folder in directory.glob("*/"):
                if not any(folder.iterdir()):
                    shutil.rmtree(folder)
            return freed
    except BlockingIOError as error:
        raise WuxingError("a corpus is being made from the shards", "Prune again when it is done") from error
