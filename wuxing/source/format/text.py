"""Plain text and Markdown: a record for each file, paragraph or line; the front matter of Markdown is meta."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO

from wuxing.core.record import Drop
from wuxing.source.config import SourceConfig
from wuxing.source.row import Document, Value, short
from wuxing.source.stream import Lines, flaw_of, texts, whole_text

_FRONT = re.compile(r"\A---[ \t]*\r?\n(.*?)^(?:---|\.\.\.)[ \t]*(?:\r?\n|\Z)", re.DOTALL | re.MULTILINE)
LONGEST_FRONT_CHARACTERS = 1 << 16


def read_text(stream: BinaryIO, source: SourceConfig) -> Iterator[Value]:
    if source.per in ("file", "page"):
        text = whole_text(stream, source.encoding, source.limits)
        yield 0, text if isinstance(text, Drop) else {"text": text}
        return
    lines = Lines(_plain_ends(texts(stream, source.encoding)), "\n", source.limits.line_bytes)
    pieces = lines if source.per == "line" else _paragraphs(lines, source.limits.line_bytes)
    number = 0
    for piece in pieces:
        if piece is None:
            yield number, Drop("line_too_long", f"more than {source.limits.line_bytes} characters (limits.line_bytes)")
        elif not piece.strip():
            continue
        else:
            yield number, flaw_of(piece) or {"text": piece.removesuffix("\n")}
        number += 1


def _plain_ends(blocks: Iterable[str]) -> Iterator[str]:
    """The same text with plain line ends."""
    plain = io.IncrementalNewlineDecoder(None, translate=True)
    for block in blocks:
        yield plain.decode(block)
    yield plain.decode("", final=True)


def _paragraphs(lines: Iterable[str | None], limit: int) -> Iterator[str | None]:
    """What stands between blank lines."""
    held: list[str] = []
    size = 0
    for line in lines:
        if line is not None and line != "\n":
            size += len(line)
            if size <= limit:
                held.append(line)
            continue
        if held:
            yield "".join(held).removesuffix("\n") if size <= limit else None
        held, size = [], 0
        if line is None:
            yield None
    if held:
        yield "".join(held).removesuffix("\n") if size <= limit else None


def read_markdown(stream: BinaryIO, source: SourceConfig) -> Iterator[Value]:
    if source.per not in ("file", "page"):
        yield from read_text(stream, source)
        return
    text = whole_text(stream, source.encoding, source.limits)
    yield 0, text if isinstance(text, Drop) else _with_front(text)


def _with_front(text: str) -> Document | Drop:
    found = _FRONT.match(text[:LONGEST_FRONT_CHARACTERS]) if text.startswith("---") else None
    if found is None:
        return Document(text=text)
    import yaml

    try:
        front = yaml.load(found[1], Loader=yaml.BaseLoader)  # scalars stay texts
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        return Document(text=text, front_matter_error=short(error))
    if not isinstance(front, dict):  # a thematic break, not front matter
        return Document(text=text)
    facts: dict[str, Any] = {str(name): value for name, value in front.items() if value not in ("", None)}
    return Document({**facts, "text": text[found.end() :]})
