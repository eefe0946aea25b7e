"""The compiled counts equal the slow truth in every number, on any Unicode text."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wuxing.text import statistics
from wuxing.text.shingle import ALONE_CHARACTER, SEPARATORS
from wuxing.text.statistics import (
    QUALITY,
    REPETITION,
    quality_counts,
    quality_of,
    repetition_counts,
    repetition_of,
)
from wuxing.text.stop_words import STOP_WORDS

anything = st.text(st.characters(exclude_categories=("Cs",)), max_size=80)
repeating = st.text(st.sampled_from("aB c.\n\n… -的是，。 #é\u3000\u0301ไ5"), max_size=200)
pieces = ["the", "The", "of", "cat", "的", "是", "，", "。", "...", "\n", "\n \n"]
words = st.lists(st.sampled_from(pieces), max_size=120)
texts = st.lists(anything | repeating | words.map(" ".join) | words.map("".join), max_size=5)
languages = st.sampled_from([None, "en", "zh", "fr", "xx"])


@given(texts, languages, st.integers(0, 40))
@settings(deadline=None, max_examples=400)
def test_counts_equal_the_slow_truth(documents: list[str], language: str | None, short_line: int) -> None:
    array = pa.array(documents, pa.string())
    found = quality_counts(array, [language] * len(documents), short_line)
    assert found.tolist() == [list(quality_of(text, language, short_line)) for text in documents]
    assert repetition_counts(array).tolist() == [list(repetition_of(text)) for text in documents]


@given(texts, st.integers(1, 9))
@settings(deadline=None)
def test_only_the_first_lines_and_tokens_of_a_huge_document_are_judged(documents: list[str], most: int) -> None:
    array = pa.array(documents, pa.large_string())
    assert repetition_counts(array, most).tolist() == [list(repetition_of(text, most)) for text in documents]


def test_every_code_point_is_classified_alike() -> None:
    """One document per code point, around which the words, lines and tokens of the others are known."""
    documents = [f"x{chr(p)}y\n{chr(p)}" for p in range(0x110000) if not 0xD800 <= p < 0xE000]
    documents = [" z ".join(documents[start : start + 64]) for start in range(0, len(documents), 64)]
    array = pa.array(documents)
    assert quality_counts(array).tolist() == [list(quality_of(text)) for text in documents]
    table = statistics.classes()
    for pattern, bit in ((statistics.LETTER, 2), (re.compile(r"\s"), 1), (ALONE_CHARACTER, 4)):
        marked = {match.start() for match in pattern.finditer("".join(map(chr, range(0x110000))))}
        assert set(np.flatnonzero(table & bit).tolist()) == marked
    separated = quality_of("a".join(chr(p) for first, last in SEPARATORS for p in range(first, last + 1)))
    assert (table & 16 > 0).sum() == sum(last - first + 1 for first, last in SEPARATORS) == separated[0] // 2 + 1


def test_real_text_is_counted_alike(data_directory: Path) -> None:
    for name in ("wikipedia-leads-en", "tang-poems-zh"):
        with gzip.open(data_directory / "text" / f"{name}.jsonl.gz", "rt", encoding="utf-8") as lines:
            read = [json.loads(line)["text"] or "" for line, _ in zip(lines, range(900), strict=False)]
        documents = [*read[:300], *("\n\n".join(read[n : n + 30]) for n in range(0, 900, 30)), "\n".join(read)]
        array = pa.array(["out", *documents, "out"]).slice(1, len(documents))
        assert quality_counts(array).tolist() == [list(quality_of(text)) for text in documents]
        assert repetition_counts(array).tolist() == [list(repetition_of(text)) for text in documents]


def test_counts_of_a_document_counted_by_hand() -> None:
    text = "- The cat, the dog...\n\n  Is it 3 # of 汉字？ \nno end\n\nno end"
    found = dict(zip(QUALITY, quality_of(text, "en", 10), strict=True))
    assert found == {
        **{"characters": 57, "words": 16, "word_characters": 38, "alone": 2, "letter_words": 13, "symbols": 2},
        **{"stop_words": 4, "lines": 4, "bullet_lines": 1, "ellipsis_lines": 1, "ended_lines": 2, "short_lines": 2},
        **{"line_characters": 21 + 16 + 6 + 6, "newlines": 5},
    }
    again = dict(zip(REPETITION, repetition_of(text), strict=True))
    assert (again["lines"], again["duplicate_lines"], again["duplicate_line_characters"]) == (4, 1, 6)
    assert (again["paragraphs"], again["duplicate_paragraphs"]) == (3, 0)
    assert again["top_2gram_characters"] == 2 * len("noend")


def test_repeated_runs_counted_by_hand() -> None:
    words = list("abcdeabcdefg")
    assert statistics.repeated_characters(words, 5) == 5
    assert statistics.repeated_characters(words, 10) == 0
    assert statistics.top_characters(words, 2) == 2 * 2
    assert statistics.top_characters(["x", "y"], 2) == 0
    found = dict(zip(REPETITION, repetition_of("aa\nbb\naa\n\naa\n"), strict=True))
    assert [found["duplicate_lines"], found["duplicate_line_characters"], found["line_characters"]] == [2, 4, 8]


def test_every_stop_word_is_one_token_and_found_in_either_case() -> None:
    for language, forms in STOP_WORDS.items():
        for word in forms:
            column = QUALITY.index("stop_words")
            assert quality_of(f"x {word}.", language)[column] == 1, (language, word)
            assert quality_of(f"x {word.capitalize()}.", language)[column] == 1, (language, word)
        every = pa.array([" ".join(forms)])
        assert quality_counts(every, [language])[0, column] == len(set(forms.values()))


def test_without_a_compiler_the_twin_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    array = pa.array(["one two one two", "", "汉字汉字。"])
    expected = [quality_counts(array, [None, "en", "zh"]), repetition_counts(array)]
    monkeypatch.setattr(statistics, "_libraries", lambda: ["no C compiler is installed"] * 2)
    found = [quality_counts(array, [None, "en", "zh"]), repetition_counts(array)]
    assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))
    assert quality_counts(array.slice(0, 0)).shape == (0, len(QUALITY))
