"""Tokens with their places in the text, runs of them as hashes, and fingerprints: `token.c` over Arrow columns.

The plain functions here are its slow truth, and what runs where there is no C compiler.  A token is what
`shingle.tokens_of` gives: a character of a script without spaces, or a run of other letters and digits.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from wuxing.text.kernel import buffers, compiled
from wuxing.text.shingle import TOKEN

if TYPE_CHECKING:
    import numpy as np
    import pyarrow
    from numpy.typing import NDArray

SOURCE = Path(__file__).with_name("token.c")
_MASK = (1 << 64) - 1
FACTOR = 0x9E3779B97F4A7C15


@dataclass(frozen=True)
class Tokens:
    """The tokens of some texts, one text after the other."""

    hashes: NDArray[np.uint64]
    """64 bits of each token."""
    starts: NDArray[np.uint32]
    """Its first byte, counted from its text's beginning."""
    stops: NDArray[np.uint32]
    """The byte behind its last."""
    ends: NDArray[np.int64]
    """For each text, the number of tokens up to its end."""

    @property
    def counts(self) -> NDArray[np.int64]:
        """Tokens of each text."""
        import numpy as np

        return np.diff(self.ends, prepend=0)


def token_hash(token: bytes) -> int:
    """64 bits of a token whose ASCII letters are small: FNV-1a and the last mix of MurmurHash3."""
    h = 0xCBF29CE484222325
    for byte in token:
        h = (h ^ byte) * 0x100000001B3 & _MASK
    h = (h ^ h >> 33) * 0xFF51AFD7ED558CCD & _MASK
    h = (h ^ h >> 33) * 0xC4CEB9FE1A85EC53 & _MASK
    return h ^ h >> 33


def token_hashes(tokens: Sequence[str]) -> NDArray[np.uint64]:
    """`token_hash` of tokens as `shingle.tokens_of` gives them."""
    import numpy as np

    return np.array([token_hash(token.encode()) for token in tokens], np.uint64)


def tokens(texts: pyarrow.Array) -> Tokens:
    """The tokens of an Arrow string array without nulls."""
    import numpy as np

    assert texts.null_count == 0, "a text that is not there has no tokens"
    kernel = _library()
    if isinstance(kernel, str):
        return _tokens(texts.to_pylist())
    raw, offsets = buffers(texts)
    room = int(offsets[-1] - offsets[0])
    hashes, starts, stops = np.empty(room, np.uint64), np.empty(room, np.uint32), np.empty(room, np.uint32)
    ends = np.zeros(len(texts), np.int64)
    kernel.wuxing_tokens(
        raw,
        offsets.ctypes.data,
        len(texts),
        hashes.ctypes.data,
        starts.ctypes.data,
        stops.ctypes.data,
        ends.ctypes.data,
    )
    total = int(ends[-1]) if len(ends) else 0
    return Tokens(hashes[:total].copy(), starts[:total].copy(), stops[:total].copy(), ends)


def _tokens(texts: Sequence[str]) -> Tokens:
    import numpy as np

    hashes: list[int] = []
    starts: list[int] = []
    stops: list[int] = []
    ends: list[int] = []
    for text in texts:
        byte, at = 0, 0
        for match in TOKEN.finditer(text):
            byte += len(text[at : match.start()].encode())
            token = match[0].encode()
            hashes.append(token_hash(token.lower()))
            starts.append(byte)
            byte, at = byte + len(token), match.end()
            stops.append(byte)
        ends.append(len(hashes))
    return Tokens(
        np.array(hashes, np.uint64), np.array(starts, np.uint32), np.array(stops, np.uint32), np.array(ends, np.int64)
    )


def runs(values: NDArray[np.uint64], width: int, factor: int = FACTOR) -> NDArray[np.uint64]:
    """A 64-bit hash of each `width` values in a row: polynomial in an odd factor, then mixed."""
    import numpy as np

    count = len(values) - width + 1
    if count <= 0:
        return np.empty(0, np.uint64)
    found = values[:count].copy()
    for place in range(1, width):
        found *= np.uint64(factor)
        found += values[place : place + count]
    return mixed(found)


def mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """SplitMix64's last mix (Steele et al. 2014): every bit of the result depends on every bit."""
    import numpy as np

    found = (values ^ values >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    found = (found ^ found >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return found ^ found >> np.uint64(31)


def whole_runs(ends: NDArray[np.int64], width: int) -> NDArray[np.bool_]:
    """Of the runs of `width` tokens that `runs` gives: those that lie within one text."""
    import numpy as np

    total = int(ends[-1]) if len(ends) else 0
    inside = np.ones(max(0, total - width + 1), bool)
    for back in range(1, width):
        places = ends - back
        inside[places[(places >= 0) & (places < len(inside))]] = False
    return inside


def winnow(values: NDArray[np.uint64], ends: NDArray[np.int64], width: int) -> NDArray[np.bool_]:
    """The values chosen as fingerprints: of each `width` in a row the least, the last of equals (winnowing).

    Two equal rows of `width` values choose the same value of them, so they share a fingerprint.
    """
    import numpy as np

    kernel = _library()
    chosen = np.zeros(len(values), np.uint8)
    if isinstance(kernel, str):
        first = 0
        for end in ends.tolist():
            for start in range(first, end - width + 1):
                row = values[start : start + width]
                chosen[start + width - 1 - int(row[::-1].argmin())] = 1
            first = end
    else:
        values, ends = np.ascontiguousarray(values), np.ascontiguousarray(ends)
        kernel.wuxing_winnow(values.ctypes.data, ends.ctypes.data, len(ends), width, chosen.ctypes.data)
    return chosen.view(bool)


@cache
def _library() -> ctypes.CDLL | str:
    loaded = compiled(SOURCE)
    if isinstance(loaded, str):
        return loaded
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    loaded.wuxing_tokens.argtypes = [pointer, pointer, number, pointer, pointer, pointer, pointer]
    loaded.wuxing_tokens.restype = None
    loaded.wuxing_winnow.argtypes = [pointer, pointer, number, number, pointer]
    loaded.wuxing_winnow.restype = None
    return loaded
