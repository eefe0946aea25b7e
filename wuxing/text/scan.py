"""Quick passes over columns of text (`scan.c`), so that Python looks only at the texts that need it.

They are conservative: a text said to be without a mark has nothing that the mark stands for, and a text said to be in
normal form is in it.  Without a compiler every text is worth a look.
"""

from __future__ import annotations

import ctypes
import re
import unicodedata
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from wuxing.text.kernel import buffers, compiled, strings

if TYPE_CHECKING:
    import numpy as np
    import pyarrow
    from numpy.typing import NDArray

SOURCE = Path(__file__).with_name("scan.c")
SAME, CHANGED, UNKNOWN = 0, 1, 2
MARKS = (
    *("mojibake", "key", "mail", "id_cn", "iban", "card", "ip", "ipv6", "ssn_us", "plate_cn"),
    *("phone", "phone_cn", "phone_us"),
)
"""Bit n of a text's marks: it may hold this.  `phone`: with a plus; the others as their countries write them."""
_INTERESTING = b"0123456789@:_-.ABCDEFGHIJKLMNOPQRSTUVWXYZ\xc3"

LINE_END = "\x0b\x0c\x85\u2028\u2029"
"""Ends of lines besides `\\n`, `\\r` and `\\r\\n`."""
INVISIBLE = "\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\xad\u200b\u2060\ufeff\ufff9-\ufffb\ufffe\uffff"
"""Control characters, soft hyphen, zero-width space, byte order mark.  Joiners stay: Persian and emoji need them."""
ODD_SPACE = "\xa0\u2000-\u200a\u202f\u205f"
BLANK = " \t\u3000"
"""Space that goes at the ends of lines."""
_BLANK, _NEWLINE, _RETURN, _INVISIBLE, _ODD_SPACE, _LOOK, _FIRST_MARK = 1, 2, 3, 4, 5, 6, 8


def normalised(
    texts: pyarrow.Array, form: Literal["NFC", "NFKC"], max_blank_lines: int
) -> tuple[pyarrow.Array, NDArray[np.uint8]]:
    """The texts of an Arrow string array in normal form, and for each SAME, CHANGED or UNKNOWN: left as it was."""
    import numpy as np

    status = np.full(len(texts), UNKNOWN, np.uint8)
    kernel = _library()
    if isinstance(kernel, str) or not len(texts):
        return texts, status
    raw, offsets = buffers(texts)
    out = np.empty(int(offsets[-1] - offsets[0]) + 8, np.uint8)
    ends = np.zeros(len(texts) + 1, np.int64)
    kernel.wuxing_normalise(
        *(raw, offsets.ctypes.data, len(texts), _normal_classes(form).ctypes.data, max_blank_lines + 1),
        *(out.ctypes.data, ends[1:].ctypes.data, status.ctypes.data),
    )
    return (strings(out, ends, texts.type) if (status == CHANGED).any() else texts), status


def marks(texts: pyarrow.Array) -> NDArray[np.uint32]:
    """Of each text of an Arrow string array what it may hold: the bits of `MARKS`."""
    import numpy as np

    found = np.full(len(texts), (1 << len(MARKS)) - 1, np.uint32)
    kernel = _library()
    if not isinstance(kernel, str) and len(texts):
        raw, offsets = buffers(texts)
        kernel.wuxing_marks(raw, offsets.ctypes.data, len(texts), _interesting().ctypes.data, found.ctypes.data)
    return found


@cache
def _interesting() -> NDArray[np.uint8]:
    import numpy as np

    table = np.zeros(256, np.uint8)
    table[list(_INTERESTING)] = 1
    return table


@cache
def _normal_classes(form: Literal["NFC", "NFKC"]) -> NDArray[np.uint8]:
    """For each code point what the normal form makes of it; UAX 15's quick check decides what needs a look."""
    import numpy as np

    table = np.zeros(0x110000, np.uint8)
    composing = {*range(0x1161, 0x1176), *range(0x11A8, 0x11C3)}  # vowels and finals of Hangul syllables
    order: dict[int, int] = {}
    for point in _assigned():
        character = chr(point)
        if rank := unicodedata.combining(character):
            order[point] = rank
        parts = unicodedata.decomposition(character)
        if not parts:
            continue
        if unicodedata.normalize(form, character) != character:
            table[point] = _LOOK
        if parts[0] != "<" and " " in parts and unicodedata.normalize("NFC", character) == character:
            composing.add(int(parts.split()[1], 16))
    ranks = {rank: _FIRST_MARK + n for n, rank in enumerate(sorted(set(order.values())))}
    for point, rank in order.items():
        table[point] = table[point] or ranks[rank]
    table[list(composing)] = _LOOK
    table[0x1680] = _LOOK  # the one space that goes at the ends of a text only
    kinds = ((_BLANK, BLANK), (_NEWLINE, "\n" + LINE_END), (_INVISIBLE, INVISIBLE), (_ODD_SPACE, ODD_SPACE))
    for kind, inside in kinds:
        for character in re.findall(f"[{inside}]", "".join(map(chr, range(0x10000)))):
            if table[ord(character)] != _LOOK or kind != _BLANK:
                table[ord(character)] = kind
    table[ord("\r")] = _RETURN
    return table


def _assigned() -> Iterator[int]:
    """The code points that can have a decomposition or a combining class; a test looks at all others."""
    for first, last in ((0xA0, 0x33FF), (0xA000, 0xABFF), (0xF900, 0x1FFFF), (0x2F800, 0x2FA1F)):
        yield from range(first, last + 1)


@cache
def _library() -> ctypes.CDLL | str:
    loaded = compiled(SOURCE)
    if isinstance(loaded, str):
        return loaded
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    loaded.wuxing_normalise.argtypes = [pointer, pointer, number, pointer, ctypes.c_int, pointer, pointer, pointer]
    loaded.wuxing_normalise.restype = None
    loaded.wuxing_marks.argtypes = [pointer, pointer, number, pointer, pointer]
    loaded.wuxing_marks.restype = None
    return loaded
