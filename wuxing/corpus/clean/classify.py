"""A classifier of good text, trained on the spot: logistic regression on hashed words and pairs of words.

In scripts without spaces a word is a character.  Features: how often each token and each pair occurs, over the square
root of the number of runs; 2^18 hash places (Weinberger et al. 2009).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from wuxing.core.artifact import Artifact
from wuxing.core.context import Context
from wuxing.core.error import RefusedError, WuxingError
from wuxing.core.evidence import Evidence
from wuxing.core.file import read_json, write_json
from wuxing.core.record import Drop
from wuxing.corpus.clean.cleaner import Cleaned, Column, Notes
from wuxing.corpus.clean.filter_config import ClassifyConfig

if TYPE_CHECKING:
    import numpy as np
    import pyarrow
    from numpy.typing import NDArray

    from wuxing.corpus.config import CorpusConfig

BITS = 18
WIDTHS = (1, 2)
READ_WORDS = 2000
"""How much of a document is judged, from its beginning."""
FOLDS = 5
LEAST = 50
KEEP = 0.7
STRENGTH = 1.0
"""Inverse of the weight of the L2 penalty."""


def features(values: pyarrow.Array) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Hash place and text of each run of tokens, and how many runs each text has."""
    import numpy as np

    from wuxing.text.token import runs, tokens, whole_runs

    found = tokens(values)
    starts = found.ends - found.counts
    places, owners = [], []
    for width in WIDTHS:
        at = np.flatnonzero(whole_runs(found.ends, width))
        owner = np.searchsorted(found.ends, at, side="right")
        early = at - starts[owner] < READ_WORDS
        places.append((runs(found.hashes, width)[at[early]] >> np.uint64(64 - BITS)).astype(np.int64))
        owners.append(owner[early])
    owner = np.concatenate(owners)
    return np.concatenate(places), owner, np.bincount(owner, minlength=len(values))


def _matrix(texts: Sequence[str]) -> Any:
    import numpy as np
    import pyarrow as pa
    from scipy.sparse import csr_matrix

    places, owners, counts = features(pa.array(texts, pa.string()))
    data = 1 / np.sqrt(counts[owners])
    return csr_matrix((data, (owners, places)), shape=(len(texts), 1 << BITS))


def _fitted(rows: Any, labels: NDArray[np.int64], strength: float = STRENGTH) -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=strength, class_weight="balanced", max_iter=100, tol=1e-3).fit(rows, labels)


def folds_of(values: pyarrow.Array) -> NDArray[np.int64]:
    """The fold of each text, by its content: it is judged by the model that was trained without its fold."""
    import numpy as np

    from wuxing.text.key import keys

    return (keys(values, b"fold").view(np.uint64)[:, 0] % FOLDS).astype(np.int64)


def fit(
    settings: ClassifyConfig,
    config: CorpusConfig,
    parents: Mapping[str, Artifact],
    context: Context,
    directory: Path,
) -> None:
    """Train one model for each fold, judge and calibrate them on unseen documents, and find the bound."""
    import numpy as np

    from wuxing.corpus.clean.area import area
    from wuxing.corpus.clean.learn import check_name, corpus_sample, documents_of, sampled

    good = sampled(documents_of(settings.good, parents, context), settings.sample)
    corpus = corpus_sample(settings, config, context, directory, settings.sample)
    named = settings.bad is not None
    bad = sampled(documents_of(settings.bad, parents, context), settings.sample) if settings.bad is not None else corpus
    for name, texts in (("good", good), ("bad", bad)):
        if len(texts) < LEAST:
            raise WuxingError(f"classify: {len(texts)} {name} documents are too few", f"Give {LEAST} at least")
    labels = np.repeat([1, 0], [len(good), len(bad)])
    logits = _train([*good, *bad], labels, directory)
    found = area(logits[labels == 1], logits[labels == 0])
    evidence = Evidence()
    note = "chance that a good document scores above a bad one; five-fold, on documents that were not learnt from"
    passed = evidence.judge(check_name(settings, config, "classifier_auc"), found.low > 0.5, found.to_json(), 0.5, note)
    if not passed:
        raise RefusedError(
            f"classify: good and bad cannot be told apart (AUC {found.value:.2f}, {found.low:.2f} to {found.high:.2f})",
            "Give other or more examples, or leave the step out",
        )
    scale = _fitted(logits[:, None], labels, 1e6)
    slope, offset = float(scale.coef_[0, 0]), float(scale.intercept_[0])
    error = _calibration_error(1 / (1 + np.exp(-(slope * logits + offset))), labels)
    evidence.measure(check_name(settings, config, "classifier_calibration"), error, "mean |score - share of good|")
    model = {**read_json(directory / "classifier.json"), "slope": slope, "offset": offset, "bound": settings.min_score}
    write_json(directory / "classifier.json", model)
    if settings.min_score is None:
        model["bound"] = Classify(settings, directory).bound_that_keeps(corpus, settings.keep or KEEP)
        write_json(directory / "classifier.json", model)
    examples = {"good": len(good), "bad": len(bad), "bad are": "named" if named else "a sample of the corpus"}
    evidence.measure(check_name(settings, config, "classifier"), {**examples, "bound": model["bound"]})
    write_json(directory / "evidence.json", evidence.to_json())


