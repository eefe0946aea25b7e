"""Files in the places that need no library: a path, a member of a ZIP or tar archive, bytes at hand."""

from __future__ import annotations

import io
import os
import stat
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from wuxing.core.digest import digest_of, digest_of_file
from wuxing.core.record import Drop
from wuxing.source.tape import tape


@dataclass(frozen=True)
class FileBlob:
    """A file of this machine."""

    name: str
    path: Path
    bytes: int

    def open(self) -> BinaryIO:
        """The file.  Raises OSError also when its path has become a pipe or a device: reading one may never end."""
        number = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        if not stat.S_ISREG(os.fstat(number).st_mode):
            os.close(number)
            raise OSError(f"{self.name} is no regular file any more")
        return open(number, "rb")

    def digest(self) -> str:
        """SHA-256 of the content; `unreadable` when it cannot be read, which its rows will say with the reason."""
        try:
            return digest_of_file(self.path)
        except OSError:
            return "unreadable"


@dataclass(frozen=True)
class RefusedBlob:
    """What was found but is never opened (a pipe, a device, a link in a circle): it is one row with the reason."""

    name: str
    reason: Drop
    bytes: int = 0

    def open(self) -> BinaryIO:
        """Raises OSError."""
        raise OSError(self.reason.detail)

    def digest(self) -> str:
        """The reason."""
        return digest_of(["refused", self.reason.reason, self.reason.detail])


@dataclass(frozen=True)
class ZipBlob:
    """A member of a ZIP archive."""

    name: str
    archive: Path
    member: str
    bytes: int
    crc: int

    def open(self) -> BinaryIO:
        """The member, unpacked while it is read."""
        return zipfile.ZipFile(self.archive).open(self.member)  # type: ignore[return-value]

    def digest(self) -> str:
        """The archive's own checksum and size."""
        return digest_of(["zip", self.member, self.bytes, self.crc])


@dataclass(frozen=True)
class TarBlob:
    """A member of a tar archive."""

    name: str
    archive: Path
    member: str
    bytes: int

    def open(self) -> BinaryIO:
        """The member, read whole."""
        return tape(self.archive).open(self.member)

    def digest(self) -> str:
        """SHA-256 of the content."""
        with self.open() as stream:
            return digest_of_stream(stream)


@dataclass(frozen=True)
class MemoryBlob:
    """Bytes at hand."""

    name: str
    content: bytes

    @property
    def bytes(self) -> int:
        """Their number."""
        return len(self.content)

    def open(self) -> BinaryIO:
        """The bytes."""
        return io.BytesIO(self.content)

    def digest(self) -> str:
        """SHA-256 of the content."""
        return digest_of_stream(self.open())


def digest_of_stream(stream: BinaryIO) -> str:
    """SHA-256 of what is left of a stream."""
    import hashlib

    return hashlib.file_digest(stream, "sha256").hexdigest()  # type: ignore[arg-type]
