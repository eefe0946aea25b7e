"""Word vectors: gradients against differences, a planted language, the same bits every time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from planted import AROUND, PEOPLE, sentences

from wuxing.core.context import Context
from wuxing.core.error import WuxingError
from wuxing.feature.config import Word2Vec
from wuxing.feature.fitted import Room
from wuxing.feature.skipgram import SkipGram, _chunks, _kept, _pairs
from wuxing.feature.word_vector import WordVectors, fit

SMALL = Word2Vec(width=24, window=5, epochs=8, subsample=1e-2, batch_pairs=256)


def room_of(path: Path, seed: int = 1) -> Room:
    return Room(path / "work", seed, Context(home=path))


@pytest.fixture(scope="module")
def royal(tmp_path_factory: pytest.TempPathFactory) -> WordVectors:
    return fit(SMALL, sentences(3000, 5), room_of(tmp_path_factory.mktemp("royal")))


def test_gradients_are_those_of_differences() -> None:
    torch.manual_seed(3)
    model = SkipGram(6, Word2Vec(width=4, negatives=3), 1)
    model.inputs, model.outputs = torch.randn(6, 4).double(), torch.randn(6, 4).double()
    centres, others, noise = torch.tensor([0, 1, 0]), torch.tensor([2, 3, 5]), torch.tensor([4, 3, 2, 4])
    _, by_centres, by_others, by_noise = model.gradients(centres, others, noise)
    exact = {"inputs": torch.zeros(6, 4).double(), "outputs": torch.zeros(6, 4).double()}
    exact["inputs"].index_add_(0, centres, by_centres.double())
    exact["outputs"].index_add_(0, torch.cat([others, noise]), torch.cat([by_others, by_noise]).double())
    for name, slopes in exact.items():
        table = getattr(model, name)
        for row in range(6):
            for column in range(4):
                losses = []
                for step in (1e-5, -2e-5):
                    table[row, column] += step
                    losses.append(model.gradients(centres, others, noise)[0])
                table[row, column] += 1e-5
                # central differences: the error of order h² is 1e-10, that of rounding 1e-11 / h = 1e-6
                assert abs((losses[0] - losses[1]) / 2e-5 - slopes[row, column]) < 1e-5


def test_pairs_are_those_of_plain_loops() -> None:
    ids, ends = np.array([3, 1, 2, 2, 0, 4, 1], np.int32), np.array([4, 4, 7])
    random = np.random.Generator(np.random.PCG64(5))
    centres, others = _pairs(ids, ends, 0, 3, np.ones(5), 3, random)
    again = np.random.Generator(np.random.PCG64(5))
    again.random(7)
    reach = again.integers(1, 4, 7)
    expected = []
    for start, stop in ((0, 4), (4, 4), (4, 7)):
        for i in range(start, stop):
            expected += [
                (ids[i], ids[j]) for j in range(max(start, i - reach[i]), min(stop, i + reach[i] + 1)) if j != i
            ]
    assert sorted(zip(centres.tolist(), others.tolist(), strict=True)) == sorted(expected)


def test_chunks_cover_all_records() -> None:
    ends = np.cumsum(np.random.default_rng(1).integers(0, 60_000, 40))
    chunks = list(_chunks(ends))
    assert [number for first, last in chunks for number in range(first, last)] == list(range(40))


def test_frequent_words_are_left_out_more_often() -> None:
    kept = _kept(np.array([10, 100, 10_000, 1_000_000]), 1e-3)
    assert list(kept[:2]) == [1, 1] and kept[3] < kept[2] <= 1
    assert list(_kept(np.array([1, 10]), 0)) == [1, 1]


def test_planted_meanings_are_found(royal: WordVectors) -> None:
    for a, b, c, d in (
        ("king", "queen", "man", "woman"),
        ("man", "king", "woman", "queen"),
        ("prince", "princess", "boy", "girl"),
        ("girl", "boy", "queen", "king"),
    ):
        assert PEOPLE[royal.analogy(a, b, c)[0][0]] == PEOPLE[d]
    assert royal.nearest("king", 1)[0][0] == "prince"
    for words in AROUND.values():
        assert {word for word, _ in royal.nearest(words[0], 3)} <= {*words, *PEOPLE}
    assert royal.losses[-1] < royal.losses[0]


def test_the_same_bits_whatever_the_threads(tmp_path: Path) -> None:
    texts, settings = sentences(500, 5), SMALL.model_copy(update={"epochs": 2})
    one = fit(settings, texts, room_of(tmp_path))
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        again = fit(settings, texts, room_of(tmp_path))
    finally:
        torch.set_num_threads(before)
    assert np.array_equal(again.vectors, one.vectors) and again.losses == one.losses
    assert not np.array_equal(fit(settings, texts, room_of(tmp_path, seed=2)).vectors, one.vectors)


def test_round_trip_and_means(tmp_path: Path, royal: WordVectors) -> None:
    royal.save(tmp_path)
    again = WordVectors.load(tmp_path, SMALL)
    text = "the king and the xyz queen"
    assert np.array_equal(again.apply([text, "xyz"]), royal.apply([text, "xyz"]))
    known = ["the", "king", "and", "the", "queen"]
    expected = np.mean([royal.vector(word) for word in known], axis=0)
    assert np.allclose(again.apply([text])[0], expected, atol=1e-6)
    assert not again.apply(["xyz"]).any()
    weighted = WordVectors(SMALL.model_copy(update={"weights": "idf"}), royal.vocabulary, royal.vectors)
    assert not np.allclose(weighted.apply([text]), again.apply([text]))


def test_unknown_words_are_named(royal: WordVectors) -> None:
    with pytest.raises(WuxingError, match='"quen" has no vector. Did you mean "queen"'):
        royal.vector("quen")
    assert royal.unseen(["king xyz"]) == (1, 2)


def test_too_little_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WuxingError, match="smaller min_count"):
        fit(Word2Vec(), ["a b c"], room_of(tmp_path))


def test_chinese_words_have_vectors(tmp_path: Path) -> None:
    settings = Word2Vec(width=8, epochs=2, min_count=2, words="rjieba")
    fitted = fit(settings, ["我爱北京天安门", "我爱北京大学"] * 5, room_of(tmp_path))
    assert {"我", "爱", "北京"} <= set(fitted.vocabulary.terms)
