"""Files of this machine: one file, a directory, or a pattern.

Directories are walked without going in circles: each real directory is entered once.  What is no regular file (a pipe,
a socket, a device) is never opened.  Whatever is passed over is a row with its reason, hidden files aside.
"""

from __future__ import annotations

import errno
import glob
import os
import stat
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from wuxing.core.context import Context
from wuxing.core.digest import digest_of, digest_of_file
from wuxing.core.error import UsageError, WuxingError
from wuxing.core.file import read_json, write_json
from wuxing.core.record import Drop
from wuxing.source.blob import FileBlob, RefusedBlob
from wuxing.source.config import SourceConfig
from wuxing.source.format import formats_of, parts_of
from wuxing.source.row import Origin, numbered, short

ABOUT_THE_DATA = ("dataset_info.json", "dataset_dict.json", "state.json", "dataset_infos.json")
"""Files that Hugging Face's libraries write beside Arrow and Parquet files: about the data, not data."""
KINDS = (
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


@dataclass(frozen=True)
class Found:
    """Something that was found: a file's state, or why it is passed over."""

    name: str
    path: Path
    state: os.stat_result | None
    reason: Drop | None = None

    @property
    def blob(self) -> FileBlob | RefusedBlob:
        """How it is read."""
        if self.reason or self.state is None:
            return RefusedBlob(self.name, self.reason or Drop("vanished"))
        return FileBlob(self.name, self.path, self.state.st_size)


def read(source: SourceConfig, context: Context) -> Origin:
    """The files, in the order of their names."""
    found = _found(source)
    kept, left_out = _without_descriptions(found)
    parts = parts_of([file.blob for file in kept], source)
    card = {
        "files": {file.name: file.blob.bytes for file in kept if not file.reason},
        "formats": formats_of(parts),
    }
    return Origin(parts, {**card, "left_out": left_out} if left_out else card)


def digest(source: SourceConfig, context: Context) -> str:
    """Digest of the files' names and contents.  Digests of unchanged files are remembered, so this is cheap."""
    note = context.cache_directory / "digests.json"
    known: dict[str, str] = read_json(note) if note.is_file() else {}
    found, fresh = {}, False
    for file in _found(source):
        if file.reason or file.state is None:
            found[file.name] = file.blob.digest()
            continue
        state = file.state
        key = f"{file.path.resolve()}|{state.st_size}|{state.st_mtime_ns}|{state.st_ctime_ns}|{state.st_ino}"
        if key not in known:
            known[key], fresh = _digest(file.path), True
        found[file.name] = known[key]
    if fresh:
        write_json(note, known)
    return digest_of(found)


def _digest(path: Path) -> str:
    try:
        return digest_of_file(path)
    except OSError:
        return "unreadable"


def paths_of(source: SourceConfig) -> dict[str, Path]:
    """Name inside the source → path of the files that can be opened, sorted."""
    return {file.name: file.path for file in _found(source) if not file.reason}


def _found(source: SourceConfig) -> list[Found]:
    """What the source names, sorted by name.  Hidden files are left out; everything else is listed, readable or not."""
    assert source.files is not None
    asked = Path(source.files).expanduser()
    if asked.is_dir():
        root, found = asked, list(_walk(asked))
    elif asked.exists():
        return [_look(asked.name, asked)]
    elif glob.has_magic(str(asked)):
        root = Path(_fixed_part(str(asked)))
        found = _matching(root, asked.relative_to(root).as_posix())
    else:
        raise UsageError(f"There is no file {source.files}", f"The path starts at {Path.cwd()}; give one that exists")
    if not found:
        raise WuxingError(f"{source.files} holds no file", "Give a directory or a pattern with files in it")
    return _uniquely(found, root)


def _uniquely(found: Iterable[Found], root: Path) -> list[Found]:
    """Sorted, with names that differ: two names that are no UTF-8 may look alike."""
    seen: Counter[str] = Counter()
    files = []
    for file in sorted(found, key=lambda file: os.fsencode(file.path)):
        seen[file.name] += 1
        files.append(Found(numbered(file.name, seen[file.name]), file.path, file.state, file.reason))
    return sorted(files, key=lambda file: file.name)


def _look(name: str, path: Path) -> Found:
    """What a path is, without opening it."""
    name = _printable(name)
    try:
        state = path.stat()
    except OSError as error:
        return Found(name, path, None, _refused(error, path.is_symlink()))
    kind = next((said for test, said in KINDS if test(state.st_mode)), None)
    return Found(name, path, state, Drop("no_regular_file", f"{kind}, which is not opened") if kind else None)


def _refused(error: OSError, link: bool) -> Drop:
    reasons = {errno.EACCES: "no_permission", errno.ELOOP: "symlink_loop"}
    reasons[errno.ENOENT] = "broken_link" if link else "vanished"
    return Drop(reasons.get(error.errno or 0, "unreachable"), short(error))


def _walk(root: Path) -> Iterator[Found]:
    """All files below a directory.  Links to directories are followed after all others, so that a file keeps the name
    it has without links."""
    entered: set[tuple[int, int]] = set()
    links: list[tuple[str, Path]] = []
    waiting: list[tuple[str, Path]] = [("", root)]
    while waiting or links:
        prefix, directory = waiting.pop() if waiting else links.pop()
        try:
            state = directory.stat()
            if (state.st_dev, state.st_ino) in entered:
                above = state.st_ino in {parent.stat().st_ino for parent in directory.parents if parent.exists()}
                reason = Drop("symlink_loop" if above else "linked_twice", "a directory that was read already")
                yield Found(_printable(prefix), directory, None, reason)
                continue
            entered.add((state.st_dev, state.st_ino))
            with os.scandir(directory) as listing:
                entries = sorted(listing, key=lambda entry: os.fsencode(entry.name))
        except OSError as error:
            yield Found(_printable(prefix), directory, None, _refused(error, False))
            continue
        for entry in reversed(entries):
            if entry.name.startswith("."):
                continue
            name, path = f"{prefix}/{entry.name}" if prefix else entry.name, Path(entry.path)
            if entry.is_dir(follow_symlinks=False):
                waiting.append((name, path))
            elif entry.is_symlink() and path.is_dir():
                links.append((name, path))
            else:
                yield _look(name, path)
        links.sort(key=lambda link: os.fsencode(link[0]), reverse=True)


def _matching(root: Path, pattern: str) -> list[Found]:
    """The files that a pattern names."""
    found = []
    for path in root.glob(pattern):
        name = path.relative_to(root).as_posix()
        if path.is_dir() or any(part.startswith(".") for part in name.split("/")):
            continue
        found.append(_look(name, path))
    return found


def _without_descriptions(found: list[Found]) -> tuple[list[Found], list[str]]:
    """The data, and the files beside (or, for `dataset_dict.json`, above) them that only describe them."""
    tables = {file.name.rpartition("/")[0] for file in found if file.name.endswith((".arrow", ".parquet"))}
    above = {directory.rpartition("/")[0] for directory in tables}

    def describes(file: Found) -> bool:
        directory, _, name = file.name.rpartition("/")
        return name in ABOUT_THE_DATA and (directory in tables or (name == "dataset_dict.json" and directory in above))

    return [file for file in found if not describes(file)], [file.name for file in found if describes(file)]


def _printable(name: str) -> str:
    """A file's name as UTF-8 text, whatever bytes it is made of."""
    return os.fsencode(name).decode("utf-8", errors="backslashreplace")


def _fixed_part(pattern: str) -> str:
    parts = pattern.split("/")
    first = next(number for number, part in enumerate(parts) if glob.has_magic(part))
    return "/".join(parts[:first]) or ("/" if pattern.startswith("/") else ".")
