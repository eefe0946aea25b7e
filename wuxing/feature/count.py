"""Bag of words and TF-IDF as sparse rows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from scipy.sparse import coo_array, csr_array

from wuxing.feature.config import BagOfWords, CountSettings, TfIdf
from wuxing.feature.vocabulary import Vocabulary, count_terms
from wuxing.feature.words import terms_of

if TYPE_CHECKING:
    from wuxing.feature.fitted import Room


class Counts:
    """A vocabulary, and rows that count its terms."""

    sparse: ClassVar[bool] = True
    tolerance: ClassVar[float] = 0.0

    def __init__(self, settings: CountSettings, vocabulary: Vocabulary):
        self.settings, self.vocabulary = settings, vocabulary
        self._index = vocabulary.index()

    @property
    def names(self) -> list[str]:
        """The terms, in the order of the columns."""
        return self.vocabulary.terms

    def apply(self, texts: Sequence[str]) -> csr_array:
        """One row per text; terms that the train split does not hold are left out."""
        rows, columns = [], []
        index = self._index
        for row, text in enumerate(texts):
            known = [index[term] for term in terms_of(text, self.settings) if term in index]
            columns += known
            rows += [row] * len(known)
        shape = (len(texts), len(self.names))
        counted = coo_array((np.ones(len(rows), np.float32), (rows, columns)), shape=shape).tocsr()
        counted.sum_duplicates()
        return self._weighted(counted)

    def _weighted(self, counted: csr_array) -> csr_array:
        if isinstance(self.settings, BagOfWords) and self.settings.binary:
            counted.data[:] = 1
        return counted

    def unseen(self, texts: Sequence[str]) -> tuple[int, int]:
        """How many of the texts' terms are no features, of how many."""
        terms = [term for text in texts for term in terms_of(text, self.settings)]
        return sum(term not in self._index for term in terms), len(terms)

    def save(self, directory: Path) -> None:
        """Write `vocabulary.parquet`."""
        self.vocabulary.save(directory / "vocabulary.parquet")

    @classmethod
    def load(cls, directory: Path, settings: CountSettings) -> Counts:
        """Read what `save` wrote."""
        return kind_of(settings)(settings, Vocabulary.load(directory / "vocabulary.parquet"))


class WeightedCounts(Counts):
    """Counts times inverse document frequency, rows of one length."""

    def __init__(self, settings: TfIdf, vocabulary: Vocabulary):
        super().__init__(settings, vocabulary)
        self.idf = np.log((1 + vocabulary.records) / (1 + vocabulary.in_records)) + 1
        """ln((1 + n) / (1 + df)) + 1 for each term."""

    def _weighted(self, counted: csr_array) -> csr_array:
        assert isinstance(self.settings, TfIdf)
        values = counted.data.astype(np.float64)
        if self.settings.sublinear:
            values = np.log(values) + 1
        values *= self.idf[counted.indices]
        if self.settings.length != "none" and len(values):
            per_row = np.diff(counted.indptr)
            sizes = np.square(values) if self.settings.length == "l2" else np.abs(values)
            totals = np.bincount(np.repeat(np.arange(len(per_row)), per_row), sizes, len(per_row))
            norms = np.sqrt(totals) if self.settings.length == "l2" else totals
            values /= np.repeat(norms, per_row)
        return csr_array((values.astype(np.float32), counted.indices, counted.indptr), shape=counted.shape)


def kind_of(settings: CountSettings) -> type[Counts]:
    """The class of fitted counts for these settings."""
    return WeightedCounts if isinstance(settings, TfIdf) else Counts


def fit(settings: CountSettings, texts: Iterable[str], room: Room) -> Counts:
    """Count the terms of the train split and keep those within the bounds."""
    counting = count_terms((terms_of(text, settings) for text in texts), room.scratch)
    most = settings.max_share * counting.records
    vocabulary = counting.vocabulary(settings.min_records, most, settings.max_features)
    return kind_of(settings)(settings, vocabulary)
