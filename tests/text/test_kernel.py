"""The C kernel equals its NumPy twin in every bit, and MinHash errs as theory says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wuxing.text import kernel
from wuxing.text.shingle import minhash_of, shingles_of, tokens_of

texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=60)


def test_the_compiled_kernel_is_what_these_tests_compare() -> None:
    assert kernel.missing_reason() is None


@given(st.lists(texts, max_size=6), st.integers(1, 16))
@settings(deadline=None)
def test_the_kernel_equals_its_twin(documents: list[str], width: int) -> None:
    array = pa.array(documents, pa.string())
    assert (kernel.minhash(array, width, 16) == minhash_of(documents, width, 16)).all()
    found, ends = kernel.shingles(array, width)
    expected = [shingles_of(text, width) for text in documents]
    assert ends.tolist() == np.cumsum([len(part) for part in expected]).tolist()
    assert found.tolist() == [value for part in expected for value in part.tolist()]


def test_every_code_point_is_classified_alike() -> None:
    points = [p for p in range(0x110000) if not 0xD800 <= p < 0xE000]
    pieces = [points[start : start + 65536] for start in range(0, len(points), 65536)]
    documents = [" ".join(f"{chr(p)}b" for p in piece) for piece in pieces]
    found, ends = kernel.shingles(pa.array(documents), 1)
    starts = [0, *ends[:-1]]
    for start, end, text in zip(starts, ends, documents, strict=True):
        assert (found[start:end] == shingles_of(text, 1)).all()


def test_sliced_and_wide_arrays_are_read_from_their_offset() -> None:
    documents = ["one two three four five six", "", "the rest of the words here", "汉字没有空格"]
    for kind in (pa.string(), pa.large_string()):
        array = pa.array(["before", *documents, "after"], kind).slice(1, 4)
        assert (kernel.minhash(array, 5, 32) == minhash_of(documents, 5, 32)).all()


def test_long_documents_cross_the_blocks_of_the_kernel() -> None:
    text = " ".join(f"w{n}" for n in range(5000))
    assert (kernel.minhash(pa.array([text]), 5, 32) == minhash_of([text], 5, 32)).all()


def test_tokens_are_words_and_characters() -> None:
    assert tokens_of("The CAT's 3 hats, 汉字ABC！ไทย") == [
        *("the", "cat", "s", "3", "hats", "汉", "字", "abc"),
        *("ไ", "ท", "ย"),
    ]


@pytest.mark.parametrize("alphabet", ["words", "characters"])
def test_the_error_of_minhash_is_the_theory(alphabet: str) -> None:
    """RMSE = sqrt(J (1 - J) / 128) within 8 %: 1,500 pairs leave it uncertain by 1/sqrt(3,000) = 1.8 %."""
    generator = np.random.default_rng(1)
    vocabulary = [f"w{n}" for n in range(5000)] if alphabet == "words" else [chr(0x4E00 + n) for n in range(5000)]
    join = " ".join if alphabet == "words" else "".join
    pairs = []
    for _ in range(1500):
        words = [vocabulary[n] for n in generator.integers(0, 5000, 200)]
        other = list(words)
        for place in generator.choice(200, int(generator.integers(1, 30)), replace=False):
            other[place] = vocabulary[generator.integers(0, 5000)]
        pairs.append((join(words), join(other)))
    left, right = (kernel.minhash(pa.array(side), 5, 128) for side in zip(*pairs, strict=True))
    estimates = (left == right).mean(axis=1)
    sets = [[set(shingles_of(text, 5).tolist()) for text in pair] for pair in pairs]
    truths = np.array([len(a & b) / len(a | b) for a, b in sets])
    theory = np.sqrt((truths * (1 - truths) / 128).mean())
    assert np.sqrt(((estimates - truths) ** 2).mean()) == pytest.approx(theory, rel=0.08)
    assert abs((estimates - truths).mean()) < 4 * theory / np.sqrt(1500)


def test_without_a_compiler_the_twin_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    kernel.native.cache_clear()
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("WUXING_KERNELS", str(tmp_path))
    try:
        assert kernel.missing_reason() == "no C compiler is installed"
        documents = ["one two three", "汉字"]
        assert (kernel.minhash(pa.array(documents), 2, 16) == minhash_of(documents, 2, 16)).all()
        assert kernel.shingles(pa.array(documents), 2)[1].tolist() == [2, 3]
    finally:
        kernel.native.cache_clear()
