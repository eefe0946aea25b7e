"""The kinds of step a recipe can name: ours, and those that plug-ins register under the entry point `wuxing.kinds`."""

from __future__ import annotations

import importlib
import importlib.metadata
from collections.abc import Callable
from functools import cache, partial
from typing import Any

from wuxing.core.step import StepKind

OURS = {
    "corpus": "wuxing.corpus.kind:CorpusKind",
    "task": "wuxing.task.task_kind:TaskKind",
    "tokenizer": "wuxing.text.tokenizer_kind:TokenizerKind",
    "tokens": "wuxing.data.tokens_kind:TokensKind",
    "augmentation": "wuxing.augment.kind:AugmentationKind",
    "features": "wuxing.feature.kind:FeaturesKind",
    "model": "wuxing.train.model_kind:ModelKind",
    "evaluation": "wuxing.evaluate.evaluation_kind:EvaluationKind",
    "report": "wuxing.evaluate.report_kind:ReportKind",
    "release": "wuxing.release.release_kind:ReleaseKind",
}


@cache
def all_kinds() -> dict[str, Callable[[], StepKind[Any]]]:
    """`make:` word → loader.  Nothing is imported before a recipe names it."""
    plugged = {point.name: point.value for point in importlib.metadata.entry_points(group="wuxing.kinds")}
    return {word: partial(_load, place) for word, place in (plugged | OURS).items()}


@cache
def _load(place: str) -> StepKind[Any]:
    module, _, name = place.partition(":")
    kind: StepKind[Any] = getattr(importlib.import_module(module), name)()
    return kind
