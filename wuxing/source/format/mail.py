"""Mails: one in a file (`.eml`, maildir) or many (mbox).  Headers are meta, attachments counted, HTML becomes text."""

from __future__ import annotations

import contextlib
import email
import email.header
import email.message
import email.policy
import re
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from typing import BinaryIO

from wuxing.core.record import Drop
from wuxing.source.config import SourceConfig
from wuxing.source.encoding import decode
from wuxing.source.format.detect import HTML_START
from wuxing.source.format.html import page
from wuxing.source.format_config import HtmlOptions
from wuxing.source.row import Document, Value, short
from wuxing.source.stream import Lines, TooLarge, blocks, whole

_START = re.compile(rb"From [^\r\n]*\d\d?:\d\d[^\r\n]*\r?\n")
"""The line before each mail of an mbox holds an address and a time."""
_QUOTED_START = re.compile(rb"^>(>*From )", re.MULTILINE)
_ATTRIBUTION = re.compile(
    r"^\s*(?:On\b.{3,200}\bwrote|Am\b.{3,200}\bschrieb.*|Le\b.{3,200}\ba écrit|.{3,200}写道)\s*[:：]\s*$"
)
_LONGEST_HEADER = 2000
_ALL = HtmlOptions(main_content=False)
_MEANT = {"gb2312": "gb18030", "gbk": "gb18030", "iso-8859-1": "cp1252"}
"""What mail programs write, and the larger encoding that they mean."""
FAILURES = (ValueError, LookupError, TypeError, AttributeError, AssertionError, RecursionError)
"""What the standard library's parser raises for headers and parts that no mail program wrote."""


def read_mail(stream: BinaryIO, source: SourceConfig) -> Iterator[Value]:
    try:
        raw = whole(stream, source.limits)
    except TooLarge as error:
        yield 0, Drop("too_large", short(error))
        return
    if raw.startswith(b"From "):
        raw = raw.partition(b"\n")[2]
    yield 0, mail(raw, source)


def read_mbox(stream: BinaryIO, source: SourceConfig) -> Iterator[Value]:
    """A mail begins at each line `From ADDRESS TIME` behind a blank line."""
    limit = source.limits.document_bytes
    held: list[bytes] = []
    size, number, blank, begun = 0, 0, True, False
    for line in Lines(blocks(stream), b"\n", source.limits.line_bytes):
        if line is not None and blank and line.startswith(b"From ") and _START.match(line):
            if begun or any(piece.strip() for piece in held):
                yield number, _of_mbox(held, size, begun, source)
                number += 1
            held, size, begun, blank = [], 0, True, False
            continue
        size += source.limits.line_bytes + 1 if line is None else len(line)
        if size <= limit and line is not None:
            held.append(line)
        blank = line in (b"\n", b"\r\n")
    if begun or any(piece.strip() for piece in held):
        yield number, _of_mbox(held, size, begun, source)


def _of_mbox(held: list[bytes], size: int, begun: bool, source: SourceConfig) -> Document | Drop:
    if size > source.limits.document_bytes:
        return Drop("too_large", f"more than {source.limits.document_bytes} bytes (limits.document_bytes)")
    if not begun:
        return Drop("broken_mbox", "does not begin with a line From ADDRESS TIME")
    return mail(_QUOTED_START.sub(rb"\1", b"".join(held)), source)


def mail(raw: bytes, source: SourceConfig) -> Document | Drop:
    """The row of one mail: `text`, headers, `attachments` (their number, where there are any)."""
    if raw.count(b"boundary=") > source.limits.depth or raw.lower().count(b"message/rfc822") > source.limits.depth:
        return Drop("too_deep", f"more than {source.limits.depth} parts inside each other (limits.depth)")
    try:
        message = email.message_from_bytes(raw, policy=email.policy.compat32)
        if not message.keys():
            return Drop("broken_mail", "has no headers")
        facts = _facts(message, source.mail.headers)
        body, attachments = _body(message, source)
    except FAILURES as error:
        return Drop("broken_mail", short(error))
    if isinstance(body, Drop):
        return body
    text = _without(body.replace("\r\n", "\n"), source)
    if not text.strip():
        return Drop("no_text", f"{attachments} attachments")
    return Document({**facts, **({"attachments": attachments} if attachments else {}), "text": text})


