"""Quality and repetition counts of documents: the slow truth of `statistics.c` and `repetition.c`, and their calls.

Counts are integers, so that the two agree exactly; shares are made of them by those who judge.  Words of scripts
without spaces are their characters.  Sources: Gopher (Rae et al. 2021, A.1.1 and table A1), FineWeb (Penedo et al.
2024, section 3.6).
"""

from __future__ import annotations

import ctypes
import re
from collections import Counter
from collections.abc import Sequence
from functools import cache
from itertools import groupby, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wuxing.text.kernel import buffers, compiled
from wuxing.text.shingle import ALONE, ALONE_CHARACTER, SEPARATORS, character_class, tokens_of
from wuxing.text.stop_words import STOP_WORDS

if TYPE_CHECKING:
    import numpy as np
    import pyarrow
    from numpy.typing import NDArray

SOURCES = tuple(Path(__file__).with_name(name) for name in ("statistics.c", "repetition.c"))
MOST = 1 << 20
"""Lines and tokens of one document that are judged for repetition: bounds the memory of a huge one."""

QUALITY = (
    "characters",
    "words",
    "word_characters",
    "alone",
    "letter_words",
    "symbols",
    "stop_words",
    "lines",
    "bullet_lines",
    "ellipsis_lines",
    "ended_lines",
    "short_lines",
    "line_characters",
    "newlines",
)
"""Columns of `quality_counts`.  `alone`: characters of scripts without spaces; `stop_words`: -1 without a list."""
LAST_LETTER = 0x40000
"""No letter or space lies beyond (planes 4 to 16 hold variation selectors and private use)."""
REPETITION = (
    "lines",
    "duplicate_lines",
    "line_characters",
    "duplicate_line_characters",
    "paragraphs",
    "duplicate_paragraphs",
    "duplicate_paragraph_characters",
    "tokens",
    "token_characters",
    *(f"top_{width}gram_characters" for width in (2, 3, 4)),
    *(f"repeated_{width}gram_characters" for width in range(5, 11)),
)
"""Columns of `repetition_counts`."""

_ALONE = character_class(ALONE)
_SIGNS = "!-/:-@\\[-`{-~\u3001-\u303f\uff00-\uff0f\uff1a-\uff20\uff3b-\uff40\uff5b-\uff65\u2014\u2018-\u201d\u2026"
WORD = re.compile(f"[{_ALONE}][{_SIGNS}]*|[^\\s{_ALONE}]+")
"""A word with the signs that touch it."""
LETTER = re.compile(r"[^\W\d_]")
_SYMBOL = re.compile("#|\u2026|\\.\\.\\.")
_BULLET = re.compile("[\u2022\u2023\u25cf\u25e6\u2043*\u00b7-]")
_ELLIPSIS = re.compile("(?:\u2026|\\.\\.\\.)$")
STOPS = ".!?\u2026\u3002\uff01\uff1f\uff0e\uff61\u0964\u0965\u061f\u06d4\u0589\u1362\u104b\u17d4"
"""Signs that end a sentence, of Latin, Chinese, Indic, Arabic, Armenian, Ethiopic, Burmese and Khmer writing."""
CLOSING = "\"')]\u2019\u201d\u00bb\u300b\u300d\u300f\u3011\uff09\u203a"
"""Quotation marks and brackets that may follow them."""
ENDS = STOPS + "\"')\u2019\u201d\u300d\u300f\uff09:;,\uff1a\uff1b\uff0c\u060c\u061b"
"""Signs at the end of a line that is text, not a heading or a menu."""

_SPACE_BIT, _LETTER_BIT, _ALONE_BIT, _SIGN_BIT, _SEPARATOR_BIT, _END_BIT, _CLOSING_BIT, _STOP_BIT = (
    1 << bit for bit in range(8)
)


