"""Near duplicates: against all pairs compared exactly, for theory, for order, and for real pages."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from wuxing.corpus.duplicate import bands_for, first_of_equal, near_clusters
from wuxing.corpus.residue import near_twins
from wuxing.text.kernel import minhash
from wuxing.text.shingle import shingles_of

GENERATOR = np.random.default_rng(5)
VOCABULARY = [f"w{n}" for n in range(3000)]


def families(count: int, changes: tuple[int, ...]) -> list[str]:
    """Documents of 200 words, each followed by copies in which so many words are replaced."""
    found = []
    for _ in range(count):
        words = [VOCABULARY[n] for n in GENERATOR.integers(0, 3000, 200)]
        found.append(" ".join(words))
        for change in changes:
            other = list(words)
            for place in GENERATOR.choice(200, change, replace=False):
                other[place] = VOCABULARY[GENERATOR.integers(0, 3000)]
            found.append(" ".join(other))
    return found


def clusters_of(texts: list[str], jaccard: float) -> np.ndarray:
    signatures = minhash(pa.array(texts, pa.string()), 5, 128)
    return near_clusters(signatures, jaccard, (signatures != 0xFFFFFFFF).any(axis=1))


def test_copies_are_found_and_strangers_stay() -> None:
    texts = families(60, (1, 2, 60))
    clusters = clusters_of(texts, 0.8)
    for start in range(0, len(texts), 4):
        assert clusters[start : start + 4].tolist() == [start, start, start, start + 3]


def test_the_kept_documents_have_no_twin_among_each_other() -> None:
    """Against the exact similarity of all pairs, a tenth above the threshold (2.8 standard errors of an estimate)."""
    texts = families(80, (1, 3, 5, 8, 12))
    clusters = clusters_of(texts, 0.7)
    kept = np.flatnonzero(clusters == np.arange(len(texts)))
    best = near_twins(lambda: [pa.array([texts[i] for i in kept])], np.arange(len(kept)), 5)
    assert (best < 0.8).all()
    assert 80 <= len(kept) < len(texts)


def test_what_is_dropped_was_near_something_kept() -> None:
    texts = families(80, (1, 5, 12, 20))
    clusters = clusters_of(texts, 0.7)
    sets = [set(shingles_of(text, 5).tolist()) for text in texts]
    for index in np.flatnonzero(clusters != np.arange(len(texts))):
        assert any(len(sets[index] & s) / len(sets[index] | s) > 0.55 for n, s in enumerate(sets) if n != index)


def test_the_first_of_a_cluster_stays_in_any_order() -> None:
    texts = families(40, (1, 1))
    order = GENERATOR.permutation(len(texts))
    forwards, shuffled = clusters_of(texts, 0.8), clusters_of([texts[i] for i in order], 0.8)
    assert (forwards <= np.arange(len(texts))).all()
    assert (forwards[forwards] == forwards).all()
    groups = {frozenset(np.flatnonzero(forwards == root).tolist()) for root in set(forwards.tolist())}
    again = {frozenset(order[np.flatnonzero(shuffled == root)].tolist()) for root in set(shuffled.tolist())}
    assert groups == again


def test_documents_without_words_are_never_duplicates() -> None:
    assert clusters_of(["", "...", "", "?!", "one word", "one word"], 0.8).tolist() == [0, 1, 2, 3, 4, 4]
    assert clusters_of([], 0.8).tolist() == []


def test_chinese_documents_are_compared_by_characters() -> None:
    text = "春眠不覺曉處處聞啼鳥夜來風雨聲花落知多少床前明月光疑是地上霜舉頭望明月低頭思故鄉"
    assert clusters_of([text, text[:20] + "，" + text[20:], text[::-1]], 0.8).tolist() == [0, 0, 2]


@pytest.mark.parametrize("jaccard", [0.4, 0.5, 0.7, 0.8, 0.9, 1.0])
def test_bands_miss_at_most_one_in_a_hundred_at_the_threshold(jaccard: float) -> None:
    bands = bands_for(jaccard, 128)
    assert bands.found(jaccard) >= 0.99
    assert bands.count * bands.rows <= 128
    met = GENERATOR.random((4000, bands.count, bands.rows)) < jaccard
    assert met.all(axis=2).any(axis=1).mean() == pytest.approx(bands.found(jaccard), abs=0.01)


def test_first_of_equal_keys() -> None:
    keys = np.array([b"b" * 16, b"a" * 16, b"b" * 16, b"\x00" * 16, b"a" * 16]).astype("S16").view("V16")
    assert first_of_equal(keys).tolist() == [0, 1, 0, 3, 1]


def test_twins_are_found_exactly(data_directory: Path) -> None:
    """The evidence's inverted index equals the similarity of all pairs of sets, on real near-duplicate pages."""
    with gzip.open(data_directory / "messy" / "near-duplicate-api-pages.jsonl.gz", "rt", encoding="utf-8") as lines:
        texts = [json.loads(line)["text"] for line, _ in zip(lines, range(150), strict=False)]
    sets = [set(shingles_of(text, 5).tolist()) for text in texts]
    exact = [max(len(a & b) / len(a | b) for m, b in enumerate(sets) if m != n) for n, a in enumerate(sets)]
    chunks = [pa.array(texts[:70]), pa.array([], pa.string()), pa.array(texts[70:])]
    assert near_twins(lambda: chunks, np.arange(len(texts)), 5) == pytest.approx(exact)
    sampled = np.array([3, 69, 70, 149])
    assert near_twins(lambda: chunks, sampled, 5) == pytest.approx([exact[n] for n in sampled])
    assert near_twins(list, np.arange(0), 5).tolist() == []
