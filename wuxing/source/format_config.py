"""How files are read, as a recipe writes it: bounds, and what each format leaves open.  Imports nothing heavy."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from wuxing.core.step import Config


class Limits(Config):
    """Bounds against what is broken or hostile.  What exceeds one becomes a fate that names it, never a full memory."""

    line_bytes: int = Field(default=64 << 20, ge=64)
    """A line of JSON or text, or a row of CSV, in bytes: longer ones are `line_too_long`."""
    document_bytes: int = Field(default=256 << 20, ge=64)
    """A document that has to be held whole (HTML, PDF, a mail, one JSON value, ...), unpacked: `too_large`."""
    free_bytes: int = Field(default=256 << 20, ge=0)
    """What a packed file may unpack to, whatever its size."""
    unpack_ratio: int = Field(default=200, ge=1)
    """Beyond `free_bytes`: bytes that one byte of a packed file may become; what would be more is `unpack_limit`."""
    members: int = Field(default=1_000_000, ge=1)
    """Files in an archive; those behind are `too_many_members`."""
    pages: int = Field(default=10_000, ge=1)
    """Pages of a PDF; a longer one is `too_many_pages`."""
    depth: int = Field(default=1000, ge=1, le=3000)
    """Elements inside each other (HTML, XML) and multiparts inside each other (mail): more is `too_deep`."""
    cpu_seconds: int = Field(default=60, ge=1)
    """Processor time for one PDF: a stuck one is `too_slow`.  The only bound that depends on the machine."""
    memory_bytes: int = Field(default=2 << 30, ge=256 << 20)
    """Memory of the process that reads one PDF: more is `too_much_memory`."""


class HtmlOptions(Config):
    """What of a page is its text.  Holds for HTML and WARC; HTML mails and EPUB chapters are read whole."""

    main_content: bool = True
    """Only the main content, without navigation, headers and footers; False: all that can be seen."""
    links: bool = False
    """Write the addresses of links behind their texts."""


class MailOptions(Config):
    """What of a mail is its text."""

    headers: tuple[str, ...] = ("subject", "date")
    """Headers that become meta.  Those with addresses (from, to, cc, message-id, in-reply-to) only when asked for: no
    cleaning step looks into meta."""
    quotes: bool = True
    """Keep what is quoted from the answered mail (lines that start with `>`, and the line that introduces them)."""
    signatures: bool = True
    """Keep what follows the signature mark (a line `-- `)."""


class Fill(Config):
    """A value for missing fields that is learned from the rows which have it: all rows of the source, in a first pass.

    The value found stands on the corpus card.
    """

    mode: Literal["mean", "median", "most_frequent"]
    """`mean` and `median` are for numbers; among equally frequent values the first in order of text is taken."""
