"""Writing so that a reader, or a crash, never meets half a file."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

from wuxing.core.error import WuxingError

_TEMPORARY = ".wuxing-tmp"


def sync(path: Path) -> None:
    """Make a file's bytes, or the names inside a directory, survive a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def temporary(path: Path) -> Path:
    """A name beside `path` for something of this process that must not outlive it; see `remove_temporaries`."""
    return path.with_name(f".{path.name}.{os.getpid()}{_TEMPORARY}")


def write_bytes(path: Path, content: bytes) -> None:
    """Write `path` whole or not at all: temporary name, fsync, `os.replace`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = temporary(path)
    try:
        with open(draft, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)
    sync(path.parent)


def write_text(path: Path, content: str) -> None:
    """Write UTF-8 text whole or not at all."""
    write_bytes(path, content.encode())


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file that a person can read, whole or not at all."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


def append_line(path: Path, value: Any, sync: bool = False) -> None:
    """Append one JSON line in one `write`, so that writers never mix lines; a full disk leaves no half line.

    `sync`: also survive a power cut, for lines that are decisions.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    line = (json.dumps(value, ensure_ascii=False, allow_nan=False) + "\n").encode()
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        written = os.write(handle, line)
        if written < len(line):
            os.ftruncate(handle, os.lseek(handle, 0, os.SEEK_END) - written)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        if sync:
            os.fsync(handle)
    finally:
        os.close(handle)


def remove_temporaries(directory: Path) -> None:
    """Remove what a process killed inside `write_bytes` left.  Only for a directory that no living process writes."""
    for path in directory.rglob(f".*{_TEMPORARY}"):
        path.unlink()


def read_lines(path: Path) -> list[Any]:
    """Read a JSON-lines log.  A last line that a crash cut short is left out; any other broken line is an error."""
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")
    whole, tail = lines[:-1], lines[-1]
    values = [_value(path, number, line) for number, line in enumerate(whole, 1) if line]
    if tail:
        try:
            values.append(json.loads(tail))
        except ValueError:
            return values
    return values


def _value(path: Path, number: int, line: bytes) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        raise WuxingError(f"line {number} of {path} is broken", "Restore the file, or take that line out") from None
