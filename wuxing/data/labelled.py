"""Documents with a class, whole and several to a row: what a classifier learns from.

The label stands at a document's last token; the rows hold the plain ids, as `tokenizer(text)` gives them.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wuxing.core.digest import digest_of
from wuxing.core.error import WuxingError
from wuxing.core.record import Record
from wuxing.data.packing import IGNORED, Row, best_fit, padded, score_of
from wuxing.data.tokens import TokenSet


@dataclass(frozen=True)
class Labelled:
    """Whole documents by best fit; one that is longer than a row keeps its beginning."""

    data: TokenSet
    classes: NDArray[np.int64]
    """Of each document."""
    length: int

    @property
    def rows(self) -> int:
        return len(self._plan[1]) - 1

    @cached_property
    def _plan(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(documents in the order of their rows, bounds of each row in it)."""
        filled = np.flatnonzero(self.data.tokens > 1)
        order, bounds = best_fit(self._sizes[filled], self.length)
        return filled[order], bounds

    @cached_property
    def _sizes(self) -> NDArray[np.int64]:
        return np.minimum(self.data.tokens - 1, self.length)  # without the end-of-text

    @cached_property
    def digest(self) -> str:
        plan = hashlib.sha256(b"".join(part.tobytes() for part in (*self._plan, self.classes))).hexdigest()
        return digest_of({"packing": "labelled", "length": self.length, "data": self.data.digest, "plan": plan})

    @property
    def losses(self) -> dict[str, float]:
        kept, of_all = int(self._sizes.sum()), int((self.data.tokens - 1).sum())
        padding = 1 - kept / max(1, self.rows * self.length)
        return {"padding": padding, "truncated": 1 - kept / max(1, of_all), "fully_masked": float(self._empty)}

    @property
    def _empty(self) -> int:
        return int(np.count_nonzero(self.data.tokens <= 1))

    @property
    def fates(self) -> dict[str, int]:
        truncated = int(np.count_nonzero(self.data.tokens - 1 > self.length))
        kept = len(self.data) - truncated - self._empty
        return {"kept": kept, "truncated": truncated, "fully_masked": self._empty}

    def __getitem__(self, row: int) -> Row:
        documents, bounds = self._plan
        tokens, labels, positions, numbers = [], [], [], []
        for number, document in enumerate(documents[bounds[row] : bounds[row + 1]].tolist()):
            start, size = int(self.data.start[document]), int(self._sizes[document])
            tokens.append(self.data.ids[start : start + size].astype(np.int64))
            label = np.full(size, IGNORED)
            label[-1] = self.classes[document]
            labels.append(label)
            positions.append(np.arange(size))
            numbers.append(np.full(size, number))
        ids, targets, places, marks = (np.concatenate(part) for part in (tokens, labels, positions, numbers))
        return padded(ids, targets, places, marks, self.length)

    def describe(self, row: int) -> list[str]:
        documents, bounds = self._plan
        return [self.data.names[number] for number in documents[bounds[row] : bounds[row + 1]].tolist()]

    def scores(self, by: str) -> NDArray[np.float64]:
        documents, bounds = self._plan
        return np.add.reduceat(score_of(self.data, by)[documents], bounds[:-1]) / np.diff(bounds)


def label_of(record: Record, field: str) -> Any:
    """What a record says of its class: its own label, or a field of its meta."""
    own = record.label if field == "label" else None
    return record.meta.get(field) if own is None else own


def labels_of(corpus: Path, split: str, data: TokenSet, field: str) -> list[str]:
    """The label of each document: its record's own, or a field of its meta.  Raises WuxingError where one has none."""
    from wuxing.core.splits import read_records

    found: dict[str, Any] = {record.id: label_of(record, field) for record in read_records(corpus, split)}
    labels = [found.get(name) for name in data.names]
    missing = [name for name, label in zip(data.names, labels, strict=True) if not isinstance(label, str | int)]
    if missing:
        raise WuxingError(
            f'{len(missing)} of {len(labels)} records of {corpus.parent.name} ({split}) have no class "{field}", '
            f"such as {missing[0]}",
            "Name the field in objective: {classify: {label: ...}}; a source keeps it by fields",
        )
    return [str(label) for label in labels]


def classes_of(labels: Sequence[Sequence[str]]) -> dict[str, int]:
    """Every class and how many documents have it, in the order of the names.  Raises WuxingError for a single one."""
    counts = Counter(label for some in labels for label in some)
    if len(counts) < 2:
        raise WuxingError(f"the training documents have {len(counts)} class", "A classifier needs two at least")
    return dict(sorted(counts.items()))


def labelled(data: TokenSet, labels: Sequence[str], classes: Mapping[str, int], length: int) -> Labelled:
    """The documents with the numbers of their classes.  Raises WuxingError for a class that training never shows."""
    numbers = {name: number for number, name in enumerate(classes)}
    foreign = sorted(set(labels) - set(numbers))
    if foreign:
        raise WuxingError(f'held-out documents have the class "{foreign[0]}", training ones never', "Split it anew")
    return Labelled(data, np.array([numbers[label] for label in labels], np.int64), length)