def quality_of(text: str, language: str | None = None, short_line: int = 30) -> tuple[int, ...]:
    """Count one document (`QUALITY`).  `language` chooses the stop words; without it only Chinese is recognised.

    A line is short up to `short_line` characters, of which those of scripts without spaces count three each.
    """
    words = WORD.findall(text)
    alone = len(ALONE_CHARACTER.findall(text))
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    if language is None and 2 * alone >= len(words):
        language = "zh"
    return (
        len(text),
        len(words),
        sum(map(len, words)),
        alone,
        sum(LETTER.search(word) is not None for word in words),
        len(_SYMBOL.findall(text)),
        _stop_words(text, language),
        len(lines),
        sum(_BULLET.match(line) is not None for line in lines),
        sum(_ELLIPSIS.search(line) is not None for line in lines),
        sum(line.endswith(tuple(ENDS)) for line in lines),
        sum(len(line) + 2 * len(ALONE_CHARACTER.findall(line)) <= short_line for line in lines),
        sum(map(len, lines)),
        text.count("\n"),
    )


def _stop_words(text: str, language: str | None) -> int:
    known = STOP_WORDS.get(language or "")
    return -1 if known is None else len({known[token] for token in tokens_of(text) if token in known})


def repetition_of(text: str, most: int = MOST, runs: bool = True) -> tuple[int, ...]:
    """Count one document (`REPETITION`)."""
    stripped = [line.strip() for line in text.split("\n")]
    full = (number for number, line in enumerate(stripped) if line)
    last = next(islice(full, most - 1, None), len(stripped))
    stripped = stripped[: last + 1]
    lines = [line for line in stripped if line]
    paragraphs = [tuple(group) for full, group in groupby(stripped, bool) if full]
    words = tokens_of(text)[:most] if runs else []
    return (
        *_repeated(lines, [len(line) for line in lines]),
        *_repeated(paragraphs, [sum(map(len, paragraph)) for paragraph in paragraphs], total=False),
        len(words),
        sum(map(len, words)),
        *(top_characters(words, width) for width in (2, 3, 4)),
        *(repeated_characters(words, width) for width in range(5, 11)),
    )


def _repeated(things: Sequence[object], characters: Sequence[int], total: bool = True) -> tuple[int, ...]:
    """How many there are, how many stood before, and the same in characters."""
    seen: set[object] = set()
    again, again_characters = 0, 0
    for thing, size in zip(things, characters, strict=True):
        if thing in seen:
            again += 1
            again_characters += size
        seen.add(thing)
    return (len(things), again, *([sum(characters)] if total else []), again_characters)


def top_characters(words: Sequence[str], width: int) -> int:
    """Characters in all occurrences of the most frequent run of `width` words; 0 when none occurs twice."""
    runs = Counter(zip(*(words[start:] for start in range(width)), strict=False))
    most = max(runs.values(), default=0)
    if most < 2:
        return 0
    return most * max(sum(map(len, run)) for run, count in runs.items() if count == most)


def repeated_characters(words: Sequence[str], width: int) -> int:
    """Characters of the words that lie in a run of `width` words which occurred before; none is counted twice."""
    seen: set[tuple[str, ...]] = set()
    covered, covered_to = 0, 0
    for start, run in enumerate(zip(*(words[shift:] for shift in range(width)), strict=False)):
        if run in seen:
            covered += sum(map(len, words[max(start, covered_to) : start + width]))
            covered_to = start + width
        seen.add(run)
    return covered


def quality_counts(
    texts: pyarrow.Array, languages: Sequence[str | None] | None = None, short_line: int = 30
) -> NDArray[np.int64]:
    """`quality_of` each text of an Arrow string array without nulls: one row each, columns as in `QUALITY`."""
    import numpy as np

    named = [None] * len(texts) if languages is None else languages
    kernel = _libraries()[0]
    if isinstance(kernel, str):
        rows = [quality_of(t, n, short_line) for t, n in zip(texts.to_pylist(), named, strict=True)]
        return np.array(rows, np.int64).reshape(-1, len(QUALITY))
    keys, bits, numbers = _stop_table()
    lists = {name: numbers.get(name, -2) if name is not None else -1 for name in set(named)}
    chosen = np.fromiter((lists[name] for name in named), np.int32, len(texts))
    out = np.empty((len(texts), len(QUALITY)), np.int64)
    raw, offsets = buffers(texts)
    kernel.wuxing_quality(
        raw,
        offsets.ctypes.data,
        len(texts),
        classes().ctypes.data,
        keys.ctypes.data,
        bits.ctypes.data,
        len(keys),
        max(len(word.encode()) for words in STOP_WORDS.values() for word in words),
        chosen.ctypes.data,
        short_line,
        out.ctypes.data,
    )
    return out


