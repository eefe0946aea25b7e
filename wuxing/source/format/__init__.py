"""File formats: one function each, `(stream, source) -> rows`.  What is broken becomes a row with a reason.

To add one: a function in a module here, its line in `FORMATS`, its suffixes in `SUFFIXES`, its first bytes in
`detect.MAGIC` where it has some.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib import import_module
from typing import Any, BinaryIO

from wuxing.core.error import WuxingError
from wuxing.core.record import Drop
from wuxing.source.blob import FileBlob, MemoryBlob, RefusedBlob, ZipBlob
from wuxing.source.config import SourceConfig
from wuxing.source.format.archive import BROKEN, Member, members
from wuxing.source.format.columnar import read_row_groups
from wuxing.source.format.cut import stretch
from wuxing.source.format.detect import format_by_content, format_of_zip
from wuxing.source.row import Blob, Part, Row, Value, short
from wuxing.source.stream import (
    HEAD_BYTES,
    PIECE_BYTES,
    UNREADABLE,
    Budget,
    TooLarge,
    UnpackLimit,
    head_of,
    unpacked,
    unpacked_head,
    whole,
)

FORMATS = {
    "text": "wuxing.source.format.text:read_text",
    "markdown": "wuxing.source.format.text:read_markdown",
    "jsonl": "wuxing.source.format.lines:read_jsonl",
    "json": "wuxing.source.format.tree:read_json",
    "yaml": "wuxing.source.format.tree:read_yaml",
    "csv": "wuxing.source.format.separated:read_csv",
    "tsv": "wuxing.source.format.separated:read_tsv",
    "parquet": "wuxing.source.format.columnar:read_parquet",
    "arrow": "wuxing.source.format.columnar:read_arrow",
    "html": "wuxing.source.format.html:read_html",
    "warc": "wuxing.source.format.warc:read_warc",
    "pdf": "wuxing.source.format.pdf:read_pdf",
    "docx": "wuxing.source.format.office:read_docx",
    "odt": "wuxing.source.format.office:read_odt",
    "epub": "wuxing.source.format.office:read_epub",
    "mail": "wuxing.source.format.mail:read_mail",
    "mbox": "wuxing.source.format.mail:read_mbox",
    "image": "wuxing.source.format.image:read_image",
    "audio": "wuxing.source.format.audio:read_audio",
}
ARCHIVES = ("zip", "tar")
"""Containers of files, each of which is read in its own format."""
SUFFIXES = {
    ".txt": "text",
    ".text": "text",
    ".rst": "text",
    ".md": "markdown",
    ".markdown": "markdown",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
    ".ipc": "arrow",
    ".yaml": "yaml",
    ".yml": "yaml",
    **dict.fromkeys((".html", ".htm", ".xhtml"), "html"),
    ".warc": "warc",
    ".wet": "warc",
    ".pdf": "pdf",
    ".docx": "docx",
    ".odt": "odt",
    ".epub": "epub",
    ".eml": "mail",
    ".mbox": "mbox",
    ".zip": "zip",
    **dict.fromkeys((".tar", ".tgz", ".tbz2", ".txz"), "tar"),
    **dict.fromkeys((".png", ".jpg", ".jpeg", ".gif", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm"), "image"),
    **dict.fromkeys((".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".au"), "audio"),
}
PACKED_SUFFIXES = (".gz", ".zst", ".bz2", ".xz")
_NEVER_EMPTY = ("image", "audio")
"""Their readers say themselves what an empty file is."""

Reader = Callable[[BinaryIO, SourceConfig], Iterator[Value]]


def format_of(name: str) -> str | None:
    """The format that a file's name says, whatever it is packed with; None when it says none."""
    plain = name.lower()
    for suffix in PACKED_SUFFIXES:
        plain = plain.removesuffix(suffix)
    return next((kind for suffix, kind in SUFFIXES.items() if plain.endswith(suffix)), None)


def parts_of(blobs: Sequence[Blob], source: SourceConfig) -> list[Part]:
    """The files of a source as parts, each with its format: by its first bytes where they are near, and its name."""
    return [Part(blob, _format(blob, source)) for blob in blobs]


def formats_of(parts: Iterable[Part]) -> dict[str, int]:
    """Format → number of files, for the card."""
    return dict(Counter(part.format or "unknown" for part in parts if not isinstance(part.blob, RefusedBlob)))


def _format(blob: Blob, source: SourceConfig) -> str:
    if source.format != "auto" or isinstance(blob, RefusedBlob):
        return source.format if source.format != "auto" else ""
    said = format_of(blob.name)
    if not isinstance(blob, FileBlob | ZipBlob | MemoryBlob):
        return said or ""  # its bytes are far away: they are looked at when it is read
    try:
        with blob.open() as stream:
            return _detected(stream, said)
    except (*UNREADABLE, *BROKEN):
        return said or ""  # its rows will say what is wrong


def _detected(stream: BinaryIO, said: str | None) -> str:
    """The format of a file from its beginning; the stream is used up."""
    packing, head = unpacked_head(stream.read(HEAD_BYTES))
    found = format_by_content(head, said) or said or ""
    if found == "zip" and packing is None and stream.seekable():
        stream.seek(0)
        return format_of_zip(stream)
    return found


