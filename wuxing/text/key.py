"""Keys of texts that are the same content, and the script they are written in: `key.c` over Arrow columns.

The plain functions here are its slow truth, and what runs where there is no C compiler.
"""

from __future__ import annotations

import ctypes
import hashlib
from collections import Counter
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wuxing.text.kernel import compiled

if TYPE_CHECKING:
    import numpy as np
    import pyarrow
    from numpy.typing import NDArray

SOURCE = Path(__file__).with_name("key.c")
KEY_BYTES = 16
SCRIPT_CHARACTERS = 400
"""How much of a text decides its script."""
_POINTS, _LAST_FOLD, _LAST_LETTER = 0x110000, 0x20000, 0x32400
"""All code points; behind the others stand none that fold, and no letters."""

SCRIPTS = (
    (0x250, "latin"),
    (0x370, "other"),
    (0x400, "greek"),
    (0x530, "cyrillic"),
    (0x590, "armenian"),
    (0x600, "hebrew"),
    (0x780, "arabic"),
    (0x900, "other"),
    (0xE00, "indic"),
    (0xE80, "thai"),
    (0x1E00, "other"),
    (0x1F00, "latin"),
    (0x2000, "greek"),
    (0x3040, "other"),
    (0x3100, "kana"),
    (0x3400, "other"),
    (0xA000, "han"),
    (0xAC00, "other"),
    (0xD7B0, "hangul"),
    (0xF900, "other"),
    (0xFB00, "han"),
    (0x20000, "other"),
    (0x323B0, "han"),
)
"""The script of the code points below each bound, roughly: enough to count records by."""
_NAMES = tuple(dict.fromkeys(name for _, name in SCRIPTS))


def plain(text: str) -> str:
    """The text without the differences that make no other content: case and space."""
    return " ".join(text.casefold().split())


def key_of(text: str, kind: bytes) -> bytes:
    """128 bits of a plain text; `kind` (up to 16 bytes) keeps those of different things apart."""
    return hashlib.blake2b(text.encode("utf-8", errors="surrogatepass"), digest_size=KEY_BYTES, person=kind).digest()


def keys(texts: pyarrow.Array, kind: bytes) -> NDArray[np.uint8]:
    """`key_of(plain(text), kind)` of each text, 16 bytes a row."""
    import numpy as np

    found = np.empty((len(texts), KEY_BYTES), np.uint8)
    kernel = _library()
    if isinstance(kernel, str):
        for row, text in enumerate(texts.to_pylist()):
            found[row] = np.frombuffer(key_of(plain(text), kind), np.uint8)
        return found
    raw, offsets = _buffers(texts)
    pages, folds, letters = _fold_tables()
    person = kind.ljust(16, b"\0")
    kernel.wuxing_keys(
        raw, offsets.ctypes.data, len(texts), person, pages.ctypes.data, folds.ctypes.data, letters, found.ctypes.data
    )
    return found


def script_of(text: str) -> str:
    """The script of most letters of a text: a word for its language where none was identified."""
    counts: Counter[str] = Counter()
    for character in text[:SCRIPT_CHARACTERS]:
        if character.isalpha():
            counts[_script(ord(character))] += 1
    return f"script:{counts.most_common(1)[0][0]}" if counts else "script:none"


def scripts(texts: pyarrow.Array) -> list[str]:
    """`script_of` of each text."""
    import numpy as np

    kernel = _library()
    if isinstance(kernel, str):
        return [script_of(text) for text in texts.to_pylist()]
    raw, offsets = _buffers(texts)
    pages, table = _script_tables()
    found = np.empty(len(texts), np.int8)
    kernel.wuxing_scripts(
        raw,
        offsets.ctypes.data,
        len(texts),
        SCRIPT_CHARACTERS,
        pages.ctypes.data,
        table.ctypes.data,
        found.ctypes.data,
    )
    names = [f"script:{name}" for name in (*_NAMES, "none")]
    return [names[number] for number in found.tolist()]


def _script(point: int) -> str:
    return next((name for bound, name in SCRIPTS if point < bound), "other")


@cache
def _library() -> ctypes.CDLL | str:
    loaded = compiled(SOURCE)
    if isinstance(loaded, str):
        return loaded
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    loaded.wuxing_keys.argtypes = [pointer, pointer, number, ctypes.c_char_p, pointer, pointer, pointer, pointer]
    loaded.wuxing_keys.restype = None
    loaded.wuxing_scripts.argtypes = [pointer, pointer, number, number, pointer, pointer, pointer]
    loaded.wuxing_scripts.restype = None
    return loaded


def _buffers(texts: pyarrow.Array) -> tuple[int, NDArray[np.int64]]:
    """The address of the text, and the offsets of this (perhaps sliced) array in it."""
    import numpy as np
    import pyarrow as pa

    assert texts.null_count == 0, "a text that is not there has no key"
    wide = pa.types.is_large_string(texts.type)
    _, offsets, raw = texts.buffers()
    if offsets is None or not len(texts):
        return 0, np.zeros(1, np.int64)
    all_offsets = np.frombuffer(offsets, np.int64 if wide else np.int32)
    mine = all_offsets[texts.offset : texts.offset + len(texts) + 1].astype(np.int64)
    return (raw.address if raw is not None else 0), mine


def _paged(values: NDArray[Any], default: int) -> tuple[NDArray[np.uint16], NDArray[Any]]:
    """A two-level table of a value for each code point; those behind the last of `values` have the default."""
    import numpy as np

    blocks, places = np.unique(values.reshape(-1, 256), axis=0, return_inverse=True)
    pages = np.full(_POINTS >> 8, len(blocks), np.uint16)
    pages[: len(places)] = places.ravel()
    return pages, np.concatenate([blocks.ravel(), np.full(256, default, values.dtype)])


@cache
def _fold_tables() -> tuple[NDArray[np.uint16], NDArray[Any], bytes]:
    import numpy as np

    folds, letters = np.zeros(_LAST_FOLD, np.uint32), bytearray(b"\0")  # so that the place 0 means nothing
    for first, last in ((0, 0xD800), (0xE000, _LAST_FOLD)):
        points = range(first, last)
        characters = [chr(point) for point in points]
        folded = [character.casefold() for character in characters]
        for point, before, after in zip(points, characters, folded, strict=True):
            if before != after:
                raw = after.encode()
                folds[point] = len(letters) << 4 | len(raw)
                letters += raw
        folds[[point for point, character in zip(points, characters, strict=True) if character.isspace()]] = 1
    return (*_paged(folds, 0), bytes(letters))


@cache
def _script_tables() -> tuple[NDArray[np.uint16], NDArray[Any]]:
    import numpy as np

    found = np.full(_LAST_LETTER, 255, np.uint8)
    letters = np.array([point for point in range(_LAST_LETTER) if chr(point).isalpha()])
    bounds = np.array([bound for bound, _ in SCRIPTS])
    numbers = np.array([_NAMES.index(name) for _, name in SCRIPTS] + [_NAMES.index("other")], np.uint8)
    found[letters] = numbers[np.searchsorted(bounds, letters, side="right")]
    return _paged(found, 255)