def repetition_counts(texts: pyarrow.Array, most: int = MOST, runs: bool = True) -> NDArray[np.int64]:
    """`repetition_of` each text of an Arrow string array without nulls: one row each, columns as in `REPETITION`.

    Without `runs` only lines and paragraphs are counted; the other columns are 0.
    """
    import numpy as np

    kernel = _libraries()[1]
    if isinstance(kernel, str):
        return np.array([repetition_of(text, most, runs) for text in texts.to_pylist()], np.int64).reshape(
            -1, len(REPETITION)
        )
    out = np.empty((len(texts), len(REPETITION)), np.int64)
    raw, offsets = buffers(texts)
    arguments = (raw, offsets.ctypes.data, len(texts), classes().ctypes.data, most, int(runs), out.ctypes.data)
    if not kernel.wuxing_repetition(*arguments):
        raise MemoryError("no memory to count the repetitions of a document")
    return out


@cache
def _libraries() -> tuple[ctypes.CDLL | str, ctypes.CDLL | str]:
    quality, repetition = (compiled(source) for source in SOURCES)
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    texts: list[Any] = [pointer, pointer, number, pointer]
    if not isinstance(quality, str):
        quality.wuxing_quality.argtypes = [*texts, pointer, pointer, number, number, pointer, number, pointer]
        quality.wuxing_quality.restype = None
    if not isinstance(repetition, str):
        repetition.wuxing_repetition.argtypes = [*texts, number, ctypes.c_int, pointer]
        repetition.wuxing_repetition.restype = ctypes.c_int
    return quality, repetition


@cache
def classes() -> NDArray[np.uint8]:
    """What each code point is, as the patterns of the slow truth see it: one byte of bits each."""
    import numpy as np

    table = np.zeros(0x110000, np.uint8)
    every = "".join(map(chr, range(LAST_LETTER)))
    for bit, pattern in ((_SPACE_BIT, r"\s+"), (_LETTER_BIT, r"[^\W\d_]+")):
        for match in re.finditer(pattern, every):
            table[match.start() : match.end()] |= np.uint8(bit)
    for bit, ranges in ((_ALONE_BIT, ALONE), (_SEPARATOR_BIT, SEPARATORS)):
        for first, last in ranges:
            table[first : last + 1] |= np.uint8(bit)
    signs = "".join(re.findall(f"[{_SIGNS}]", every[:0x10000]))
    for bit, characters in ((_SIGN_BIT, signs), (_END_BIT, ENDS), (_CLOSING_BIT, CLOSING), (_STOP_BIT, STOPS)):
        table[[ord(character) for character in characters]] |= np.uint8(bit)
    return table


@cache
def _stop_table() -> tuple[NDArray[np.uint64], NDArray[np.uint8], dict[str, int]]:
    """An open-addressing table of the stop words of all languages, and the number of each language's list.

    List 0 is Chinese.  The key of a word is its FNV-1a hash of 64 bits, told apart by the number of the list.
    """
    import numpy as np

    numbers = {name: number for number, name in enumerate(sorted(STOP_WORDS, key=lambda name: (name != "zh", name)))}
    slots = 1 << (2 * sum(map(len, STOP_WORDS.values()))).bit_length()
    keys, bits = np.zeros(slots, np.uint64), np.zeros(slots, np.uint8)
    for name, words in STOP_WORDS.items():
        for word, bit in words.items():
            key = 0xCBF29CE484222325
            for byte in word.encode():
                key = (key ^ byte) * 0x100000001B3 % (1 << 64)
            key ^= (numbers[name] + 1) * 0x9E3779B97F4A7C15 % (1 << 64)
            at = key % slots
            while keys[at]:
                at = (at + 1) % slots
            keys[at], bits[at] = key, bit
    return keys, bits, numbers
