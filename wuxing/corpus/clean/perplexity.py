"""Perplexity under an n-gram model of good text, trained on the spot; the bound is a quantile of unseen good text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from wuxing.core.artifact import Artifact
from wuxing.core.context import Context
from wuxing.core.error import RefusedError, WuxingError
from wuxing.core.evidence import Evidence
from wuxing.core.file import read_json, write_json
from wuxing.core.record import Drop
from wuxing.corpus.clean.cleaner import Cleaned, Column, Notes
from wuxing.corpus.clean.filter_config import PerplexityConfig

if TYPE_CHECKING:
    import numpy as np
    import pyarrow
    from numpy.typing import NDArray

    from wuxing.corpus.clean.ngram import NgramModel
    from wuxing.corpus.config import CorpusConfig
    from wuxing.text.token import Tokens

TRAINING_WORDS = 500_000
"""Of the sample so many words at most are learnt from: the model's files stay below some 40 MB."""
HELD_OUT = 5
"""Each fifth good document is held out for the bound."""
LEAST_GOOD = 20


def fit(
    settings: PerplexityConfig,
    config: CorpusConfig,
    parents: Mapping[str, Artifact],
    context: Context,
    directory: Path,
) -> None:
    """Train on good text, find the bound on what was held out, and see that shuffled words are found out."""
    from wuxing.corpus.clean.area import area
    from wuxing.corpus.clean.learn import check_name, corpus_sample, documents_of, sampled
    from wuxing.corpus.clean.ngram import train

    good = sampled(documents_of(settings.good, parents, context), settings.sample)
    model_texts = [text for n, text in enumerate(good) if n % HELD_OUT]
    held_out = [text for n, text in enumerate(good) if n % HELD_OUT == 0]
    if len(held_out) < LEAST_GOOD:
        least = LEAST_GOOD * HELD_OUT
        raise WuxingError(f"perplexity: {len(good)} good documents are too few", f"Give {least} at least")
    model = train(_limited(model_texts, settings.read_words), settings.order, settings.read_words)
    model.save(directory / "ngrams.npz")
    natural = _scored(model, held_out, settings)
    shuffled = _scored(model, [_shuffled(text) for text in held_out], settings)
    found = area(shuffled, natural)
    evidence = Evidence()
    note = "chance that a good document with its words shuffled surprises more than one as it is; unseen documents"
    passed = evidence.judge(check_name(settings, config, "perplexity_auc"), found.low > 0.5, found.to_json(), 0.5, note)
    if not passed:
        raise RefusedError(
            f"perplexity: the model cannot tell text from shuffled words (AUC {found.value:.2f}, "
            f"{found.low:.2f} to {found.high:.2f})",
            "Give more good text, or leave the step out",
        )
    sample = _scored(model, corpus_sample(settings, config, context, directory, settings.sample), settings)
    bound = _bound(settings, natural, sample)
    evidence.measure(
        check_name(settings, config, "perplexity"),
        {"good": _quantiles(natural), "corpus": _quantiles(sample), "bound": bound},
        "of unseen good documents and of a sample of the corpus, quantiles 5, 50 and 95 %",
    )
    write_json(directory / "perplexity.json", {"bound": bound, "good_documents": len(good), "words": model.size})
    write_json(directory / "evidence.json", evidence.to_json())


def _limited(texts: Sequence[str], most: int) -> Tokens:
    """The tokens of as many texts as give the words that are learnt from."""
    import numpy as np
    import pyarrow as pa

    from wuxing.text.token import tokens

    found = tokens(pa.array(texts, pa.string()))
    words = np.cumsum(np.minimum(found.counts, most))
    return tokens(pa.array(texts[: max(1, int(np.searchsorted(words, TRAINING_WORDS)))], pa.string()))


def _scored(model: NgramModel, texts: Sequence[str], settings: PerplexityConfig) -> NDArray[np.float64]:
    """The perplexities of the texts that are long enough."""
    import pyarrow as pa

    from wuxing.text.token import tokens

    found = tokens(pa.array(texts, pa.string()))
    values = model.perplexities(found, settings.read_words)
    return values[found.counts >= settings.min_words]


def _shuffled(text: str) -> str:
    from random import Random

    from wuxing.text.shingle import tokens_of

    words = tokens_of(text)
    Random(text).shuffle(words)
    return " ".join(words)


def _bound(settings: PerplexityConfig, good: NDArray[np.float64], corpus: NDArray[np.float64]) -> float:
    import numpy as np

    if settings.max_perplexity is not None:
        return settings.max_perplexity
    if settings.keep is not None:
        return float(np.quantile(corpus, settings.keep)) if len(corpus) else float("inf")
    return float(np.quantile(good, settings.keep_good))


def _quantiles(values: NDArray[np.float64]) -> list[float]:
    import numpy as np

    return [round(float(value), 1) for value in np.quantile(values, (0.05, 0.5, 0.95))] if len(values) else []


class Perplexity:
    """Drops documents more surprising than the bound (`surprising`)."""

    column: ClassVar[Column] = "text"
    dialogues: ClassVar[bool] = False

    def __init__(self, config: PerplexityConfig, fitted: Path):
        from wuxing.corpus.clean.ngram import NgramModel

        self.config = config
        self.found: Counter[str] = Counter()
        self.model = NgramModel.load(fitted / "ngrams.npz")
        self.bound: float = read_json(fitted / "perplexity.json")["bound"]

    def clean(self, values: pyarrow.Array, notes: Notes) -> Cleaned:
        """The column with its perplexities."""
        import numpy as np

        from wuxing.corpus.clean.learn import judged_places
        from wuxing.text.token import tokens

        found = np.full(len(values), np.nan)
        places = judged_places(values, notes.get("language"), self.config.languages)
        part = tokens(values.take(places))
        scores = self.model.perplexities(part, self.config.read_words)
        scores[part.counts < self.config.min_words] = np.nan
        found[places] = scores
        bad = np.flatnonzero(found > self.bound).tolist()
        dropped = {n: Drop("surprising", f"perplexity {found[n]:.0f}, bound {self.bound:.0f}") for n in bad}
        return Cleaned(values, dropped, measures={"perplexity": found})


def build(config: PerplexityConfig, context: Context, fitted: Path | None = None) -> Perplexity:
    """The step for a recipe."""
    assert fitted is not None, "the model is trained before the cleaning"
    return Perplexity(config, fitted)
