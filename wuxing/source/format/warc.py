"""WARC archives of crawls: the pages among their responses, with address and date.  A damaged record costs itself.

Records are cut out here, because a reader of the whole stream gives up (or panics) where it is damaged; FastWARC reads
what is inside each: HTTP headers, chunks, encodings.
"""

from __future__ import annotations

import io
import re
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO

from wuxing.core.record import Drop
from wuxing.source.config import SourceConfig
from wuxing.source.encoding import decode
from wuxing.source.format.html import page
from wuxing.source.row import Document, Value, short
from wuxing.source.stream import UNREADABLE, Budget, blocks, head_of, unpacked

PAGES = ("text/html", "application/xhtml+xml")
ROWS = (b"response", b"resource", b"conversion", b"revisit")
"""The types of records that are rows; requests, metadata and the like are not."""
LONGEST_HEADER_BYTES = 1 << 16
_GZIP = b"\x1f\x8b\x08"
_TYPE = re.compile(rb"^WARC-Type:[ \t]*([a-z]+)", re.IGNORECASE | re.MULTILINE)
_LENGTH = re.compile(rb"^Content-Length:[ \t]*(\d{1,15})[ \t]*\r?$", re.IGNORECASE | re.MULTILINE)
_START = re.compile(rb"WARC/1\.\d\r?\n")
_PIECE = 1 << 18


def read_warc(stream: BinaryIO, source: SourceConfig) -> Iterator[Value]:
    """The rows of a WARC file that may be packed; it is unpacked here, record by record."""
    head, stream = head_of(stream, 16)
    if head.startswith(_GZIP):
        pieces = _gzip_members(stream, source)
    else:
        pieces = _plainly(unpacked(stream, Budget(0, source.limits))[1])
    records = _Records(pieces, source.limits.document_bytes)
    for number, record in enumerate(records):
        yield number, record if isinstance(record, Drop) else _value(record, source)
    if not records.begun:
        yield 0, Drop("empty_file", "0 bytes")


def _plainly(stream: BinaryIO) -> Iterator[bytes | Drop]:
    try:
        yield from blocks(stream)
    except UNREADABLE as error:
        yield Drop("broken_file", short(error))


def _gzip_members(stream: BinaryIO, source: SourceConfig) -> Iterator[bytes | Drop]:
    """What the members hold, one after the other; a Drop stands where a damaged one was passed over."""
    unpacker = zlib.decompressobj(31)
    limits, read, given = source.limits, 0, 0
    raw = begin = b""
    fresh = True
    while True:
        if not raw:
            try:
                raw = stream.read(_PIECE)
            except UNREADABLE as error:
                yield Drop("broken_file", short(error))
                return
            begin = raw
            if not raw:
                if not fresh:
                    yield Drop("broken_file", "the file ends inside a packed record")
                return
            read += len(raw)
        try:
            out = unpacker.decompress(raw, _PIECE)
        except zlib.error as error:
            yield Drop("broken_record", short(error))
            raw = begin = _next_member(begin[1:])
            unpacker, fresh = zlib.decompressobj(31), True
            continue
        given += len(out)
        if given > max(limits.free_bytes, limits.unpack_ratio * read):
            yield Drop("unpack_limit", f"it unpacks to more than {limits.unpack_ratio} times its size")
            return
        if out:
            yield out
        fresh = unpacker.eof
        raw = unpacker.unused_data.lstrip(b"\0") if unpacker.eof else unpacker.unconsumed_tail
        if unpacker.eof:
            unpacker, begin = zlib.decompressobj(31), raw


def _next_member(raw: bytes) -> bytes:
    """From the next place at which a packed record seems to begin; empty when there is none in these bytes."""
    at = raw.find(_GZIP)
    while at >= 0:
        try:
            if zlib.decompressobj(31).decompress(raw[at:], 16).startswith(b"WARC/"):
                return raw[at:]
        except zlib.error:
            pass  # these bytes only look like a beginning
        at = raw.find(_GZIP, at + 1)
    return b""


