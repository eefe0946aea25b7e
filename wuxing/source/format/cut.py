"""Big files cut into stretches that any worker reads alone, with the same rows as the whole file gives.

Where the cuts fall depends on the content only: at the first line start behind each multiple of `STRETCH_BYTES`, or
between row groups.  What is appended to a file of lines leaves the stretches before as they were, so only the last one
is read again.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from dataclasses import replace
from typing import BinaryIO

from wuxing.source.config import SourceConfig
from wuxing.source.row import Part

STRETCH_BYTES = 8 << 20
READ_BYTES = 1 << 20
_NOT_PLAIN = (b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"BZh", b"\xfd7zXZ", b"\xff\xfe", b"\xfe\xff", b"\x04\x22\x4d\x18")
"""How compressed files and UTF-16 begin: a line end in them is not the byte 10."""


def cut(part: Part, source: SourceConfig, size: int = STRETCH_BYTES) -> list[Part]:
    """The stretches of a whole file of this machine; the part itself where it is small or has no safe places to cut.

    Reads lines to the end, so that rows keep the numbers they have in the whole file.  Raises OSError.
    """
    if part.start or part.stop is not None or getattr(part.blob, "path", None) is None or part.blob.bytes <= size:
        return [part]
    if part.format == "parquet":
        return _row_groups(part, size)
    lines = part.format == "jsonl" or (part.format == "text" and source.per == "line")
    if not lines or source.encoding not in ("auto", "utf-8", "ascii"):
        return [part]
    with part.blob.open() as stream:
        if stream.read(6).startswith(_NOT_PLAIN):
            return [part]
        stream.seek(0)
        found: list[Part] = []
        start = row = 0
        for block in _blocks(stream, size, source.limits.line_bytes):
            if block is None:
                return [part]
            rows = block.count(b"\n") if part.format == "jsonl" else _texts(block)
            if rows is None:
                return [part]
            digest = hashlib.sha256(block).hexdigest()
            found.append(replace(part, start=start, stop=start + len(block), first_row=row, digest=digest))
            start, row = start + len(block), row + rows
    return found


def _blocks(stream: BinaryIO, size: int, limit: int) -> Iterator[bytes | None]:
    """The stretches' bytes: each ends with the first line end behind the next multiple of `size`.

    None where that is farther than `limit`: such a line is never held whole.
    """
    at = 0
    while True:
        block = stream.read(size - at % size)
        if not block:
            return
        pieces, beyond = [block], 0
        while not pieces[-1].endswith(b"\n") and (more := stream.readline(READ_BYTES)):
            pieces.append(more)
            beyond += len(more)
            if beyond > limit:
                yield None
                return
        whole = b"".join(pieces)
        at += len(whole)
        yield whole


def _texts(block: bytes) -> int | None:
    """How many lines that are not blank a reader of texts finds; None where it would not read them as UTF-8."""
    if b"\x00" in block:
        return None
    try:
        text = block.decode("utf-8-sig")
    except UnicodeDecodeError:
        return None
    return sum(1 for line in text.replace("\r\n", "\n").replace("\r", "\n").split("\n") if line.strip())


def _row_groups(part: Part, size: int) -> list[Part]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with part.blob.open() as stream:
            about = pq.ParquetFile(stream).metadata
    except (pa.ArrowException, ValueError):
        return [part]
    found: list[Part] = []
    start = row = rows = held = 0
    for group in range(about.num_row_groups):
        rows, held = rows + about.row_group(group).num_rows, held + about.row_group(group).total_byte_size
        if held >= size or group == about.num_row_groups - 1:
            found.append(replace(part, start=start, stop=group + 1, first_row=row))
            start, row, rows, held = group + 1, row + rows, 0, 0
    return found if len(found) > 1 else [part]


def stretch(stream: BinaryIO, start: int, stop: int | None) -> BinaryIO:
    """The bytes from `start` to `stop` of a file of lines, as a file of their own."""
    if not start and stop is None:
        return stream
    stream.seek(start)
    return io.BytesIO(stream.read() if stop is None else stream.read(stop - start))
