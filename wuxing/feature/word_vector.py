"""Word2Vec as a transform: a vocabulary, vectors trained on the train split, the mean of a text's vectors."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from wuxing.core.error import WuxingError, nearest
from wuxing.core.file import read_json, write_json
from wuxing.feature.config import Word2Vec
from wuxing.feature.thread import one_thread
from wuxing.feature.vocabulary import Vocabulary, count_terms
from wuxing.feature.words import words_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from wuxing.feature.fitted import Room

WORDS_PER_WRITE = 1 << 20


class WordVectors:
    """Vectors of words, and what is done with them."""

    sparse: ClassVar[bool] = False
    tolerance: ClassVar[float] = 0.0

    def __init__(
        self, settings: Word2Vec, vocabulary: Vocabulary, vectors: NDArray[np.float32], losses: Sequence[float] = ()
    ):
        self.settings, self.vocabulary, self.vectors, self.losses = settings, vocabulary, vectors, list(losses)
        self._index = vocabulary.index()
        idf = np.log((1 + vocabulary.records) / (1 + vocabulary.in_records)) + 1
        self._weights = idf if settings.weights == "idf" else np.ones(len(idf))

    @property
    def names(self) -> list[str]:
        """`d0`, `d1`, ..."""
        return [f"d{place}" for place in range(self.settings.width)]

    def apply(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """The weighted mean of the vectors of each text's words; zeros where none is known."""
        rows = np.zeros((len(texts), self.settings.width), np.float32)
        for row, text in zip(rows, texts, strict=True):
            known = [self._index[word] for word in words_of(text, self.settings) if word in self._index]
            if known:
                row[:] = np.average(self.vectors[known].astype(np.float64), 0, self._weights[known])
        return rows

    def unseen(self, texts: Sequence[str]) -> tuple[int, int]:
        """How many of the texts' words have no vector, of how many."""
        words = [word for text in texts for word in words_of(text, self.settings)]
        return sum(word not in self._index for word in words), len(words)

    def vector(self, word: str) -> NDArray[np.float32]:
        """The vector of a word; WuxingError when it has none."""
        if word not in self._index:
            raise WuxingError(f'"{word}" has no vector', nearest(word, self._index).partition("Known:")[0] or None)
        vector: NDArray[np.float32] = self.vectors[self._index[word]]
        return vector

    def nearest(self, word: str | NDArray[np.float32], count: int = 10) -> list[tuple[str, float]]:
        """The words whose vectors have the largest cosine with a word's (itself left out), or with a vector."""
        own, wanted = (word, self.vector(word)) if isinstance(word, str) else (None, word)
        lengths = np.linalg.norm(self.vectors, axis=1) * np.linalg.norm(wanted)
        cosines = self.vectors @ wanted / np.maximum(lengths, 1e-12)
        order = np.argsort(-cosines, kind="stable")
        found = [(self.vocabulary.terms[i], float(cosines[i])) for i in order[: count + 1]]
        return [pair for pair in found if pair[0] != own][:count]

    def analogy(self, a: str, b: str, c: str, count: int = 1) -> list[tuple[str, float]]:
        """a is to b as c is to ...: the words nearest to b - a + c, each scaled to length 1 (Mikolov et al. 2013)."""
        va, vb, vc = (self.vector(word) / np.linalg.norm(self.vector(word)) for word in (a, b, c))
        found = self.nearest(vb - va + vc, count + 3)
        return [pair for pair in found if pair[0] not in (a, b, c)][:count]

    def save(self, directory: Path) -> None:
        """Write `vocabulary.parquet`, `vectors.safetensors` and `losses.json`."""
        from safetensors.numpy import save_file

        self.vocabulary.save(directory / "vocabulary.parquet")
        save_file({"vectors": np.ascontiguousarray(self.vectors)}, directory / "vectors.safetensors")
        write_json(directory / "losses.json", self.losses)

    @classmethod
    def load(cls, directory: Path, settings: Word2Vec) -> WordVectors:
        """Read what `save` wrote."""
        from safetensors.numpy import load_file

        vectors = load_file(directory / "vectors.safetensors")["vectors"]
        vocabulary = Vocabulary.load(directory / "vocabulary.parquet")
        return cls(settings, vocabulary, vectors, read_json(directory / "losses.json"))


def fit_vocabulary(settings: Word2Vec, texts: Iterable[str], room: Room) -> Vocabulary:
    """The words of the train split that get a vector."""
    counting = count_terms((words_of(text, settings) for text in texts), room.scratch)
    return counting.vocabulary(1, float("inf"), settings.max_words, settings.min_count)


def fit(settings: Word2Vec, texts: Iterable[str], room: Room) -> WordVectors:
    """Count the words of the train split, write it as ids, learn the vectors.  `texts` is read twice."""
    from wuxing.feature.skipgram import train

    vocabulary = fit_vocabulary(settings, texts, room)
    if len(vocabulary.terms) < 2:
        raise WuxingError(
            f"word2vec finds {len(vocabulary.terms)} words that occur {settings.min_count} times in the train split",
            "Give more text, or a smaller min_count",
        )
    path = room.scratch / "words.int32"
    ends = _write_ids(settings, vocabulary, texts, path)
    if not path.stat().st_size:
        raise WuxingError("word2vec finds no words in the train split", "Give more text")
    ids = np.memmap(path, np.int32, "r")
    with one_thread():
        vectors, losses = train(ids, ends, vocabulary.counts, settings, room.seed, room.said)
    del ids
    path.unlink()
    return WordVectors(settings, vocabulary, vectors, losses)


def _write_ids(settings: Word2Vec, vocabulary: Vocabulary, texts: Iterable[str], path: Path) -> NDArray[np.int64]:
    index, ends, total = vocabulary.index(), [], 0
    waiting: list[int] = []
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as file:
        for text in texts:
            known = [index[word] for word in words_of(text, settings) if word in index]
            waiting += known
            total += len(known)
            ends.append(total)
            if len(waiting) >= WORDS_PER_WRITE:
                file.write(np.array(waiting, np.int32).tobytes())
                waiting = []
        file.write(np.array(waiting, np.int32).tobytes())
    return np.array(ends, np.int64)