def _facts(message: email.message.Message, wanted: tuple[str, ...]) -> dict[str, str]:
    """The headers that are kept; of one that stands twice the first."""
    raw: dict[str, str] = {}
    for name, value in message.raw_items():
        raw.setdefault(name.lower(), str(value))
    facts = {}
    for name in map(str.lower, wanted):
        text = " ".join(_header(raw.get(name, "")).split())[:_LONGEST_HEADER]
        if name == "date":
            with contextlib.suppress(ValueError, TypeError, OverflowError, IndexError):  # else as it stands
                text = parsedate_to_datetime(text).isoformat()
        if text:
            facts[name.replace("-", "_")] = text
    return facts


def _header(raw: str) -> str:
    """A header with its encoded words decoded; what is wrong in it stays as it was written."""
    try:
        found = email.header.decode_header(raw)
    except (ValueError, LookupError):
        found = [(raw, None)]
    pieces = []
    for piece, charset in found:
        content = piece.encode("utf-8", "surrogateescape") if isinstance(piece, str) else piece
        pieces.append(_decoded(content, charset))
    return "".join(pieces)


def _decoded(content: bytes, charset: str | None) -> str:
    """Bytes in the encoding that a mail states, or else in the one they look like, or else as Latin-1."""
    if charset and charset.lower() not in ("unknown-8bit", "us-ascii", "ascii", "utf-8"):
        try:
            return content.decode(
                {"gb2312": "gb18030", "gbk": "gb18030", "iso-8859-1": "cp1252"}.get(charset.lower(), charset)
            )
        except (LookupError, ValueError):
            pass  # it is not what it says
    text = decode(content)
    return content.decode("latin-1") if isinstance(text, Drop) else text


def _body(message: email.message.Message, source: SourceConfig) -> tuple[str | Drop, int]:
    """The text of a mail – of alternatives the plain one – and the number of its attachments."""
    if message.is_multipart():
        kind = message.get_content_subtype().lower()
        parts = [part for part in message.get_payload() if isinstance(part, email.message.Message)]
        found = [_body(part, source) for part in parts]
        if kind == "alternative":
            return _best(parts, found), max((count for _, count in found), default=0)
        texts = [text for text, _ in found if isinstance(text, str) and text.strip()]
        first_drop = next((text for text, _ in found if isinstance(text, Drop)), None)
        if not texts and first_drop:
            return first_drop, sum(count for _, count in found)
        return "\n\n".join(text.strip("\n") for text in texts), sum(count for _, count in found)
    kind = message.get_content_type().lower()
    if message.get_content_disposition() == "attachment" or not kind.startswith("text/"):
        return "", 1
    content = message.get_payload(decode=True)
    if not isinstance(content, bytes):
        return "", 0
    charset = message.get_content_charset()
    if kind == "text/html" or HTML_START.match(content):  # some call it plain
        made = page(
            content, source.encoding, _ALL.model_copy(update={"links": source.html.links}), source.limits, charset
        )
        return ("" if made.reason == "no_text" else made) if isinstance(made, Drop) else made["text"], 0
    return (_decoded(content, charset), 0) if kind in ("text/plain", "text/enriched") else ("", 1)


def _best(parts: list[email.message.Message], found: list[tuple[str | Drop, int]]) -> str | Drop:
    """Of alternatives: the plain text, unless it is empty; else the richest that has a text."""
    plain = [text for part, (text, _) in zip(parts, found, strict=True) if part.get_content_type() == "text/plain"]
    texts = [
        text for text in [*plain, *(text for text, _ in reversed(found))] if isinstance(text, str) and text.strip()
    ]
    drops = [text for text, _ in found if isinstance(text, Drop)]
    return texts[0] if texts else drops[0] if drops else ""


def _without(text: str, source: SourceConfig) -> str:
    """The text without quotes and signature, where the recipe asks for it."""
    lines = text.split("\n")
    if not source.mail.signatures:
        end = next((number for number, line in enumerate(lines) if line in ("-- ", "--")), len(lines))
        lines = lines[:end]
    if not source.mail.quotes:
        kept: list[str] = []
        for line in lines:
            if line.startswith(">"):
                while kept and not kept[-1].strip():
                    kept.pop()
                if kept and _ATTRIBUTION.fullmatch(kept[-1]):
                    kept.pop()
            else:
                kept.append(line)
        lines = kept
    return "\n".join(lines)
