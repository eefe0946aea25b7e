"""Between a blob and its format: unpacking with bounds, lines with bounds, text in blocks.  Constant memory.

Packed files are recognised by their first bytes, never by their names: gzip, zstd, bzip2, xz.
"""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import lzma
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, AnyStr, BinaryIO, Generic, cast

from wuxing.core.record import Drop
from wuxing.source.encoding import MARKS, decode, detected_name
from wuxing.source.format_config import Limits
from wuxing.source.row import short

BLOCK_BYTES = 1 << 20
PIECE_BYTES = 1 << 16
HEAD_BYTES = 1 << 14
WRONG = "\udc80"
"""Stands in decoded blocks for a byte that is wrong in their encoding."""
UNREADABLE = (OSError, EOFError, zlib.error, lzma.LZMAError)
"""What reading a file may raise: not there, not allowed, cut short, damaged inside."""


class UnpackLimit(OSError):
    """A packed file that unpacks to more than its limits allow."""


class TooLarge(Exception):
    """A document that must be held whole and is larger than its limit."""


class Budget:
    """What may come out of one outer file, all its members together."""

    def __init__(self, packed_bytes: int, limits: Limits):
        self.left = max(limits.free_bytes, limits.unpack_ratio * packed_bytes)
        self.limits = limits

    def spend(self, count: int) -> None:
        """Count bytes that were unpacked.  Raises UnpackLimit."""
        self.left -= count
        if self.left < 0:
            many = f"{self.limits.unpack_ratio} times its size and more than {self.limits.free_bytes} bytes"
            raise UnpackLimit(f"it unpacks to more than {many}")


class Counted(io.RawIOBase):
    """What is unpacked, counted against a budget; ends of compressed data that are missing raise."""

    def __init__(self, stream: Any, budget: Budget):
        self._stream, self._budget = stream, budget
        # One piece at a time: what was unpacked before an error must not be lost with it.
        self._read = getattr(stream, "read1", stream.read)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._read(min(len(buffer), PIECE_BYTES))
        self._budget.spend(len(data))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._stream.close()
        super().close()


def _zstd(stream: BinaryIO) -> Any:
    import pyarrow as pa

    return pa.CompressedInputStream(pa.PythonFile(stream, mode="r"), "zstd")


PACKINGS: dict[str, tuple[bytes, Callable[[Any], Any]]] = {
    "gzip": (b"\x1f\x8b\x08", gzip.open),
    "zstd": (b"\x28\xb5\x2f\xfd", _zstd),
    "bzip2": (b"BZh", bz2.open),
    "xz": (b"\xfd7zXZ\x00", lzma.open),
}


def packing_of(head: bytes) -> str | None:
    """How a file that begins like this is packed."""
    found = next((name for name, (mark, _) in PACKINGS.items() if head.startswith(mark)), None)
    return None if found == "bzip2" and head[4:10] not in (b"1AY&SY", b"\x17rE8P\x90") else found


def head_of(stream: BinaryIO, count: int = HEAD_BYTES) -> tuple[bytes, BinaryIO]:
    """The first bytes, and a stream that still has them."""
    if stream.seekable():
        head = _full(stream, count)
        stream.seek(0)
        return head, stream
    head = _full(stream, count)
    return head, cast(BinaryIO, io.BufferedReader(_Rejoined(head, stream), BLOCK_BYTES))


def _full(stream: BinaryIO, count: int) -> bytes:
    found = stream.read(count)
    while found and len(found) < count and (more := stream.read(count - len(found))):
        found += more
    return found


class _Rejoined(io.RawIOBase):
    """A stream whose first bytes were taken already.  Its end does not close that stream, which is its opener's."""

    def __init__(self, head: bytes, stream: BinaryIO):
        self._head, self._stream = head, stream
        self._read = getattr(stream, "read1", stream.read)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._head:
            self._head = self._read(len(buffer))
        data, self._head = self._head[: len(buffer)], self._head[len(buffer) :]
        buffer[: len(data)] = data
        return len(data)


def unpacked(stream: BinaryIO, budget: Budget) -> tuple[str | None, BinaryIO]:
    """How a stream is packed, and its content."""
    head, stream = head_of(stream, 16)
    packing = packing_of(head)
    if packing is None:
        return None, stream
    return packing, cast(BinaryIO, io.BufferedReader(Counted(PACKINGS[packing][1](stream), budget), PIECE_BYTES))


def unpacked_head(head: bytes, count: int = HEAD_BYTES) -> tuple[str | None, bytes]:
    """How a file is packed, and its first bytes unpacked as far as its own first bytes tell them."""
    packing = packing_of(head)
    if packing is None:
        return None, head
    found = b""
    try:
        with PACKINGS[packing][1](io.BytesIO(head)) as stream:
            while len(found) < count and (more := stream.read(min(512, count - len(found)))):
                found += more
    except UNREADABLE:
        pass  # it was cut on purpose, so that it ends too early
    return packing, found


