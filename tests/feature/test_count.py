"""Bag of words and TF-IDF against scikit-learn and plain counting."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_corpus import banking, sentiment, tang

from wuxing.core.context import Context
from wuxing.feature.config import BagOfWords, TfIdf, Word2Vec
from wuxing.feature.count import Counts, fit
from wuxing.feature.fitted import Room
from wuxing.feature.vocabulary import Vocabulary, count_terms
from wuxing.feature.words import terms_of, words_of


@pytest.fixture
def room(tmp_path: Path) -> Room:
    return Room(tmp_path / "work", 7, Context(home=tmp_path))


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ({}, {}),
        ({"ngrams": 2, "sublinear": True}, {"ngram_range": (1, 2), "sublinear_tf": True}),
        ({"length": "l1", "min_records": 4, "max_share": 0.2}, {"norm": "l1", "min_df": 4, "max_df": 0.2}),
        ({"length": "none", "ngrams": 3, "min_records": 1}, {"norm": None, "ngram_range": (1, 3), "min_df": 1}),
        ({"lowercase": False, "min_records": 1}, {"lowercase": False, "min_df": 1}),
    ],
)
def test_tf_idf_is_scikit_learns(data_directory: Path, room: Room, ours: dict, theirs: dict) -> None:
    from sklearn.feature_extraction.text import TfidfVectorizer

    texts = [record.text or "" for record in sentiment(data_directory)[:1200]]
    texts = [text.encode("ascii", "ignore").decode() for text in texts]
    fitted = fit(TfIdf(**ours), texts[:900], room)
    reference = TfidfVectorizer(**{"min_df": 2, "token_pattern": "[A-Za-z0-9]+", **theirs})
    expected = reference.fit(texts[:900]).transform(texts[900:])
    assert fitted.names == list(reference.get_feature_names_out())
    # float32 against float64: 2^-24 of values up to 1 (l2, l1) or some tens (none)
    assert abs(fitted.apply(texts[900:]) - expected).max() < (2e-5 if ours.get("length") == "none" else 1e-6)


def test_most_frequent_terms_stay(data_directory: Path, room: Room) -> None:
    texts = [record.text or "" for record in banking(data_directory, "train", 500)]
    counts = Counter(term for text in texts for term in words_of(text, BagOfWords()))
    kept = fit(BagOfWords(max_features=50, min_records=1), texts, room).names
    assert sorted(kept) == kept == sorted(sorted(counts, key=lambda term: (-counts[term], term))[:50])


@given(st.lists(st.text(alphabet="ab一二 .Ａ\U0001f600é", max_size=30), min_size=1, max_size=6))
def test_rows_count_terms(texts: list[str]) -> None:
    settings = BagOfWords(ngrams=2, min_records=1)
    counting = count_terms((terms_of(text, settings) for text in texts), Path("unused"))
    counts = Counts(settings, counting.vocabulary(1, float("inf"), 1000))
    rows = counts.apply(texts).toarray()
    for row, text in zip(rows, texts, strict=True):
        expected = Counter(terms_of(text, settings))
        assert {name: int(n) for name, n in zip(counts.names, row, strict=True) if n} == dict(expected)
    assert counts.unseen(texts)[0] == 0


def test_binary_rows_do_not_count() -> None:
    counting = count_terms([["a", "b"], ["a"]], Path("unused"))
    vocabulary = counting.vocabulary(1, float("inf"), 10)
    assert Counts(BagOfWords(binary=True), vocabulary).apply(["a a a b"]).toarray().tolist() == [[1, 1]]


def test_counts_that_outgrow_memory_are_the_same(data_directory: Path, tmp_path: Path) -> None:
    settings = BagOfWords(ngrams=2)
    terms = [terms_of(record.text or "", settings) for record in sentiment(data_directory)[:400]]
    whole = count_terms(terms, tmp_path / "a").vocabulary(2, 300, 500)
    spilt = count_terms(terms, tmp_path / "b", limit=300)
    assert len(list((tmp_path / "b").iterdir())) > 5
    found = spilt.vocabulary(2, 300, 500)
    assert found.terms == whole.terms and found.records == whole.records
    assert np.array_equal(found.counts, whole.counts) and np.array_equal(found.in_records, whole.in_records)
    assert not list((tmp_path / "b").iterdir())


def test_vocabulary_round_trip(tmp_path: Path) -> None:
    vocabulary = Vocabulary(["a", "啊"], np.array([1, 2]), np.array([3, 4]), 9)
    vocabulary.save(tmp_path / "v.parquet")
    again = Vocabulary.load(tmp_path / "v.parquet")
    assert (again.terms, again.in_records.tolist(), again.counts.tolist(), again.records) == (
        ["a", "啊"],
        [1, 2],
        [3, 4],
        9,
    )


def test_scripts_without_spaces_give_characters_and_pairs() -> None:
    assert terms_of("Hi 北京大学, ok", BagOfWords()) == ["hi", "北", "京", "大", "学", "北京", "京大", "大学", "ok"]
    assert "京大学" in terms_of("北京大学", BagOfWords(ngrams=3))
    assert terms_of("北京。大学", BagOfWords()) == ["北", "京", "北京", "大", "学", "大学"]
    assert "new york" in terms_of("New York 北京", BagOfWords(ngrams=2))
    assert "york 北" not in terms_of("New York 北京", BagOfWords(ngrams=2))
    assert terms_of("ab c", BagOfWords(words="characters", ngrams=2)) == ["a", "b", " ", "c", "ab", "b ", " c"]


def test_rjieba_cuts_chinese_words() -> None:
    assert terms_of("我爱北京天安门 GPT-4", BagOfWords(words="rjieba")) == ["我", "爱", "北京", "天安门", "gpt", "4"]
    assert words_of("机器学习 model", Word2Vec(words="rjieba")) == ["机器", "学习", "model"]


def test_pairs_of_characters_tell_poets_apart(data_directory: Path, room: Room) -> None:
    from sklearn.linear_model import LogisticRegression

    poems = [record for record in tang(data_directory, 20_000) if record.label in ("白居易", "杜甫")]
    texts, labels = [poem.text or "" for poem in poems], [poem.label for poem in poems]
    half = [i % 4 != 0 for i in range(len(poems))]
    rest = [not inside for inside in half]
    fitted = fit(TfIdf(), [text for text, inside in zip(texts, half, strict=True) if inside], room)
    rows = fitted.apply(texts)
    model = LogisticRegression(C=10).fit(rows[half], np.array(labels)[half])
    share = Counter(label for label, out in zip(labels, rest, strict=True) if out).most_common(1)[0][1] / sum(rest)
    assert model.score(rows[rest], np.array(labels)[rest]) > share + 0.1
