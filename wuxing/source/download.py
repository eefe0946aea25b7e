"""Bytes from elsewhere into the cache: resumed after a break, checked, tried again; one process at a time per file.

A finished download lies beside a note with its length and SHA-256.  What a broken-off one left is gone on with
when the server still has the same content (ETag or date, and length), and thrown away otherwise.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol, TypeVar

from wuxing.core.digest import digest_of, digest_of_file
from wuxing.core.error import WuxingError
from wuxing.core.file import read_json, write_json
from wuxing.source.secret import shown

T = TypeVar("T")
ATTEMPTS = 5
"""Tries in a row that bring nothing new before a download is given up."""
FIRST_PAUSE_SECONDS = 0.2
LONGEST_PAUSE_SECONDS = 20.0


class Passing(Exception):
    """Something that may be gone the next time: a broken connection, a busy server."""

    def __init__(self, why: str, pause_seconds: float | None = None):
        super().__init__(why)
        self.pause_seconds = pause_seconds


class Changed(Exception):
    """The server has other content than when it was listed, or cannot send from the middle."""


@dataclass(frozen=True)
class Known:
    """What a server says of a file before it sends it."""

    bytes: int | None
    """Its length; None when the server does not say."""
    tag: str
    """ETag, date or version: other content has another one; empty when the server says none."""

    @property
    def identity(self) -> str:
        """Of the content; empty when only its bytes can tell."""
        return f"{self.tag}|{self.bytes}" if self.tag else ""


class Transfer(Protocol):
    """How bytes come from one kind of server.  Picklable."""

    @property
    def url(self) -> str:
        """Where the file is, its secrets not filled in."""
        ...

    def at(self, url: str) -> Transfer:
        """Another file behind the same kind of server."""
        ...

    def known(self) -> Known:
        """What the server says of the file now.  Raises Passing, or WuxingError when it will never be there."""
        ...

    def read(self, start: int, known: Known) -> Iterator[bytes]:
        """The bytes from `start` on.  Raises Passing, Changed or WuxingError."""
        ...


def fetched(transfer: Transfer, known: Known, cache: Path) -> Path:
    """The file in the cache.  WuxingError when it cannot be had; what was downloaded stays for the next try."""
    spot = cache / "remote" / digest_of([transfer.url, known.identity])[:32]
    spot.mkdir(parents=True, exist_ok=True)
    with open(spot / "lock", "wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        whole = spot / "content"
        if known.identity and _kept(whole):
            return whole
        part = spot / "part"
        digest = persistent(lambda: _attempt(transfer, known, part), transfer.url, lambda: _size(part))
        os.replace(part, whole)
        state = whole.stat()
        note = {"bytes": state.st_size, "sha256": digest, "modified": state.st_mtime_ns, "from": shown(transfer.url)}
        write_json(spot / "note.json", note)
        return whole


def _kept(whole: Path) -> bool:
    """Whether a finished download is there and as it was: by its state, or when that changed by its digest."""
    note = whole.parent / "note.json"
    if not whole.is_file() or not note.is_file():
        return False
    said, state = read_json(note), whole.stat()
    if state.st_size != said["bytes"]:
        return False
    return bool(state.st_mtime_ns == said["modified"] or digest_of_file(whole) == said["sha256"])


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _attempt(transfer: Transfer, known: Known, part: Path) -> str:
    """Go on with a download until its end; returns the content's SHA-256."""
    start = _size(part) if known.identity else 0
    if known.bytes is not None and start > known.bytes:
        start = 0
    with open(part, "r+b" if start else "wb") as file:
        digest = hashlib.sha256()
        if start:
            _add(file, digest, start)
        try:
            if known.bytes is None or start < known.bytes or not start:
                for block in transfer.read(start, known):
                    file.write(block)
                    digest.update(block)
        except Changed as error:
            file.truncate(0)
            raise Passing(str(error)) from error
        finally:
            file.flush()
            os.fsync(file.fileno())
        length = file.tell()
    if known.bytes is not None and length != known.bytes:
        if length > known.bytes:
            part.unlink()
        raise Passing(f"{length} bytes came, {known.bytes} were announced")
    return digest.hexdigest()


def _add(file: IO[bytes], digest: hashlib._Hash, count: int) -> None:
    """Digest what is there already, and stand behind it."""
    while count > 0:
        block = file.read(min(count, 1 << 20))
        digest.update(block)
        count -= len(block)


def persistent(act: Callable[[], T], url: str, reached: Callable[[], int] = lambda: 0, attempts: int = ATTEMPTS) -> T:
    """Do something with a server, again after a growing pause when it fails in passing.

    Tries that bring something new (`reached` grows) do not count.  Raises WuxingError at the end.
    """
    failed, best = 0, reached()
    while True:
        try:
            return act()
        except Passing as error:
            failed = 1 if reached() > best else failed + 1
            best = max(best, reached())
            if failed >= attempts:
                raise WuxingError(
                    f"{shown(url)} cannot be read: {shown(str(error))}",
                    "Try again: what was downloaded stays, and is gone on with",
                ) from error
            pause = FIRST_PAUSE_SECONDS * 4 ** (failed - 1) if error.pause_seconds is None else error.pause_seconds
            time.sleep(min(pause, LONGEST_PAUSE_SECONDS))
