"""One evaluation: every model on the same held-out items, every sample kept, every figure with its interval."""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from wuxing.core.artifact import Artifact
from wuxing.core.context import Context
from wuxing.core.error import WuxingError
from wuxing.core.file import write_json
from wuxing.core.progress import Bar
from wuxing.core.record import Record
from wuxing.core.statistic import CONFIDENCE, wilson
from wuxing.core.step import Draft
from wuxing.evaluate.contamination import check_overlap
from wuxing.evaluate.evaluation_kind import EvaluationStep
from wuxing.evaluate.metric import bits_estimate, byte_entropy
from wuxing.evaluate.pairing import compare_all
from wuxing.evaluate.sample import document_rows, reply_rows, write_rows
from wuxing.evaluate.selftest import TOLERANCE, try_accuracy, try_bits, try_scorer
from wuxing.evaluate.subject import Said, Sampling, Score, Subject, counted_text
from wuxing.task.check import baseline
from wuxing.task.task import Example, StoredTask, load_task

TRIED_DOCUMENTS = 16
"""Documents on which a model's bits per byte must react to shuffled words."""
EXACT_TOKENS = 256


@dataclass
class TaskSet:
    """The problems of one task."""

    artifact: Artifact
    task: StoredTask
    examples: list[Example]


@dataclass
class Sets:
    """Everything that is asked, loaded once for all models."""

    corpus: Artifact | None
    documents: list[Record]
    tasks: dict[str, TaskSet]
    prompts: list[list[dict[str, str]]]
    """Of the reference window."""


@dataclass
class Measured:
    """What one model did."""

    artifact: Artifact
    scores: list[Score] = field(default_factory=list)
    replies: dict[str, list[Said]] = field(default_factory=dict)
    """Task → replies, in the order of its examples."""
    correct: dict[str, list[bool]] = field(default_factory=dict)
    judged: dict[str, list[dict[str, float]]] = field(default_factory=dict)
    reference: list[Said] = field(default_factory=list)
    bits_trial: dict[str, Any] | None = None
    scorer_error: float = 0.0
    template: str = ""


def evaluate(config: EvaluationStep, parents: Mapping[str, Artifact], draft: Draft, context: Context) -> None:
    """Write the evaluation artifact's files and evidence."""
    models = name_models([parents[f"models.{place}"] for place in range(len(config.models))])
    sets = load_sets(config, parents)
    overlap = check_overlap(config.overlap, models, sets, parents.values(), context, draft)
    if config.overlap.exact == "remove":
        drop(sets, overlap.leaked)
    require_items(sets)
    total = len(models) * (
        len(sets.documents) + sum(len(one.examples) for one in sets.tasks.values()) + len(sets.prompts)
    )
    measured: dict[str, Measured] = {}
    with context.progress.bar("evaluate", total) as bar:
        for name, artifact in models.items():
            subject = Subject.load(name, artifact, context, config.rows)
            measured[name] = measure(subject, artifact, sets, config, draft.seed, _polling(bar, name, context))
    results: dict[str, Any] = {
        "models": {name: _results(one, sets, draft.seed) for name, one in measured.items()},
        "comparisons": compare_all(measured, sets, draft.seed),
        "baselines": _baselines(sets),
        "overlap": overlap.to_json(),
        "settings": _settings(config, sets, measured, draft.seed),
    }
    _judge(results, measured, sets, draft)
    write_json(draft.file("results.json"), results)
    write_json(draft.file("reference.json"), {name: _reference(name, one, config) for name, one in measured.items()})
    _write_samples(measured, sets, draft)
    for name, found in results["models"].items():
        for metric, value in found["metrics"].items():
            draft.summary[f"{name} {metric}"] = round(value["value"], 4)


def name_models(artifacts: list[Artifact]) -> dict[str, Artifact]:
    """What results call each model: its name, with its version where two share a name."""
    names = [artifact.name for artifact in artifacts]
    return {
        artifact.name if names.count(artifact.name) == 1 else f"{artifact.name}@v{artifact.version}": artifact
        for artifact in artifacts
    }


def load_sets(config: EvaluationStep, parents: Mapping[str, Artifact]) -> Sets:
    """Read the held-out items."""
    corpus = parents.get("corpus")
    documents = [] if corpus is None else _drawn_documents(corpus, config.documents)
    tasks = {}
    for place in range(len(config.tasks)):
        artifact = parents[f"tasks.{place}"]
        task = load_task(artifact.path)
        tasks[artifact.name] = TaskSet(artifact, task, task.examples("test")[: config.items])
    dialogues = [parents[f"reference.corpora.{place}"] for place in range(len(config.reference.corpora))]
    sources = [[one.task.prompt(example) for example in one.examples] for one in tasks.values()]
    sources += [_questions(_drawn_documents(artifact, config.reference.prompts)) for artifact in dialogues]
    return Sets(corpus, documents, tasks, _evenly(sources, config.reference.prompts))


