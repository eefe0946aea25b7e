"""Bytes to text: strict UTF-8 first, then what the bytes look like; never a silent U+FFFD."""

from __future__ import annotations

import codecs

from wuxing.core.record import Drop

MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def decode(raw: bytes, encoding: str = "auto") -> str | Drop:
    """The text, or why there is none: `wrong_encoding`, `unknown_encoding`, `binary`."""
    if encoding != "auto":
        return _or_drop(_strictly(raw, encoding), f"not {encoding}")
    for mark, name in MARKS:
        if raw.startswith(mark):
            return _or_drop(_strictly(raw, name), f"a {name} mark, but not {name}")
    if b"\x00" in raw:
        return Drop("binary", "holds NUL bytes")
    text = _strictly(raw, "utf-8")
    return text if text is not None else _detected(raw)


def _or_drop(text: str | None, detail: str) -> str | Drop:
    return Drop("wrong_encoding", detail) if text is None else text


def _strictly(raw: bytes, encoding: str) -> str | None:
    try:
        return raw.decode(encoding)
    except (UnicodeError, ValueError):
        return None


def detected_name(raw: bytes) -> str | Drop:
    """The encoding that bytes look like that are no UTF-8, under Python's name."""
    from resiliparse.parse.encoding import detect_encoding

    name = detect_encoding(raw)
    if not name or name == "utf-8":
        return Drop("unknown_encoding", "not UTF-8, and nothing else that is known")
    try:
        return codecs.lookup(name).name
    except LookupError:
        return Drop("unknown_encoding", f"looks like {name}, which is not known")


def _detected(raw: bytes) -> str | Drop:
    name = detected_name(raw)
    if isinstance(name, Drop):
        return name
    text = _strictly(raw, name)
    if text is None:
        return Drop("unknown_encoding", f"looks like {name}, but is not")
    odd = sum(1 for character in text if character < " " and character not in "\t\n\r\f\x1b")
    return Drop("binary", f"{odd} control characters as {name}") if odd > max(2, len(text) // 50) else text
