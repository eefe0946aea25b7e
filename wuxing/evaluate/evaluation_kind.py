"""`make: evaluation`: models measured on held-out text, classes and tasks, in pairs, and checked against their data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field, model_validator

from wuxing.core.artifact import Artifact
from wuxing.core.context import Context
from wuxing.core.step import Config, Draft, Parent, StepConfig, StepKind, plumbing


class Overlap(Config):
    """When an evaluation item counts as seen in training."""

    ngram: int = Field(default=13, ge=2)
    """Words (or single Chinese characters) of an n-gram.  Larger finds fewer chance matches."""
    threshold: float = Field(default=0.5, gt=0, le=1)
    """Share of an item's n-grams that one training row must hold to be reported as near.  Larger reports fewer."""
    exact: Literal["refuse", "remove"] = "refuse"
    """What happens when a training row is an item: the evidence fails, or the item is left out and counted."""


class Reference(Config):
    """How the reference window for drift is drawn: as the server answers when a client sets nothing else."""

    prompts: int = Field(default=100, ge=0)
    """Prompts, taken evenly from the tasks and `corpora`; 0 leaves no reference."""
    corpora: list[str] = []
    """Corpora of dialogues whose held-out questions are asked too."""
    temperature: float = Field(default=1.0, ge=0)
    top_p: float = Field(default=1.0, gt=0, le=1)
    max_tokens: int = Field(default=64, ge=1)
    """Longest reply in tokens; longer ones are cut, so `reply_tokens` is only known up to here."""


class EvaluationStep(StepConfig):
    """What is measured on which models."""

    models: list[str] = Field(min_length=1)
    """The models, the one to beat first: comparisons are made between every two, in this order."""
    corpus: str | None = None
    """Its `test` split: language models predict it in bits per byte, encoders fill its gaps in bits per byte,
    classifiers name the classes of its documents."""
    tasks: list[str] = []
    """Their `test` splits are asked, greedily, and judged by each task's verifier."""
    documents: int = Field(default=200, ge=1)
    """At most so many documents of the corpus, drawn by a digest of their ids."""
    items: int = Field(default=500, ge=1)
    """At most so many problems of each task, the first in its order."""
    max_tokens: int = Field(default=64, ge=1)
    """Longest reply to a problem, in tokens."""
    label: str | None = None
    """Classifiers: what holds the class of a document; left out, what they were trained with."""
    masks: int = Field(default=7, ge=0)
    """Encoders: a pass over a document hides one in so many of its tokens, and each of them once.  0 hides one token
    at a time (pseudo-log-likelihood), which takes as many passes as there are tokens."""
    overlap: Overlap = Overlap()
    reference: Reference = Reference()
    rows: int = plumbing(32, ge=1)
    """Replies computed at once.  Larger is faster and takes more memory; results do not depend on it."""

    @model_validator(mode="after")
    def _measures(self) -> EvaluationStep:
        if self.corpus is None and not self.tasks:
            raise ValueError("an evaluation needs a corpus or tasks")
        for key in ("models", "tasks"):
            names = getattr(self, key)
            if len(set(names)) != len(names):
                raise ValueError(f"{key} names one of them twice")
        return self


class EvaluationKind(StepKind[EvaluationStep]):
    """Writes `results.json`, `reference.json`, `overlap.json` and every sample under `samples/`."""

    kind = "evaluation"
    Config = EvaluationStep
    libraries = ("torch", "tokenizers")
    required = ("overlap", "metrics_react", "scorer_exact", "intervals", "defaults")

    def parents(self, config: EvaluationStep) -> Mapping[str, Parent]:
        found = {f"models.{place}": Parent(name, ("model",)) for place, name in enumerate(config.models)}
        if config.corpus is not None:
            found["corpus"] = Parent(config.corpus, ("corpus",), ("test.parquet", "train.parquet"))
        for place, name in enumerate(config.tasks):
            found[f"tasks.{place}"] = Parent(name, ("task",), ("test.parquet", "train.parquet", "task.json"))
        for place, name in enumerate(config.reference.corpora):
            found[f"reference.corpora.{place}"] = Parent(name, ("corpus",), ("test.parquet",))
        return found

    def make(self, config: EvaluationStep, parents: Mapping[str, Artifact], draft: Draft, context: Context) -> None:
        from wuxing.evaluate.evaluation import evaluate

        evaluate(config, parents, draft, context)
