"""C4's filter of lines (Raffel et al. 2020, section 2.2): the slow truth of `c4.c`, and its call over a column."""

from __future__ import annotations

import ctypes
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wuxing.text.kernel import buffers, compiled, strings
from wuxing.text.statistics import CLOSING, STOPS, WORD, classes

if TYPE_CHECKING:
    import numpy as np
    import pyarrow
    from numpy.typing import NDArray

SOURCE = Path(__file__).with_name("c4.c")
MARKS = tuple(sorted((set(STOPS) - {"\u2026"}) | set("\"'\u2019\u201d\u00bb\u203a\u300b\u300d\u300f")))
"""Signs that end a line which is a sentence."""
_SENTENCE_END = re.compile(f"([{re.escape(STOPS)}]+)[{re.escape(CLOSING)}]*(\\s|$)?")


@dataclass(frozen=True)
class LineRules:
    """Which lines stay."""

    terminal_marks: bool = True
    min_words: int = 3
    max_word_characters: int = 1000
    line_phrases: tuple[str, ...] = ()
    document_phrases: tuple[str, ...] = ()


def lines_of(text: str, rules: LineRules) -> tuple[str, int, int, bool]:
    """The lines that stay, stripped; their sentences; how many went; whether a phrase forbids the document."""
    kept = []
    lines = [line.strip() for line in text.split("\n")]
    for line in lines:
        words = WORD.findall(line)
        few = len(words) < rules.min_words or max(map(len, words), default=0) > rules.max_word_characters
        open_end = rules.terminal_marks and (not line.endswith(MARKS) or line.endswith("..."))
        if not few and not open_end and not _holds(line, rules.line_phrases):
            kept.append(line)
    removed = sum(map(bool, lines)) - sum(map(bool, kept))
    return "\n".join(kept), sum(map(sentences_of, kept)), removed, _holds(text, rules.document_phrases)


def sentences_of(line: str) -> int:
    """Ends of sentences in a line: signs before space or the end, and any sign of a script without spaces."""
    return sum(
        match[2] is not None or any(sign not in ".!?\u2026" for sign in match[1])
        for match in _SENTENCE_END.finditer(line)
    )


def _lower(text: str) -> str:
    return text.encode().lower().decode()


def _holds(text: str, phrases: tuple[str, ...]) -> bool:
    lowered = _lower(text)
    return any(_lower(phrase) in lowered for phrase in phrases)


@dataclass(frozen=True)
class Lines:
    """`lines_of` for each value of a column."""

    texts: pyarrow.Array
    sentences: NDArray[np.int64]
    removed: NDArray[np.int64]
    bad: NDArray[np.bool_]


def filter_lines(texts: pyarrow.Array, rules: LineRules) -> Lines:
    """C4's filter over an Arrow string array without nulls."""
    import numpy as np
    import pyarrow as pa

    kernel = _library()
    if isinstance(kernel, str):
        rows: list[Any] = [lines_of(text, rules) for text in texts.to_pylist()]
        new, sentences, removed, bad = zip(*rows, strict=True) if rows else ((), (), (), ())
        new = pa.array(new, texts.type)
        return Lines(new, np.array(sentences, np.int64), np.array(removed, np.int64), np.array(bad, bool))
    raw, offsets = buffers(texts)
    out = np.empty(int(offsets[-1] - offsets[0]) + 1, np.uint8)
    ends, counts = np.zeros(len(texts) + 1, np.int64), np.zeros((2, len(texts)), np.int64)
    flags = np.zeros(len(texts), np.uint8)
    held = [_packed(rules.line_phrases), _packed(rules.document_phrases)]
    packed = [value for text, at in held for value in (text, at.ctypes.data, len(at) - 1)]
    kernel.wuxing_c4(
        *(raw, offsets.ctypes.data, len(texts), classes().ctypes.data, *packed),
        *(rules.min_words, rules.max_word_characters, int(rules.terminal_marks)),
        *(out.ctypes.data, ends[1:].ctypes.data, counts[0].ctypes.data, counts[1].ctypes.data, flags.ctypes.data),
    )
    return Lines(strings(out, ends, texts.type), counts[0], counts[1], flags.astype(bool))


def _packed(phrases: tuple[str, ...]) -> tuple[bytes, NDArray[np.int64]]:
    import numpy as np

    raw = [_lower(phrase).encode() for phrase in phrases]
    return b"".join(raw), np.cumsum([0, *map(len, raw)], dtype=np.int64)


@cache
def _library() -> ctypes.CDLL | str:
    loaded = compiled(SOURCE)
    if isinstance(loaded, str):
        return loaded
    pointer, number, count = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int
    phrases: list[Any] = [ctypes.c_char_p, pointer, count]
    loaded.wuxing_c4.argtypes = [pointer, pointer, number, pointer, *phrases, *phrases, number, number, count]
    loaded.wuxing_c4.argtypes += [pointer] * 5
    loaded.wuxing_c4.restype = None
    return loaded