def read_part(part: Part, source: SourceConfig) -> Iterator[Row]:
    """The rows of one stretch in order.  A file that cannot be read is one row with the reason."""
    blob: Blob = part.blob
    if isinstance(blob, RefusedBlob):
        yield Row(blob.name, blob.reason)
        return
    file = _File(blob.name, source, Budget(blob.bytes, source.limits))
    try:
        stream = blob.open()
    except WuxingError:
        raise  # a server that cannot be reached says nothing about its file
    except (*UNREADABLE, *BROKEN) as error:
        yield file.broken(error)
        return
    with stream:
        yield from file.rows(stream, part)


class _File:
    """One file, or member of an archive, while it is read."""

    def __init__(self, name: str, source: SourceConfig, budget: Budget, member: bool = False):
        self.name, self.source, self.budget, self.member = name, source, budget, member
        self.number = -1
        self.dropped = False
        """Whether the last row says that something is wrong."""

    def broken(self, error: BaseException) -> Row:
        """The row that stands for all that could not be read."""
        reasons = ((UnpackLimit, "unpack_limit"), (FileNotFoundError, "vanished"), (PermissionError, "no_permission"))
        reason = next((name for kind, name in reasons if isinstance(error, kind)), "broken_file")
        return Row(f"{self.name}#{self.number + 1}", Drop(reason, short(error)))

    def rows(self, stream: BinaryIO, part: Part) -> Iterator[Row]:
        """The rows of the stream, whatever it is packed with; what breaks it is the last of them."""
        try:
            kind = part.format or self._detect(stream) if not part.start else part.format
            packing = None
            if kind != "warc":  # which is unpacked record by record
                packing, stream = unpacked(stream, self.budget)
            head = b"?" if part.start or part.stop is not None else b""
            if not head:
                head, stream = head_of(stream, 512)
                kind = kind or format_by_content(head, None) or ""
            if kind == "zip" and not stream.seekable():  # it was packed again, or lies in an archive: look into it
                stream = io.BytesIO(whole(stream, self.source.limits))
                kind = format_of_zip(stream)
                stream.seek(0)
            if not head and kind not in _NEVER_EMPTY:
                yield Row(f"{self.name}#0", Drop("empty_file", "0 bytes"))
            elif self._is_archive(head, kind):
                yield from self._members(stream, "tar" if kind == "tar" or head[257:262] == b"ustar" else "zip")
            elif kind not in FORMATS:
                yield Row(self.name, Drop("unknown_format", "neither its name nor its first bytes say one; set format"))
            else:
                yield from self._values(self._read(stream, kind, part), part.first_row)
                while packing and not self.dropped and stream.read(PIECE_BYTES):
                    pass  # to its end, which says whether the file was whole
        except TooLarge as error:
            yield Row(f"{self.name}#0", Drop("too_large", short(error)))
        except (*UNREADABLE, *BROKEN) as error:
            yield self.broken(error)

    def _detect(self, stream: BinaryIO) -> str:
        if not stream.seekable():
            return format_of(self.name) or ""
        found = _detected(stream, format_of(self.name))
        stream.seek(0)
        return found

    def _is_archive(self, head: bytes, kind: str) -> bool:
        """Also where the recipe's `format` is that of the files inside."""
        stated = self.source.format not in ("auto", "docx", "odt", "epub", "image", "audio")
        return kind in ARCHIVES or (stated and (head[:4] == b"PK\x03\x04" or head[257:262] == b"ustar"))

    def _read(self, stream: BinaryIO, kind: str, part: Part) -> Iterator[Value]:
        if kind == "parquet" and part.stop is not None:
            return read_row_groups(stream, part.start, part.stop, self.source)
        module, _, function = FORMATS[kind].partition(":")
        read: Reader = getattr(import_module(module), function)
        return read(stretch(stream, part.start, part.stop), self.source)

    def _values(self, values: Iterator[Value], first_row: int) -> Iterator[Row]:
        self.number = first_row - 1
        for number, value in values:
            self.number = number + first_row
            self.dropped = isinstance(value, Drop)
            shown: Any = value if isinstance(value, dict | Drop) else {"value": value}
            yield Row(f"{self.name}#{self.number}", shown)

    def _members(self, stream: BinaryIO, kind: str) -> Iterator[Row]:
        if self.member:
            yield Row(self.name, Drop("nested_archive", "an archive inside an archive; unpack the outer one"))
            return
        for found in members(stream, kind, self.source, self.budget):
            if isinstance(found, Member):
                yield from self._member(found)
            else:
                name, reason = found
                yield Row(f"{self.name}/{name}", reason)

    def _member(self, found: Member) -> Iterator[Row]:
        file = _File(f"{self.name}/{found.name}", self.source, self.budget, member=True)
        stated = self.source.format if self.source.format not in ("auto", *ARCHIVES) else None
        try:
            head, stream = head_of(found.open())
        except (*UNREADABLE, *BROKEN) as error:
            yield file.broken(error)
            return
        _, plain = unpacked_head(head)
        said = format_of(found.name)
        kind = stated or format_by_content(plain, said) or said or ""
        yield from file.rows(stream, Part(MemoryBlob(found.name, b""), kind))
