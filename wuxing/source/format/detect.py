"""What a file is, by its first bytes and its name.  Bytes that can be nothing else win over the name."""

from __future__ import annotations

import json
import re
import zipfile
from typing import BinaryIO

from wuxing.source.stream import UNREADABLE

MAGIC: tuple[tuple[int, bytes, str], ...] = (
    (0, b"%PDF-", "pdf"),
    (0, b"PAR1", "parquet"),
    (0, b"ARROW1\x00\x00", "arrow"),
    (0, b"WARC/1.", "warc"),
    (257, b"ustar", "tar"),
    (0, b"PK\x03\x04", "zip"),
    (0, b"PK\x05\x06", "zip"),
    (0, b"\x89PNG\r\n\x1a\n", "image"),
    (0, b"\xff\xd8\xff", "image"),
    (0, b"GIF87a", "image"),
    (0, b"GIF89a", "image"),
    (8, b"WEBP", "image"),
    (0, b"II*\x00", "image"),
    (0, b"MM\x00*", "image"),
    (8, b"WAVE", "audio"),
    (0, b"fLaC", "audio"),
    (0, b"OggS", "audio"),
    (0, b"ID3\x02", "audio"),
    (0, b"ID3\x03", "audio"),
    (0, b"ID3\x04", "audio"),
)
TEXTS = ("text", "markdown", "jsonl", "json", "yaml", "csv", "tsv", "html", "mail", "mbox")
"""Formats whose files begin with no fixed bytes."""
OFFICE = {b"application/epub+zip": "epub", b"application/vnd.oasis.opendocument.text": "odt"}
HTML_START = re.compile(rb"\s*(?:<\?xml[^>]*>\s*)?(?:<!--.{0,2000}?-->\s*)*<(?:!doctype\s+html|html)\b", re.I | re.S)
_HEADER = re.compile(
    rb"^(From|To|Subject|Date|Received|Message-ID|Return-Path|MIME-Version|Delivered-To):", re.I | re.M
)
_MAIL_START = re.compile(rb"(From [^\r\n]+\r?\n)?(?:X-|[A-Za-z])[A-Za-z0-9-]*:[ \t]")
HEADERS_OF_A_MAIL = 4


def format_by_content(head: bytes, name_says: str | None) -> str | None:
    """What the first bytes say against or in place of the name; None where they leave it to the name."""
    if head[4:8] == b"ftyp":
        return None
    for at, mark, kind in MAGIC:
        if head.startswith(mark, at) and (at != 8 or head.startswith(b"RIFF")):
            return kind
    if head[:4] == b"\xff\xff\xff\xff" and head[7:8] == b"\x00":
        return "arrow"
    if name_says not in (None, "text", "json", "mail"):
        return None
    return _by_text(head, name_says)


def _by_text(head: bytes, name_says: str | None) -> str | None:
    if name_says in (None, "text", "json") and _json_lines(head):
        return "jsonl"
    if name_says == "json":
        return None
    if HTML_START.match(head):
        return "html"
    if is_mail(head):
        return "mbox" if head.startswith(b"From ") and name_says is None else "mail"
    if name_says is None and head[:1] in (b"[", b"{") and b"\0" not in head and re.match(rb'[\[{]\s*["\[{\]}]', head):
        return "json"
    return None


def _json_lines(head: bytes) -> bool:
    """Whether the first two lines are JSON objects, each on its own."""
    if not head.lstrip().startswith(b"{"):
        return False
    lines = [line for line in head.split(b"\n")[:-1] if line.strip()]
    if len(lines) < 2:
        return False
    try:
        return all(isinstance(json.loads(line), dict) for line in lines[:2])
    except (ValueError, RecursionError):
        return False


def is_mail(head: bytes) -> bool:
    """Whether a text begins with the headers of a mail."""
    if not _MAIL_START.match(head):
        return False
    headers = re.split(rb"\r?\n\r?\n", head, maxsplit=1)[0]
    return len({name.lower() for name in _HEADER.findall(headers)}) >= HEADERS_OF_A_MAIL


def format_of_zip(stream: BinaryIO) -> str:
    """What a ZIP is a container of: a document of its own kind, or files."""
    try:
        with zipfile.ZipFile(stream) as archive:
            names = set(archive.namelist())
            if "word/document.xml" in names:
                return "docx"
            if "mimetype" in names and archive.getinfo("mimetype").file_size < 200:
                kind = archive.read("mimetype").strip()
                return OFFICE.get(kind, "zip")
            if "META-INF/container.xml" in names:
                return "epub"
            if "[Content_Types].xml" in names:  # a spreadsheet or slides
                return ""
    except (*UNREADABLE, zipfile.BadZipFile, RuntimeError, NotImplementedError, ValueError, IndexError):
        pass  # its reader will say what is broken
    return "zip"
