"""Tar archives with random access: a packed one is unpacked once beside itself, and its members are found by offset.

Opening each of n members of a `.tar.gz` on its own would unpack the archive n times.
"""

from __future__ import annotations

import io
import os
import shutil
import tarfile
import tempfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

from wuxing.core.file import sync

_TAR_AT = 257
"""Where a tar archive that is not packed says `ustar`."""


@dataclass(frozen=True)
class Tape:
    """A tar archive that is not packed, and where each member lies in it."""

    path: Path
    members: dict[str, tuple[int, int]]

    def open(self, member: str) -> BinaryIO:
        """A member's content.  KeyError when there is none."""
        start, size = self.members[member]
        with open(self.path, "rb") as file:
            file.seek(start)
            content = file.read(size)
        if len(content) != size:
            raise EOFError(f"{self.path.name} ends inside {member}")
        return io.BytesIO(content)


def tape(archive: Path) -> Tape:
    """The archive as it is now."""
    state = archive.stat()
    return _tape(archive, state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=8)
def _tape(archive: Path, size: int, modified: int) -> Tape:
    path = archive if _plain(archive) else _unpacked(archive, size, modified)
    with tarfile.open(path, "r:") as file:
        return Tape(path, {entry.name: (entry.offset_data, entry.size) for entry in file if entry.isfile()})


def _plain(archive: Path) -> bool:
    with open(archive, "rb") as file:
        file.seek(_TAR_AT)
        return file.read(5) == b"ustar"


def _unpacked(archive: Path, size: int, modified: int) -> Path:
    """The unpacked copy beside the archive, made whole or not at all; elsewhere where that directory is barred."""
    room = archive.parent if os.access(archive.parent, os.W_OK) else Path(tempfile.gettempdir())
    target = room / f".{archive.name}.{size:x}-{modified:x}.tar"
    if target.is_file():
        return target
    draft = target.with_suffix(f".{os.getpid()}.part")
    try:
        with tarfile.open(archive) as file, open(draft, "wb") as out:
            assert file.fileobj is not None
            file.fileobj.seek(0)
            stream: Any = file.fileobj
            shutil.copyfileobj(stream, out, 1 << 20)
            out.flush()
            os.fsync(out.fileno())
        os.replace(draft, target)
    finally:
        draft.unlink(missing_ok=True)
    sync(room)
    return target
