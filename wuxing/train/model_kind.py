"""The step kind `model`: pretraining, supervised tuning and reinforcement learning, one loop for all of them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from wuxing.core.artifact import Artifact
from wuxing.core.context import Context
from wuxing.core.error import UsageError
from wuxing.core.step import Draft, Parent, StepKind
from wuxing.train.config import ModelConfig

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")


class ModelKind(StepKind[ModelConfig]):
    """Trains a network and leaves it in the layout of Hugging Face, with what it saw and how it was measured."""

    kind = "model"
    Config = ModelConfig
    libraries = ("torch", "safetensors")
    required = (
        "finite",
        "held_out_improved",
        "memory_planned",
        "time_planned",
        "data_seen",
        "resumable",
        "step_cut",
        "packed_equals_separate",
    )
    volatile = (
        "log.jsonl",
        "asked.jsonl",
        "adjusted.jsonl",
        "attempts.jsonl",
        "start.json",
        "plan.json",
        "finished.json",
        "rollouts/*",
        "checkpoints/*",
    )
    resumable = True

    def parents(self, config: ModelConfig) -> Mapping[str, Parent]:
        found = {}
        if config.start_from is not None:
            found["start_from"] = Parent(config.start_from, ("model",))
        if config.tokenizer is not None:
            found["tokenizer"] = Parent(config.tokenizer, ("tokenizer", "model"), TOKENIZER_FILES)
        for data in config.data or {}:
            found[f"data.{data}"] = Parent(tokens_name(data, tokenizer_of(config), scores_of(config)), ("tokens",))
        for data in (config.data or {}) if config.objective.classify is not None else ():
            found[f"labels.{data}"] = Parent(data, ("corpus",), ("train.parquet", "validation.parquet"))
        if config.mixture is not None and config.mixture.reference is not None:
            found["mixture.reference"] = Parent(config.mixture.reference, ("model",))
        for name in config.validation.tasks:
            found[f"validation.{name}"] = Parent(name, ("task",), ("validation.parquet", "task.json"))
        if config.task is not None:
            found["task"] = Parent(config.task, ("task",))
        return found

    def expand(self, step: str, config: ModelConfig) -> Mapping[str, Mapping[str, Any]]:
        """One step of tokens per data set and tokenizer; models that read the same data share it."""
        tokenizer, scores = tokenizer_of(config), scores_of(config)
        more = {"scores": list(scores)} if scores else {}
        return {
            tokens_name(data, tokenizer, scores): {"make": "tokens", "tokenizer": tokenizer, "data": data, **more}
            for data in config.data or {}
        }

    def make(self, config: ModelConfig, parents: Mapping[str, Artifact], draft: Draft, context: Context) -> None:
        from wuxing.train.make import make_model

        make_model(config, parents, draft, context)


def tokenizer_of(config: ModelConfig) -> str:
    """The reference whose tokenizer this model has."""
    reference = config.tokenizer or config.start_from
    if reference is None:
        raise UsageError("the model has no tokenizer", "Give tokenizer, or start_from")
    return reference


def scores_of(config: ModelConfig) -> tuple[str, ...]:
    """Numbers of the records' meta that the curriculum needs."""
    return config.curriculum.scores if config.curriculum is not None else ()


def tokens_name(data: str, tokenizer: str, scores: tuple[str, ...] = ()) -> str:
    """`articles.vocabulary`: the step, and artifact, that holds `articles` in the ids of `vocabulary`."""
    return re.sub(r"[/@]", "-", ".".join((data, tokenizer, *scores)))
