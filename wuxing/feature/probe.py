"""Do the features say anything about the labels?  A linear model on them against the most frequent label."""

from __future__ import annotations

import warnings
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

from wuxing.core.statistic import Difference, Estimate, share_difference, wilson
from wuxing.feature.matrix import Features, stacked
from wuxing.feature.reference import rows_within
from wuxing.feature.scale import fit as fit_scale
from wuxing.feature.transform import side_by_side

if TYPE_CHECKING:
    from wuxing.feature.fitted import Matrix

MAX_ITERATIONS = 100
MAX_CLASSES = 100
"""With more labels the most frequent ones are told apart; 2,123 poets took 9 GB and did not end."""
MAX_WEIGHTS = 400_000
"""Classes × features: of more features those that are least often 0 are used.  The solver holds some 25 copies."""
TELLING = 8
"""Features named per class."""


@dataclass(frozen=True)
class Probe:
    """A linear model's held-out accuracy, and by how much it beats the most frequent label."""

    split: str
    classes: int
    accuracy: Estimate
    majority: Estimate
    gain: Difference
    telling: dict[str, list[str]]
    """Per class the features with the largest weights, of at most 20 classes."""
    left_out: int = 0
    """Rarer classes whose records have no part in it."""

    def to_json(self) -> dict[str, Any]:
        return {
            "split": self.split,
            "classes": self.classes,
            "classes_left_out": self.left_out,
            "accuracy": self.accuracy.to_json(),
            "majority": self.majority.to_json(),
            "gain": self.gain.to_json(),
        }


def labelled(features: Features, split: str, most: int) -> tuple[Matrix, list[str]] | None:
    """The rows of a split that have a label, at most `most`, evenly spaced."""
    classes = features.classes(split)
    places = [place for place, label in enumerate(classes) if label is not None]
    if not places:
        return None
    chosen = np.array(places)[np.unique(np.linspace(0, len(places) - 1, min(most, len(places))).astype(np.int64))]
    blocks, seen = [], 0
    for rows in features.blocks(split):
        mine = chosen[(chosen >= seen) & (chosen < seen + len(rows.ids))] - seen
        blocks.append(side_by_side(rows.blocks)[mine])
        seen += len(rows.ids)
    return stacked(blocks), [str(classes[place]) for place in chosen]


def probe(features: Features, max_records: int) -> Probe | str:
    """Train on the train split, judge on validation (on test where there is none); or why there is no probe."""
    max_records = min(max_records, rows_within(features))
    train = labelled(features, "train", max_records)
    if train is None:
        return "the records of the train split have no labels"
    if len(set(train[1])) < 2:
        return "the train split has one class only"
    for split in ("validation", "test"):
        held_out = labelled(features, split, max_records)
        if held_out is not None:
            return _judged(features.names, train, held_out, split)
    return "no held-out record has a label"


def linear_model(rows: Matrix, labels: list[str], weights: np.ndarray | None = None) -> tuple[Any, Any]:
    """A logistic regression (L2, C = 1) on rows whose columns are brought to one scale; returns scale and model.

    `weights`: how much each row counts.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    scale = fit_scale("max_abs" if isinstance(rows, sparse.csr_array) else "standard", [rows], rows.shape[1])
    model = LogisticRegression(C=1.0, max_iter=MAX_ITERATIONS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # stopped early is a fair probe, and deterministic
        model.fit(scale.apply(rows), labels, sample_weight=weights)
    return scale, model


def _judged(
    names: list[str], train: tuple[Matrix, list[str]], held_out: tuple[Matrix, list[str]], split: str
) -> Probe | str:
    counts = Counter(train[1])
    ranked = sorted(counts, key=lambda label: (-counts[label], label))
    classes = set(ranked[:MAX_CLASSES])
    columns = _fullest(train[0], MAX_WEIGHTS // len(classes))
    (rows, labels), (tried, wanted) = (_narrowed(*part, classes, columns) for part in (train, held_out))
    if not wanted:
        return f"no record of {split} has one of the {len(classes)} most frequent labels"
    scale, model = linear_model(rows, labels)
    said = model.predict(scale.apply(tried))
    right = [bool(a == b) for a, b in zip(said, wanted, strict=True)]
    lazy = [ranked[0] == label for label in wanted]
    n = len(right)
    return Probe(
        split,
        len(classes),
        wilson(sum(right), n),
        wilson(sum(lazy), n),
        share_difference(lazy, right),
        _telling([names[column] for column in columns], model),
        len(counts) - len(classes),
    )


def _fullest(rows: Matrix, most: int) -> np.ndarray:
    """The columns with the most values that are not 0, at most `most`, in their order."""
    if rows.shape[1] <= most:
        return np.arange(rows.shape[1])
    if isinstance(rows, sparse.csr_array):
        filled = np.bincount(rows.indices, minlength=rows.shape[1])
    else:
        filled = np.count_nonzero(rows, axis=0)
    return np.sort(np.argsort(-filled, kind="stable")[:most])


def _narrowed(rows: Matrix, labels: list[str], classes: set[str], columns: np.ndarray) -> tuple[Matrix, list[str]]:
    places = [place for place, label in enumerate(labels) if label in classes]
    kept = rows[np.array(places, np.int64)]
    return (kept if len(columns) == rows.shape[1] else kept[:, columns]), [labels[place] for place in places]


def _telling(names: list[str], model: Any) -> dict[str, list[str]]:
    weights = model.coef_ if len(model.coef_) > 1 else np.vstack([-model.coef_[0], model.coef_[0]])
    if len(model.classes_) > 20:
        return {}
    return {
        str(label): [names[i] for i in np.argsort(-row, kind="stable")[:TELLING]]
        for label, row in zip(model.classes_, weights, strict=True)
    }