class _Records:
    """The records of a stream of bytes: each whole, or the reason why one is not."""

    def __init__(self, pieces: Iterator[bytes | Drop], limit: int):
        self._pieces, self._limit = pieces, limit
        self._held = bytearray()
        self._gap: Drop | None = None
        self._ended = False
        self.begun = False
        """Whether there was anything."""

    def _more(self) -> bool:
        """Read on; False at the end, or at a gap, which then stands in `_gap`."""
        if self._ended or self._gap:
            return False
        piece = next(self._pieces, None)
        self.begun = self.begun or piece is not None
        if piece is None:
            self._ended = True
        elif isinstance(piece, Drop):
            self._gap = piece
        else:
            self._held += piece
            return True
        return False

    def __iter__(self) -> Iterator[bytes | Drop]:
        while True:
            while self._held[:1] in (b"\r", b"\n") or not self._held:
                stripped = self._held.lstrip(b"\r\n")
                self._held = bytearray(stripped)
                if not stripped and not self._more():
                    break
            if not self._held:
                if self._gap:
                    yield self._gap
                    self._gap = None
                    continue
                return
            found = self._record()
            if found is not None:
                yield found

    def _record(self) -> bytes | Drop | None:
        """The record that begins here; None for one that is no row."""
        end = self._header_end()
        head = bytes(self._held[:end]) if end else b""
        kind, length = _TYPE.search(head), _LENGTH.search(head)
        if not end or not _START.match(head) or kind is None or length is None:
            return self._resync("no header of a WARC record")
        size = end + int(length[1])
        row = kind[1].lower() in ROWS
        if not row or int(length[1]) > self._limit:
            whole = self._skip(size)
            if not whole:
                return self._cut()
            return Drop("too_large", f"more than {self._limit} bytes (limits.document_bytes)") if row else None
        while len(self._held) < size + 4 and self._more():
            pass
        if len(self._held) < size:
            return self._cut()
        if self._held[size : size + 1] not in (b"\r", b"\n", b"", b"W"):
            return self._resync("its length is wrong")
        record = bytes(self._held[:size])
        del self._held[:size]
        return record

    def _header_end(self) -> int:
        at = 0
        while True:
            found = re.compile(rb"\r?\n\r?\n").search(self._held, at)
            if found:
                return found.end()
            at = max(0, len(self._held) - 3)
            if len(self._held) > LONGEST_HEADER_BYTES or not self._more():
                return 0

    def _skip(self, size: int) -> bool:
        while size > len(self._held):
            size -= len(self._held)
            self._held.clear()
            if not self._more():
                return False
        del self._held[:size]
        return True

    def _cut(self) -> Drop:
        """The end, or a gap, inside a record."""
        reason = self._gap or Drop("broken_record", "the file ends inside it")
        self._gap = None
        self._held.clear()
        return reason

    def _junk(self, why: str) -> Drop:
        self._held.clear()
        return Drop("broken_record", why)

    def _resync(self, why: str) -> Drop:
        """Go to where the next record seems to begin."""
        at = 1
        while not (found := _START.search(self._held, at)):
            at = max(1, len(self._held) - 16)
            del self._held[1:at]
            at = 1
            if not self._more():
                return self._cut() if self._gap else self._junk(why)
        del self._held[: found.start()]
        return Drop("broken_record", why)


def _value(raw: bytes, source: SourceConfig) -> Document | Drop:
    from fastwarc.warc import ArchiveIterator

    try:
        record = next(iter(ArchiveIterator(io.BytesIO(raw + b"\r\n\r\n"), parse_http=True, auto_decode="all")), None)
        return Drop("broken_record", "its header cannot be read") if record is None else _document(record, source)
    except (*UNREADABLE, ValueError, RuntimeError) as error:
        return Drop("broken_record", short(error))


def _document(record: Any, source: SourceConfig) -> Document | Drop:
    headers, answer = record.headers, record.http_headers
    facts = {"url": headers.get("WARC-Target-URI") or "", "date": headers.get("WARC-Date") or ""}
    kind = str(record.record_type)
    at = f" {facts['url']}"[:200]
    if kind == "revisit":
        return Drop("revisit", f"the same as an earlier capture:{at}")
    if kind == "response" and answer is None:
        return Drop("no_http", f"no HTTP response:{at}")
    if answer is not None and answer.status_code not in (200, None):
        return Drop("http_status", f"{answer.status_code}{at}")
    content = record.reader.read(source.limits.document_bytes + 1)
    if len(content) > source.limits.document_bytes:
        return Drop("too_large", f"it unpacks to more than {source.limits.document_bytes} bytes")
    stated = record.http_content_type if answer is not None else headers.get("Content-Type")
    said = str(stated or "").partition(";")[0].strip().lower()
    if said in PAGES or (not said and b"<html" in content[:4096].lower()):
        made = page(content, source.encoding, source.html, source.limits, record.http_charset)
    elif said.startswith("text/"):
        text = decode(content, source.encoding)
        made = text if isinstance(text, Drop) else Document(text=text)
    else:
        return Drop("no_page", f"{said or 'no type'}{at}")
    return Document({**made, **{k: v for k, v in facts.items() if v}}) if isinstance(made, Document) else made
