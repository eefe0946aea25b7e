"""Shingles and MinHash in NumPy: the slow truth of `kernel.c`, and what runs where there is no C compiler.

MinHash: Broder 1997, "On the resemblance and containment of documents".  The share of equal minima of two documents
estimates the Jaccard similarity J of their shingle sets with standard error sqrt(J (1 - J) / hashes).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

ALONE = (
    (0xE00, 0xEFF),
    (0x1000, 0x109F),
    (0x1780, 0x17FF),
    (0x3040, 0x30FF),
    (0x31F0, 0x31FF),
    (0x3400, 0x4DBF),
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
    (0x20000, 0x323AF),
)
"""Scripts without spaces between words (Thai, Lao, Myanmar, Khmer, kana, Han): each character is a token."""
SEPARATORS = (
    (0x00, 0x2F),
    (0x3A, 0x40),
    (0x5B, 0x60),
    (0x7B, 0xA9),
    (0xAB, 0xB4),
    (0xB6, 0xB9),
    (0xBB, 0xBF),
    (0xD7, 0xD7),
    (0xF7, 0xF7),
    (0x2000, 0x2BFF),
    (0x3000, 0x303F),
    (0xE000, 0xF8FF),
    (0xFE10, 0xFE1F),
    (0xFE30, 0xFE4F),
    (0xFF00, 0xFF0F),
    (0xFF1A, 0xFF20),
    (0xFF3B, 0xFF40),
    (0xFF5B, 0xFF65),
    (0xFFF0, 0xFFFF),
    (0x1F000, 0x1FAFF),
)
"""Spaces, signs, arrows, pictures, private use."""


def character_class(ranges: Sequence[tuple[int, int]]) -> str:
    """The inside of a pattern's brackets for these code points."""
    return "".join(f"{re.escape(chr(first))}-{re.escape(chr(last))}" for first, last in ranges)


TOKEN = re.compile(f"[{character_class(ALONE)}]|[^{character_class(ALONE)}{character_class(SEPARATORS)}]+")
ALONE_CHARACTER = re.compile(f"[{character_class(ALONE)}]")


def tokens_of(text: str) -> list[str]:
    """Characters of scripts without spaces, and runs of other letters and digits, ASCII lower-cased."""
    return TOKEN.findall(text.encode("utf-8").lower().decode("utf-8"))


def shingles_of(text: str, width: int) -> NDArray[np.uint32]:
    """The hash of each run of `width` tokens; of all tokens when there are fewer; empty when there is none."""
    import numpy as np

    hashes = _token_hashes([token.encode() for token in tokens_of(text)])
    if not len(hashes):
        return hashes
    width = min(width, len(hashes))
    rows = np.lib.stride_tricks.sliding_window_view(hashes, width)
    value = np.zeros(len(rows), np.uint32)
    for column in range(width):
        value = (value << np.uint32(5) | value >> np.uint32(27)) ^ rows[:, column]
        value = value * np.uint32(0x9E3779B1)
    value = (value ^ value >> np.uint32(16)) * np.uint32(0x85EBCA6B)
    value = (value ^ value >> np.uint32(13)) * np.uint32(0xC2B2AE35)
    return value ^ value >> np.uint32(16)


def _token_hashes(tokens: Sequence[bytes]) -> NDArray[np.uint32]:
    """FNV-1a of each token, all tokens at once, one byte position after the other."""
    import numpy as np

    lengths = np.fromiter((len(token) for token in tokens), np.int64, len(tokens))
    values = np.full(len(tokens), 2166136261, np.uint32)
    if not len(tokens):
        return values
    raw = np.frombuffer(b"".join(tokens), np.uint8)
    starts = np.cumsum(lengths) - lengths
    for position in range(int(lengths.max())):
        live = np.flatnonzero(lengths > position)
        values[live] = (values[live] ^ raw[starts[live] + position]) * np.uint32(16777619)
    return values


def coefficients(hashes: int) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
    """The odd factors and the offsets of the permutations x -> a x + b (mod 2^32); always the same ones."""
    import numpy as np

    generator = np.random.Generator(np.random.PCG64(0x57555849))
    a = generator.integers(0, 1 << 32, hashes, dtype=np.uint32) | np.uint32(1)
    return a, generator.integers(0, 1 << 32, hashes, dtype=np.uint32)


def minhash_of(texts: Sequence[str], width: int, hashes: int) -> NDArray[np.uint32]:
    """Row d: the minima of document d under each permutation; all ones for a document without tokens."""
    import numpy as np

    a, b = coefficients(hashes)
    rows = np.full((len(texts), hashes), 0xFFFFFFFF, np.uint32)
    for row, text in zip(rows, texts, strict=True):
        shingles = shingles_of(text, width)
        for start in range(0, len(shingles), 4096):
            values = shingles[start : start + 4096, None] * a + b
            np.minimum(row, values.min(axis=0), out=row)
    return rows
