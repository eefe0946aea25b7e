"""Text that nobody vouches for, made safe to look at: nothing invisible stays invisible, nothing is endless."""

from __future__ import annotations

import re
import unicodedata

_ODD = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ufffe\uffff\ud800-\udfff]"
)
"""Control characters, invisible ones, ones that turn the direction of writing, halves of surrogate pairs."""
_JOINER = "\u200d"


def visible(text: str) -> str:
    """The text with a picture in place of each control character and a name in place of each invisible one.

    What turns the direction of writing would let a record rearrange the words of the page around it.
    """
    return _ODD.sub(_shown, text)


def _shown(match: re.Match[str]) -> str:
    character = match[0]
    point = ord(character)
    if character == "\r":
        return "␍"
    if point < 0x20:
        return chr(0x2400 + point)
    if point == 0x7F:
        return "␡"
    if character == _JOINER:  # it joins emoji and Indic letters; alone it does no harm
        return character
    if 0xD800 <= point <= 0xDFFF:
        return "\ufffd"
    return f"⟨U+{point:04X}⟩"


def cut(text: str, characters: int) -> str:
    """At most this many characters; an ellipsis says that there was more.  Combining marks are not torn off."""
    if len(text) <= characters:
        return text
    end = max(1, characters - 1)
    while end > 1 and unicodedata.combining(text[end]):
        end -= 1
    return text[:end] + "…"


def cut_middle(text: str, characters: int) -> str:
    """At most this many characters, from the beginning and from the end: for ids and paths."""
    if len(text) <= characters:
        return text
    tail = max(1, characters // 2 - 1)
    return text[: max(1, characters - tail - 1)] + "…" + text[-tail:]


def flat(text: str) -> str:
    """On one line."""
    return " ".join(text.split())


def is_wide(character: str) -> bool:
    """Whether it takes two columns of a terminal, or a whole em of a page."""
    return unicodedata.east_asian_width(character) in "WF"


def text_width(text: str, size: float) -> float:
    """About how wide a text is in a sans-serif font of this size."""
    return sum(size if is_wide(c) else 0.33 * size if c in " .,:;ilj|'!" else 0.57 * size for c in text)
