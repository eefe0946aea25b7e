"""What was measured, as `results.json` holds it: figures with intervals, details, baselines, and every setting."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from wuxing.core.statistic import CONFIDENCE, wilson
from wuxing.evaluate.classes import class_baselines, class_details, class_metrics
from wuxing.evaluate.evaluation_kind import EvaluationStep
from wuxing.evaluate.metric import bits_estimate, byte_entropy
from wuxing.evaluate.role import BITS, CLASSIFIER, ENCODER, WRITER
from wuxing.task.check import baseline

if TYPE_CHECKING:
    from wuxing.evaluate.evaluation import Measured, Sets, TaskSet


def results_of(one: Measured, sets: Sets, seed: int) -> dict[str, Any]:
    """The figures of one model."""
    metrics: dict[str, Any] = {}
    details: dict[str, Any] = {}
    if sets.corpus is not None and one.scores:
        metrics[f"{BITS[one.role]}/{sets.corpus.name}"] = bits_estimate(one.scores, seed).to_json()
        tokens = sum(score.tokens for score in one.scores)
        details[sets.corpus.name] = {
            "tokens": tokens,
            "bytes": sum(score.bytes for score in one.scores),
            "perplexity": math.exp(min(700.0, sum(score.nats for score in one.scores) / max(1, tokens))),
        }
    if sets.corpus is not None and one.named:
        for metric, estimate in class_metrics(one.named, seed).items():
            metrics[f"{metric}/{sets.corpus.name}"] = estimate.to_json()
        details[sets.corpus.name] = class_details(one.named, seed)
    for name, correct in one.correct.items():
        if correct:
            metrics[f"accuracy/{name}"] = wilson(sum(correct), len(correct)).to_json()
            details[name] = _details(one, sets.tasks[name], name)
    return {"id": one.artifact.id, "metrics": metrics, "details": details}


def _details(one: Measured, of: TaskSet, name: str) -> dict[str, Any]:
    replies, judged = one.replies[name], one.judged[name]
    keys = sorted({key for row in judged for key in row} - {"correct"})
    slices: dict[str, list[bool]] = defaultdict(list)
    for example, right in zip(of.examples, one.correct[name], strict=True):
        if part := of.task.slice(example):
            slices[part].append(right)
    return {
        **{key: sum(row.get(key, 0.0) for row in judged) / len(judged) for key in keys},
        "stopped": sum(reply.finish == "stop" for reply in replies) / len(replies),
        "too_long": sum(reply.finish == "too_long" for reply in replies),
        "mean_reply_tokens": sum(reply.reply_tokens for reply in replies) / len(replies),
        "slices": {part: wilson(sum(right), len(right)).to_json() for part, right in sorted(slices.items())},
    }


def baselines(sets: Sets, measured: Mapping[str, Measured]) -> dict[str, Any]:
    """What needs no model, by the metric that it stands beside."""
    from wuxing.core.splits import read_records

    found: dict[str, Any] = {}
    scored = [metric for role, metric in BITS.items() if any(one.role == role for one in measured.values())]
    if sets.corpus is not None and sets.documents and scored:
        value = byte_entropy(read_records(sets.corpus.path, "train"), sets.documents)
        for metric in scored:
            found[f"{metric}/{sets.corpus.name}"] = {"name": "byte_frequencies", "value": value}
    classifier = next((one for one in measured.values() if one.named), None)
    if sets.corpus is not None and classifier is not None:
        labels = [one.label for one in classifier.named]
        train = read_records(sets.corpus.path, "train")
        for metric, told in class_baselines(train, labels, classifier.label).items():
            found[f"{metric}/{sets.corpus.name}"] = told
    for name, one in sets.tasks.items():
        answer, value = baseline(one.task.examples("train"), one.examples)
        found[f"accuracy/{name}"] = {"name": "commonest_answer", "answer": answer, "value": value}
    return found


def settings(config: EvaluationStep, sets: Sets, measured: Mapping[str, Measured], seed: int) -> dict[str, Any]:
    """Every choice that the figures depend on, defaults included."""
    roles = {one.role for one in measured.values()}
    corpus = sets.corpus.id if sets.corpus else None
    return {
        "bits_per_byte": {
            "counted": "every token of the text, predicted from an end-of-text and all before it; not the end-of-text "
            "after it; of dialogues the assistant's words only",
            "divided_by": "UTF-8 bytes of that text",
            "documents": len(sets.documents),
            "corpus": corpus if WRITER in roles else None,
        },
        "masked_bits_per_byte": {
            "counted": "every token of the text, hidden once behind the mask token and guessed from all around it; of "
            "dialogues the assistant's words only",
            "hidden at once": f"one in {config.masks} tokens" if config.masks else "one token",
            "documents": len(sets.documents),
            "corpus": corpus if ENCODER in roles else None,
        },
        "classes": {
            "read": "the first tokens of each document, as many as in training; the likeliest class is named",
            "labels": sorted({one.label for one in measured.values() if one.named}),
            "documents": len(sets.documents),
            "corpus": corpus if CLASSIFIER in roles else None,
        },
        "accuracy": {
            "decoding": "greedy",
            "max_tokens": config.max_tokens,
            "prompt": "the model's own chat template; no examples are shown",
            "items": {name: len(one.examples) for name, one in sets.tasks.items()},
            "tasks": {name: one.artifact.id for name, one in sets.tasks.items()},
        },
        "intervals": {"confidence": CONFIDENCE, "accuracy": "Wilson", "others": "bootstrap over documents"},
        "comparisons": {
            "accuracy": "McNemar exact; Agresti-Min interval",
            "bits_per_byte": "paired bootstrap over documents",
            "p_adjusted": "Holm, over all comparisons of this evaluation",
        },
        "precision": "float32",
        "seed": seed,
        "templates": {name: one.template for name, one in measured.items()},
    }
