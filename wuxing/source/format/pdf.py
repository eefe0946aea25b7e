"""PDF: the text of its pages by pypdfium2, in a process of its own (`wuxing/source/guard.py`)."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import Any, BinaryIO

from wuxing.core.record import Drop
from wuxing.source.config import SourceConfig
from wuxing.source.guard import read
from wuxing.source.row import Document, Value, short
from wuxing.source.stream import TooLarge, whole

_HYPHEN = re.compile("[\ufffe\u0002]\r?\n?")
"""PDFium's mark for a word that was cut at the end of a line."""
_FACTS = {"Title": "title", "Author": "author", "CreationDate": "date"}


def read_pdf(stream: BinaryIO, source: SourceConfig) -> Iterator[Value]:
    """A row for the file, or for each of its pages (`per: page`); pages without text (pictures) are `no_text_layer`."""
    limits = source.limits
    try:
        raw = whole(stream, limits)
    except TooLarge as error:
        yield 0, Drop("too_large", short(error))
        return
    function = f"{__name__}:pages_of"
    found = read(function, {"most": limits.pages}, raw, limits.cpu_seconds, limits.memory_bytes)
    if isinstance(found, Drop):
        yield 0, found
        return
    facts, pages = found["facts"], found["pages"]
    if source.per == "page":
        for number, page in enumerate(pages):
            yield number, _row(page, {**facts, "page": number + 1})
        if not pages:
            yield 0, Drop("no_pages")
        return
    text = "\n\n".join(page.strip("\n") for page in pages if page.strip())
    yield 0, _row(text, {**facts, "pages": len(pages)})


def _row(text: str, facts: dict[str, Any]) -> Document | Drop:
    return Document({**facts, "text": text}) if text.strip() else Drop("no_text_layer", "only pictures, or nothing")


def pages_of(data: bytes, most: int) -> dict[str, Any] | Drop:
    """The texts of all pages, and what the file says about itself.  Runs in the guarded process."""
    import pypdfium2

    try:
        document = pypdfium2.PdfDocument(data)
    except pypdfium2.PdfiumError as error:
        said = short(error)
        return Drop("encrypted", "a password is needed") if "password" in said.lower() else Drop("broken_pdf", said)
    with contextlib.closing(document):
        if len(document) > most:
            return Drop("too_many_pages", f"{len(document)} pages, {most} are allowed (limits.pages)")
        facts = {name: document.get_metadata_value(key).strip() for key, name in _FACTS.items()}
        pages = []
        try:
            for number in range(len(document)):
                page = document[number]
                text = page.get_textpage()
                pages.append(_clean(text.get_text_range()))
                text.close()
                page.close()
        except pypdfium2.PdfiumError as error:
            return Drop("broken_pdf", f"page {len(pages) + 1}: {short(error)}")
    return {"facts": {name: value for name, value in facts.items() if value}, "pages": pages}


def _clean(text: str) -> str:
    whole = _HYPHEN.sub("", text).replace("\r\n", "\n").replace("\r", "\n").replace("\0", "")
    return whole.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