def whole(stream: BinaryIO, limits: Limits) -> bytes:
    """All that is left of a stream.  Raises TooLarge."""
    limit = limits.document_bytes
    pieces, size = [], 0
    while piece := stream.read(min(BLOCK_BYTES, limit + 1 - size)):
        pieces.append(piece)
        size += len(piece)
        if size > limit:
            raise TooLarge(f"more than {limit} bytes, and it must be held whole (limits.document_bytes)")
    return b"".join(pieces)


def blocks(stream: BinaryIO) -> Iterator[bytes]:
    """A stream in pieces, as they come: what can be read before an error is given before it."""
    read = getattr(stream, "read1", stream.read)
    while block := read(BLOCK_BYTES):
        yield block


class Lines(Generic[AnyStr]):
    """The lines of a text in blocks, with their ends; None for a line longer than `limit`, which is skipped."""

    def __init__(self, source: Iterable[AnyStr], newline: AnyStr, limit: int):
        self._source: Iterable[AnyStr] = source
        self._newline: AnyStr = newline
        self._limit = limit

    def __iter__(self) -> Iterator[AnyStr | None]:
        newline, limit = self._newline, self._limit
        empty = newline[:0]
        rest: list[AnyStr] = []
        size, skipping = 0, False
        for block in self._source:
            lines = block.split(newline)
            last = lines.pop()
            if lines:
                first = lines[0]
                if skipping:
                    yield None
                else:
                    rest.append(first + newline)
                    yield empty.join(rest) if size + len(first) <= limit else None
                rest, size, skipping = [], 0, False
                for line in lines[1:]:
                    yield line + newline if len(line) <= limit else None
            if last and not skipping:
                rest.append(last)
                size += len(last)
                if size > limit:
                    rest, skipping = [], True
        if skipping:
            yield None
        elif rest:
            yield empty.join(rest)


def _mark_wrong(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeDecodeError)
    return WRONG * (error.end - error.start), error.end


codecs.register_error("wuxing.mark", _mark_wrong)


class Decoder:
    """Bytes in blocks to text in blocks, in one encoding: a stated one, or the one that the first bytes show.

    As long as all is ASCII the question stays open.  What is wrong in the encoding stands as `WRONG`.
    """

    def __init__(self, encoding: str = "auto"):
        self.encoding: str | None = None if encoding == "auto" else encoding
        self._decoder: codecs.IncrementalDecoder | None = None
        self._started = False
        if self.encoding:
            self._choose(self.encoding)

    def _choose(self, name: str) -> None:
        self.encoding = name
        self._decoder = codecs.getincrementaldecoder(name)("wuxing.mark")

    def feed(self, block: bytes, final: bool = False) -> str:
        """The text of the next block."""
        if self._decoder is None:
            if not self._started:
                mark = next((name for mark, name in MARKS if block.startswith(mark)), None)
                if mark:
                    self._choose(mark)
            if self._decoder is None and not block.isascii():
                self._choose(self._guess(block))
            self._started = self._started or bool(block)
        return self._decoder.decode(block, final) if self._decoder else block.decode("ascii")

    @staticmethod
    def _guess(block: bytes) -> str:
        try:
            codecs.getincrementaldecoder("utf-8")().decode(block, False)
            return "utf-8"
        except UnicodeDecodeError:
            # A stray byte in UTF-8 must not turn the whole file into another encoding.
            bad = block.decode("utf-8", errors="replace").count("�")
            if bad * 20 < sum(1 for byte in block[:65536] if byte >= 0x80):
                return "utf-8"
        name = detected_name(block)
        return "utf-8" if isinstance(name, Drop) else name


def texts(stream: BinaryIO, encoding: str) -> Iterator[str]:
    """The text of a stream in blocks, with what is wrong in it as `WRONG`."""
    decoder = Decoder(encoding)
    for block in blocks(stream):
        if text := decoder.feed(block):
            yield text
    if text := decoder.feed(b"", final=True):
        yield text


def flaw_of(text: str) -> Drop | None:
    """Why decoded text is no text."""
    if WRONG in text:
        return Drop("wrong_encoding", f"wrong bytes at character {text.index(WRONG)}")
    return Drop("binary", "holds NUL bytes") if "\0" in text else None


def whole_text(stream: BinaryIO, encoding: str, limits: Limits) -> str | Drop:
    """All that is left of a stream as text, or why there is none."""
    try:
        return decode(whole(stream, limits), encoding)
    except TooLarge as error:
        return Drop("too_large", short(error))