def _train(texts: Sequence[str], labels: NDArray[np.int64], directory: Path) -> NDArray[np.float64]:
    """Write the weights of the models; returns the logit of each example by the model that has not seen its fold."""
    import numpy as np
    import pyarrow as pa

    rows, fold = _matrix(texts), folds_of(pa.array(texts, pa.string()))
    logits, weights, intercepts = np.zeros(len(labels)), [], []
    for number in range(FOLDS):
        model = _fitted(rows[fold != number], labels[fold != number])
        weights.append(model.coef_[0].astype(np.float32))
        intercepts.append(float(model.intercept_[0]))
        logits[fold == number] = rows[fold == number] @ weights[-1].astype(np.float64) + intercepts[-1]
    np.save(directory / "weights.npy", np.stack(weights), allow_pickle=False)
    write_json(directory / "classifier.json", {"intercepts": intercepts})
    return logits


def _calibration_error(scores: NDArray[np.float64], labels: NDArray[np.int64]) -> float:
    """Expected calibration error over ten bins, both classes weighing the same."""
    import numpy as np

    weight = np.where(labels == 1, 0.5 / (labels == 1).sum(), 0.5 / (labels == 0).sum())
    bins = np.minimum((scores * 10).astype(np.int64), 9)
    gap = np.bincount(bins, weight * (scores - labels), 10)
    return round(float(np.abs(gap).sum()), 4)


class Classify:
    """Drops documents that score below the bound (`unlike_good_text`)."""

    column: ClassVar[Column] = "text"
    dialogues: ClassVar[bool] = False

    def __init__(self, config: ClassifyConfig, fitted: Path):
        import numpy as np

        self.config = config
        self.found: Counter[str] = Counter()
        self.weights = np.load(fitted / "weights.npy", allow_pickle=False)
        self.model: dict[str, Any] = read_json(fitted / "classifier.json")

    def scores(self, values: pyarrow.Array) -> NDArray[np.float64]:
        """For each text the calibrated probability of being good; NaN for a text without words."""
        import numpy as np

        places, owners, counts = features(values)
        fold = folds_of(values)
        sums = np.bincount(owners, self.weights[fold[owners], places].astype(np.float64), len(values))
        logits = np.divide(sums, np.sqrt(counts), out=np.full(len(values), np.nan), where=counts > 0)
        logits = self.model["slope"] * (logits + np.array(self.model["intercepts"])[fold]) + self.model["offset"]
        found: NDArray[np.float64] = 1 / (1 + np.exp(-np.clip(logits, -500, 500)))
        return found

    def bound_that_keeps(self, texts: Sequence[str], share: float) -> float:
        """The score that this share of texts reaches."""
        import numpy as np
        import pyarrow as pa

        scores = self.scores(pa.array(texts, pa.string()))
        known = scores[~np.isnan(scores)]
        return float(np.quantile(known, 1 - share)) if len(known) else 0.0

    def clean(self, values: pyarrow.Array, notes: Notes) -> Cleaned:
        """The column with its scores."""
        import numpy as np

        from wuxing.corpus.clean.learn import judged_places

        found = np.full(len(values), np.nan)
        places = judged_places(values, notes.get("language"), self.config.languages)
        found[places] = self.scores(values.take(places))
        bound = self.model["bound"]
        bad = np.flatnonzero(found < bound).tolist()
        dropped = {n: Drop("unlike_good_text", f"score {found[n]:.3f}, bound {bound:.3f}") for n in bad}
        return Cleaned(values, dropped, measures={"good_score": found})


def build(config: ClassifyConfig, context: Context, fitted: Path | None = None) -> Classify:
    """The step for a recipe."""
    assert fitted is not None, "the classifier is trained before the cleaning"
    return Classify(config, fitted)
