"""One evaluation: every model on the same held-out items, every sample kept, every figure with its interval."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from wuxing.core.artifact import Artifact
from wuxing.core.context import Context
from wuxing.core.error import WuxingError
from wuxing.core.file import write_json
from wuxing.core.progress import Bar
from wuxing.core.record import Record
from wuxing.core.step import Draft
from wuxing.evaluate.classes import ClassSubject, Named, class_rows
from wuxing.evaluate.contamination import check_overlap
from wuxing.evaluate.evaluation_kind import EvaluationStep
from wuxing.evaluate.filling import EncoderSubject
from wuxing.evaluate.pairing import compare_all
from wuxing.evaluate.result import baselines, results_of, settings
from wuxing.evaluate.role import CLASSIFIER, ENCODER, WRITER, roles_of
from wuxing.evaluate.sample import document_rows, reply_rows, write_rows
from wuxing.evaluate.selftest import try_bits, try_scorer
from wuxing.evaluate.subject import Said, Sampling, Score, Subject, counted_text
from wuxing.evaluate.verdict import judge
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
    role: str = WRITER
    named: list[Named] = field(default_factory=list)
    """What a classifier says of each document."""
    label: str = ""
    """What holds the class of a document."""
    bits_trial: dict[str, Any] | None = None
    scorer_error: float = 0.0
    template: str = ""


def evaluate(config: EvaluationStep, parents: Mapping[str, Artifact], draft: Draft, context: Context) -> None:
    """Write the evaluation artifact's files and evidence."""
    models = name_models([parents[f"models.{place}"] for place in range(len(config.models))])
    roles = roles_of(config, models)
    sets = load_sets(config, parents)
    overlap = check_overlap(config.overlap, models, sets, parents.values(), context, draft)
    if config.overlap.exact == "remove":
        drop(sets, overlap.leaked)
    require_items(sets)
    asked = sum(len(one.examples) for one in sets.tasks.values()) + len(sets.prompts)
    total = len(models) * len(sets.documents) + asked * list(roles.values()).count(WRITER)
    measured: dict[str, Measured] = {}
    with context.progress.bar("evaluate", total) as bar:
        for name, artifact in models.items():
            advance = _polling(bar, name, context)
            if roles[name] == CLASSIFIER:
                classifier = ClassSubject.load(name, artifact, context, config.label)
                measured[name] = measure_classes(classifier, artifact, sets, advance)
            elif roles[name] == ENCODER:
                encoder = EncoderSubject.load(name, artifact, context, config.masks)
                measured[name] = measure_filling(encoder, artifact, sets, draft.seed, advance)
            else:
                subject = Subject.load(name, artifact, context, config.rows)
                measured[name] = measure(subject, artifact, sets, config, draft.seed, advance)
    results: dict[str, Any] = {
        "models": {name: results_of(one, sets, draft.seed) for name, one in measured.items()},
        "comparisons": compare_all(measured, sets, draft.seed),
        "baselines": baselines(sets, measured),
        "overlap": overlap.to_json(),
        "settings": settings(config, sets, measured, draft.seed),
    }
    judge(results, measured, sets, draft)
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


def measure_classes(subject: ClassSubject, artifact: Artifact, sets: Sets, advance: Callable[[], None]) -> Measured:
    """Let a classifier name the class of every document."""
    found = Measured(artifact, role=CLASSIFIER, label=subject.field)
    found.named = subject.name_classes(sets.documents, advance)
    found.scorer_error = subject.try_scores(sets.documents[:TRIED_DOCUMENTS])
    return found


def measure_filling(
    subject: EncoderSubject, artifact: Artifact, sets: Sets, seed: int, advance: Callable[[], None]
) -> Measured:
    """Let an encoder fill the gaps of every document."""
    found = Measured(artifact, role=ENCODER)
    for score in subject.score(sets.documents):
        found.scores.append(score)
        advance()
    found.bits_trial = try_bits(subject, sets.documents[:TRIED_DOCUMENTS], seed)
    found.scorer_error = subject.try_scores(sets.documents[:2])
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
            rows = class_rows(one.named) if one.role == CLASSIFIER else document_rows(one.scores)
            write_rows(draft.file(f"samples/{name}--{sets.corpus.name}.jsonl"), rows)
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
