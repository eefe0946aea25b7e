"""ZIP and tar as containers of files: each member is read like a file of its own.  Nothing is written to disk."""

from __future__ import annotations

import tarfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

from wuxing.core.record import Drop
from wuxing.source.config import SourceConfig
from wuxing.source.row import numbered, short
from wuxing.source.stream import Budget, Counted

BROKEN = (zipfile.BadZipFile, tarfile.TarError, RuntimeError, NotImplementedError, ValueError, UnicodeError, IndexError)
"""What the archives' own libraries raise, besides what any file may raise."""


@dataclass
class Member:
    """A file inside an archive that is being read: open while its turn lasts."""

    name: str
    bytes: int
    stream: Any

    def open(self) -> BinaryIO:
        """Its content, once."""
        return cast(BinaryIO, self.stream)


def members(stream: BinaryIO, kind: str, source: SourceConfig, budget: Budget) -> Iterator[Member | tuple[str, Drop]]:
    """The files of an archive in its own order, hidden ones aside; what cannot be read as its name and the reason."""
    seen: Counter[str] = Counter()
    found = _of_zip(stream, budget) if kind == "zip" else _of_tar(stream)
    count = 0
    for name, member in found:
        if _hidden(name):
            continue
        count += 1
        if count > source.limits.members:
            yield "", Drop("too_many_members", f"more than {source.limits.members} files (limits.members)")
            return
        seen[name] += 1
        shown = numbered(name, seen[name])  # ids must differ
        yield (shown, member) if isinstance(member, Drop) else Member(shown, member.bytes, member.stream)


def _hidden(name: str) -> bool:
    return any(part.startswith(".") and part not in (".", "..") for part in name.split("/")) or name.startswith(
        "__MACOSX/"
    )


def _printable(name: str) -> str:
    clean = name.encode("utf-8", errors="surrogateescape").decode("utf-8", errors="backslashreplace")
    return clean.removeprefix("./").replace("\0", "\\0")


def _of_zip(stream: BinaryIO, budget: Budget) -> Iterator[tuple[str, Member | Drop]]:
    with zipfile.ZipFile(stream) as archive:
        for entry in archive.infolist():
            if entry.is_dir():
                continue
            name = _printable(entry.filename)
            if entry.flag_bits & 1:
                yield name, Drop("encrypted", "a member with a password")
                continue
            if (entry.external_attr >> 28) not in (0, 8):  # the Unix file type: links and devices are no files
                yield name, Drop("no_regular_file", "a link or a device")
                continue
            if budget.left <= 0:
                yield name, Drop("unpack_limit", "the archive has unpacked to its limit before")
                continue
            try:
                with archive.open(entry) as member:
                    yield name, Member(name, entry.file_size, Counted(member, budget))
            except (*BROKEN, OSError, EOFError, zlib.error) as error:
                yield name, Drop("broken_file", short(error))


def _of_tar(stream: BinaryIO) -> Iterator[tuple[str, Member | Drop]]:
    """A compressed archive was unpacked and counted on the way here; this reads on, and never goes back."""
    with tarfile.open(fileobj=stream, mode="r|", errors="surrogateescape") as archive:
        for entry in archive:
            name = _printable(entry.name)
            if entry.isdir():
                continue
            if not entry.isfile() or entry.issparse():
                yield name, Drop("no_regular_file", "a link, a device or a file with holes")
                continue
            file = archive.extractfile(entry)
            assert file is not None
            yield name, Member(name, entry.size, _Forward(file, entry.size))
    while stream.read(1 << 16):  # to its end, where what packs the archive says whether it was whole
        pass


class _Forward:
    """A tar member: never seekable, because what lies behind is gone; an early end is said."""

    def __init__(self, stream: Any, size: int):
        self._stream, self._left = stream, size

    def seekable(self) -> bool:
        return False

    def readable(self) -> bool:
        return True

    def read(self, count: int = -1) -> bytes:
        data: bytes = self._stream.read(count)
        self._left -= len(data)
        if not data and count and self._left > 0:
            raise EOFError(f"the archive ends {self._left} bytes before its member does")
        return data

    def close(self) -> None:
        self._stream.close()

    def __enter__(self) -> _Forward:
        return self

    def __exit__(self, *ended: object) -> None:
        self.close()