def drop(sets: Sets, leaked: set[tuple[str, str]]) -> None:
    """Leave out the items (set, id) that were seen in training."""
    if sets.corpus is not None:
        name = sets.corpus.name
        sets.documents = [record for record in sets.documents if (name, record.id) not in leaked]
    for name, one in sets.tasks.items():
        one.examples = [example for example in one.examples if (name, example.id) not in leaked]


def require_items(sets: Sets) -> None:
    """Raise WuxingError when a set has no item left to measure on."""
    counts = {one.artifact.id: len(one.examples) for one in sets.tasks.values()}
    if sets.corpus is not None:
        counts[sets.corpus.id] = len(sets.documents)
    for id, count in counts.items():
        if not count:
            remedy = "Give it a larger test split, or take it out of the evaluation"
            raise WuxingError(f"the test split of {id} has no item to measure on", remedy)


def measure(
    subject: Subject,
    artifact: Artifact,
    sets: Sets,
    config: EvaluationStep,
    seed: int,
    advance: Callable[[], None],
) -> Measured:
    """Ask one model everything."""
    found = Measured(artifact, template=subject.tokenizer.template_digest)
    for score in subject.score(sets.documents):
        found.scores.append(score)
        advance()
    greedy = Sampling(config.max_tokens)
    for name, one in sets.tasks.items():
        replies = subject.ask([one.task.prompt(example) for example in one.examples], greedy, seed, advance)
        found.replies[name] = replies
        found.judged[name] = [
            one.task.score(example, reply.text) for example, reply in zip(one.examples, replies, strict=True)
        ]
        found.correct[name] = [bool(judged["correct"]) for judged in found.judged[name]]
    drawn = Sampling(config.reference.max_tokens, config.reference.temperature, config.reference.top_p)
    found.reference = subject.ask(sets.prompts, drawn, seed, advance)
    if sets.documents:
        found.bits_trial = try_bits(subject, sets.documents[:TRIED_DOCUMENTS], seed)
    found.scorer_error = try_scorer(subject, _exact_pairs(subject, sets))
    return found


def _exact_pairs(subject: Subject, sets: Sets) -> list[tuple[list[int], list[int]]]:
    tokenizer = subject.tokenizer
    pairs = [
        ([tokenizer.end_of_text_id], tokenizer.encode(record.text)[:EXACT_TOKENS])
        for record in sets.documents[:2]
        if record.text
    ]
    for one in sets.tasks.values():
        pairs += [(tokenizer.encode_chat(one.task.prompt(e)), tokenizer.encode(e.answer)) for e in one.examples[:2]]
    return [pair for pair in pairs if sum(map(len, pair)) <= subject.max_positions]


def _results(one: Measured, sets: Sets, seed: int) -> dict[str, Any]:
    metrics: dict[str, Any] = {}
    details: dict[str, Any] = {}
    if sets.corpus is not None and one.scores:
        metrics[f"bits_per_byte/{sets.corpus.name}"] = bits_estimate(one.scores, seed).to_json()
        details[sets.corpus.name] = {
            "tokens": sum(score.tokens for score in one.scores),
            "bytes": sum(score.bytes for score in one.scores),
        }
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


def _baselines(sets: Sets) -> dict[str, Any]:
    from wuxing.core.splits import read_records

    found: dict[str, Any] = {}
    if sets.corpus is not None and sets.documents:
        value = byte_entropy(read_records(sets.corpus.path, "train"), sets.documents)
        found[f"bits_per_byte/{sets.corpus.name}"] = {"name": "byte_frequencies", "value": value}
    for name, one in sets.tasks.items():
        answer, value = baseline(one.task.examples("train"), one.examples)
        found[f"accuracy/{name}"] = {"name": "commonest_answer", "answer": answer, "value": value}
    return found


def _settings(config: EvaluationStep, sets: Sets, measured: Mapping[str, Measured], seed: int) -> dict[str, Any]:
    """Every choice that the figures depend on, defaults included."""
    return {
        "bits_per_byte": {
            "counted": "every token of the text, predicted from an end-of-text and all before it; not the end-of-text "
            "after it; of dialogues the assistant's words only",
            "divided_by": "UTF-8 bytes of that text",
            "documents": len(sets.documents),
            "corpus": sets.corpus.id if sets.corpus else None,
        },
        "accuracy": {
            "decoding": "greedy",
            "max_tokens": config.max_tokens,
            "prompt": "the model's own chat template; no examples are shown",
            "items": {name: len(one.examples) for name, one in sets.tasks.items()},
            "tasks": {name: one.artifact.id for name, one in sets.tasks.items()},
        },
        "intervals": {"confidence": CONFIDENCE, "accuracy": "Wilson", "bits_per_byte": "bootstrap over documents"},
        "comparisons": {
            "accuracy": "McNemar exact; Agresti-Min interval",
            "bits_per_byte": "paired bootstrap over documents",
            "p_adjusted": "Holm, over all comparisons of this evaluation",
        },
        "precision": "float32",
        "seed": seed,
        "templates": {name: one.template for name, one in measured.items()},
    }


