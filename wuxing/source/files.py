"""Files of this machine: one file, a directory, or a pattern."""

from __future__ import annotations

import glob
import os
from pathlib import Path

from wuxing.core.context import Context
from wuxing.core.digest import digest_of, digest_of_file
from wuxing.core.error import UsageError, WuxingError
from wuxing.core.file import read_json, write_json
from wuxing.source.blob import FileBlob
from wuxing.source.config import SourceConfig
from wuxing.source.format import parts_of
from wuxing.source.row import Origin


def read(source: SourceConfig, context: Context) -> Origin:
    """The files, in the order of their names."""
    blobs = [FileBlob(name, path, path.stat().st_size) for name, path in paths_of(source).items()]
    return Origin(parts_of(blobs, source), {"files": {blob.name: blob.bytes for blob in blobs}})


def digest(source: SourceConfig, context: Context) -> str:
    """Digest of the files' names and contents.  Digests of unchanged files are remembered, so this is cheap."""
    note = context.cache_directory / "digests.json"
    known: dict[str, str] = read_json(note) if note.is_file() else {}
    found, fresh = {}, False
    for name, path in paths_of(source).items():
        state = path.stat()
        key = f"{path.resolve()}|{state.st_size}|{state.st_mtime_ns}|{state.st_ctime_ns}|{state.st_ino}"
        if key not in known:
            known[key], fresh = _digest(path), True
        found[name] = known[key]
    if fresh:
        write_json(note, known)
    return digest_of(found)


def _digest(path: Path) -> str:
    try:
        return digest_of_file(path)
    except OSError:
        return "unreadable"


def paths_of(source: SourceConfig) -> dict[str, Path]:
    """Name inside the source → path, sorted.  Hidden files are left out; everything else is listed, readable or not."""
    assert source.files is not None
    asked = Path(source.files).expanduser()
    if asked.is_file():
        return {_printable(asked.name): asked}
    if asked.is_dir():
        root, found = asked, sorted(asked.rglob("*"))
    elif glob.has_magic(str(asked)):
        root = Path(_fixed_part(str(asked)))
        found = sorted(root.glob(asked.relative_to(root).as_posix()))
    else:
        raise UsageError(f"There is no file {source.files}", f"The path starts at {Path.cwd()}; give one that exists")
    names = {_printable(path.relative_to(root).as_posix()): path for path in found if path.is_file()}
    shown = {name: path for name, path in names.items() if not any(part.startswith(".") for part in name.split("/"))}
    if not shown:
        raise WuxingError(f"{source.files} holds no file", "Give a directory or a pattern with files in it")
    return shown


def _printable(name: str) -> str:
    """A file's name as UTF-8 text, whatever bytes it is made of."""
    return os.fsencode(name).decode("utf-8", errors="backslashreplace")


def _fixed_part(pattern: str) -> str:
    parts = pattern.split("/")
    first = next(number for number, part in enumerate(parts) if glob.has_magic(part))
    return "/".join(parts[:first]) or ("/" if pattern.startswith("/") else ".")
