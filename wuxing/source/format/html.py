"""HTML pages: the main text by resiliparse, the title, the encoding as browsers find it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import BinaryIO

from wuxing.core.record import Drop
from wuxing.source.config import SourceConfig
from wuxing.source.encoding import MARKS, decode
from wuxing.source.format_config import HtmlOptions, Limits
from wuxing.source.row import Document, Value, short
from wuxing.source.stream import TooLarge, whole

_CHARSET = re.compile(rb"<meta[^>]{0,200}?charset\s*=\s*[\"']?\s*([A-Za-z0-9_:.-]{2,40})", re.IGNORECASE)
_DECLARED_BYTES = 4096
_TAG = re.compile(r"<(/?)([a-zA-Z][a-zA-Z0-9]*)")
_NO_DEPTH = frozenset(
    re.findall(
        r"\w+",
        "area base br col embed hr img input link meta source track wbr param p li dt dd tr td th thead tbody tfoot "
        "option optgroup colgroup rp rt",
    )
)
"""Elements without content, and those that the next of their kind closes."""
WRONG_SHARE = 0.001
"""Pages of the web often hold a few bytes that are wrong in their encoding; with up to this share they are read."""


def read_html(stream: BinaryIO, source: SourceConfig) -> Iterator[Value]:
    try:
        raw = whole(stream, source.limits)
    except TooLarge as error:
        yield 0, Drop("too_large", short(error))
        return
    yield 0, page(raw, source.encoding, source.html, source.limits)


def page(raw: bytes, encoding: str, options: HtmlOptions, limits: Limits, said: str | None = None) -> Document | Drop:
    """The document of a page; `said` is the encoding that came with it (HTTP, mail).

    The row has `text` and, where the page has one, `title`; `wrong_bytes` counts bytes that were left out.
    """
    found = page_text(raw, encoding, said)
    if isinstance(found, Drop):
        return found
    markup, wrong = found
    made = document(markup, options, limits)
    if wrong and isinstance(made, Document):
        made["wrong_bytes"] = wrong
    return made


def document(markup: str, options: HtmlOptions, limits: Limits) -> Document | Drop:
    """The main text and the title of a page."""
    from resiliparse.extract.html2text import extract_plain_text
    from resiliparse.parse.html import HTMLTree

    if too_deep(markup, limits.depth):
        return Drop("too_deep", f"more than {limits.depth} elements inside each other (limits.depth)")
    try:
        tree = HTMLTree.parse(markup.replace("\0", ""))
        text = extract_plain_text(
            tree, preserve_formatting=True, main_content=options.main_content, links=options.links, alt_texts=False
        )
        title = " ".join((tree.title or "").split())
    except (ValueError, RuntimeError) as error:
        return Drop("broken_html", short(error))
    if not text.strip():
        return Drop("no_main_text" if options.main_content else "no_text", title[:100])
    return Document(text=text, title=title) if title else Document(text=text)


def too_deep(markup: str, limit: int) -> bool:
    """Whether elements stand too deep inside each other: reading them takes time (and text) of their depth squared."""
    if markup.count("<") <= limit:
        return False
    depth = 0
    for tag in _TAG.finditer(markup):
        if tag[2].lower() in _NO_DEPTH:
            continue
        depth = max(0, depth - 1) if tag[1] else depth + 1
        if depth > limit:
            return True
    return False


def page_text(raw: bytes, encoding: str, said: str | None = None) -> tuple[str, int] | Drop:
    """A page's markup, and how many bytes were wrong in it and left out."""
    if encoding != "auto":
        return _lenient(raw, encoding)
    if any(raw.startswith(mark) for mark, _ in MARKS):
        marked = decode(raw)
        return marked if isinstance(marked, Drop) else (marked, 0)
    try:
        return raw.decode("utf-8"), 0
    except UnicodeDecodeError:
        pass
    stands = _CHARSET.search(raw[:_DECLARED_BYTES])
    for name in (said, stands[1].decode("ascii") if stands else None):
        if name and (known := _known(name)):
            found = _lenient(raw, known)
            if not isinstance(found, Drop):
                return found
    text = decode(raw)
    return _lenient(raw, "utf-8") if isinstance(text, Drop) else (text, 0)


def _known(name: str) -> str | None:
    """Python's name for what a page calls its encoding: browsers read ISO-8859-1 as cp1252, GB2312 as GB18030."""
    import codecs

    from resiliparse.parse.encoding import map_encoding_to_html5

    try:
        found = codecs.lookup(map_encoding_to_html5(name) or name).name
    except (LookupError, ValueError):
        return None
    return {"gbk": "gb18030", "gb2312": "gb18030", "big5": "big5hkscs"}.get(found, found)


def _lenient(raw: bytes, encoding: str) -> tuple[str, int] | Drop:
    text = raw.decode(encoding, errors="replace")
    wrong = text.count("�") - (raw.count("�".encode()) if encoding.startswith("utf") else 0)
    if wrong > max(2, WRONG_SHARE * len(text)):
        return Drop("wrong_encoding", f"{wrong} wrong characters as {encoding}")
    return (text.replace("�", ""), wrong) if wrong > 0 else (text, 0)