def _judge(results: dict[str, Any], measured: Mapping[str, Measured], sets: Sets, draft: Draft) -> None:
    evidence = draft.evidence
    tried = {f"accuracy/{name}": try_accuracy(one.task, one.examples) for name, one in sets.tasks.items()}
    trials = [one.bits_trial for one in measured.values() if one.bits_trial]
    if trials:
        tried["bits_per_byte"] = min(trials, key=lambda trial: float(trial["plain"]))
    numb = [metric for metric, trial in tried.items() if not trial["passed"]]
    note = "measures that do not fall with exchanged answers, or not rise with shuffled words"
    evidence.judge("metrics_react", bool(tried) and not numb, numb, [], note)
    evidence.measure("metric_trials", tried)
    worst = max(one.scorer_error for one in measured.values())
    evidence.judge("scorer_exact", worst <= TOLERANCE, worst, TOLERANCE, "nats per token from a plain forward pass")
    figures = [value for model in results["models"].values() for value in model["metrics"].values()]
    sound = bool(figures) and all(_is_sound(value) for value in figures)
    evidence.judge("intervals", sound, len(figures), "every figure is finite and inside its interval")
    evidence.measure("defaults", results["settings"])
    too_long = {
        f"{name}/{task}": found["too_long"]
        for name, model in results["models"].items()
        for task, found in model["details"].items()
        if found.get("too_long")
    }
    evidence.judge("prompts_fit", not too_long, too_long, {}, "prompts that left no room for a reply count as wrong")
    evidence.measure("baselines", {metric: found["value"] for metric, found in results["baselines"].items()})


def _is_sound(value: Mapping[str, float]) -> bool:
    numbers = [value["low"], value["value"], value["high"]]
    return all(map(math.isfinite, numbers)) and numbers == sorted(numbers) and value["n"] > 0


def _reference(name: str, one: Measured, config: EvaluationStep) -> dict[str, Any]:
    """The model's own signals on held-out prompts, as the server would log them."""
    said = [reply for reply in one.reference if reply.mean_logprob is not None]
    return {
        "model": name,
        "id": one.artifact.id,
        "signals": {
            "prompt_tokens": [float(reply.prompt_tokens) for reply in said],
            "reply_tokens": [float(reply.reply_tokens) for reply in said],
            "mean_logprob": [reply.mean_logprob for reply in said],
        },
        "settings": config.reference.model_dump(mode="json"),
    }


def _write_samples(measured: Mapping[str, Measured], sets: Sets, draft: Draft) -> None:
    for name, one in measured.items():
        if sets.corpus is not None:
            write_rows(draft.file(f"samples/{name}--{sets.corpus.name}.jsonl"), document_rows(one.scores))
        for task, of in sets.tasks.items():
            rows = reply_rows(of.task, of.examples, one.replies[task], one.judged[task])
            write_rows(draft.file(f"samples/{name}--{task}.jsonl"), rows)


def _drawn_documents(corpus: Artifact, limit: int) -> list[Record]:
    """A fixed draw from the test split, whatever the order of its rows."""
    from wuxing.core.splits import read_records

    records = (record for record in read_records(corpus.path, "test") if counted_text(record))
    return sorted(records, key=lambda record: hashlib.sha256(record.id.encode()).digest())[:limit]


def _questions(records: list[Record]) -> list[list[dict[str, str]]]:
    """Each dialogue up to its first reply."""
    prompts = []
    for record in records:
        messages = record.messages or []
        first = next((place for place, one in enumerate(messages) if one["role"] == "assistant"), len(messages))
        if first:
            prompts.append(messages[:first])
    return prompts


def _evenly(sources: list[list[Any]], limit: int) -> list[Any]:
    """Take from each source in turn."""
    longest = max(map(len, sources), default=0)
    return [source[place] for place in range(longest) for source in sources if place < len(source)][:limit]


def _polling(bar: Bar, name: str, context: Context) -> Callable[[], None]:
    def advance() -> None:
        bar.advance()
        bar.note(name)
        context.stop.leave("an evaluation starts again from its first model")

    return advance
