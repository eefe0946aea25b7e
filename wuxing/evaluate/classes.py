"""A classifier under evaluation: the class that it names for each held-out document, and how sure it is.

Shapes: B documents, T tokens, C classes.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from wuxing.core.artifact import Artifact
from wuxing.core.context import Context
from wuxing.core.error import WuxingError
from wuxing.core.file import read_json
from wuxing.core.record import Record
from wuxing.core.statistic import Estimate, f1_interval, macro_f1, wilson
from wuxing.evaluate.calibration import by_chance, calibration_estimate, reliability

if TYPE_CHECKING:
    from torch import Tensor

    from wuxing.model.classifier import Classifier
    from wuxing.text.tokenizer import Tokenizer

BATCH_TOKENS = 8192
LONGEST_QUOTE = 400
CONFUSIONS_NAMED = 20


@dataclass(frozen=True)
class Named:
    """What a classifier says of one document."""

    id: str
    label: str
    named: str
    sure: float
    """Probability of the named class."""
    nats: float
    """Of the right class; infinite where the classifier does not know it."""
    tokens: int
    text: str

    @property
    def right(self) -> bool:
        return self.named == self.label


@dataclass(frozen=True)
class ClassSubject:
    """A loaded classifier.  `name` is what results call it."""

    name: str
    tokenizer: Tokenizer
    network: Classifier
    field: str
    """What holds the class of a record."""
    length: int
    """Tokens of a document that are read: as many as in training."""

    @classmethod
    def load(cls, name: str, artifact: Artifact, context: Context, field: str | None) -> ClassSubject:
        """Read a model artifact.  `field`: left out, what it was trained with."""
        from wuxing.compute.device import pick_device
        from wuxing.model.classifier import Classifier
        from wuxing.model.files import load_network
        from wuxing.text.tokenizer import Tokenizer

        network = load_network(artifact.path, str(pick_device(context.device)), kind=Classifier).eval()
        told = artifact.path / "training.json"
        training = read_json(told) if told.is_file() else {}
        field = field or training.get("objective", {}).get("classify", {}).get("label", "label")
        length = min(network.max_positions, training.get("length_tokens", network.max_positions))
        return cls(name, Tokenizer.load(artifact.path), network, field, length)

    def name_classes(self, records: Sequence[Record], advance: Callable[[], None] = lambda: None) -> list[Named]:
        """One answer for each record, in their order.  Raises WuxingError for a record without a class."""
        labels = classes_of_records(records, self.field)
        ids = [self._ids(record) for record in records]
        found: list[Named | None] = [None] * len(records)
        for places in _batches(ids):
            logprobs_BC = self.logprobs([ids[place] for place in places])
            for place, logprobs_C in zip(places, logprobs_BC.double().tolist(), strict=True):
                found[place] = self._named(records[place], labels[place], len(ids[place]), logprobs_C)
                advance()
        return [one for one in found if one is not None]

    def _named(self, record: Record, label: str, tokens: int, logprobs_C: list[float]) -> Named:
        best = max(range(len(logprobs_C)), key=logprobs_C.__getitem__)
        classes = self.network.classes
        nats = -logprobs_C[classes.index(label)] if label in classes else math.inf
        text = record.text or "\n".join(message["content"] for message in record.messages or [])
        return Named(record.id, label, classes[best], math.exp(logprobs_C[best]), nats, tokens, text[:LONGEST_QUOTE])

    def _ids(self, record: Record) -> list[int]:
        if record.text is not None:
            ids = self.tokenizer.encode(record.text)
        else:
            ids = self.tokenizer.encode_dialogue(record.messages or [])[0]
        return ids[: self.length] or [self.tokenizer.end_of_text_id]

    def logprobs(self, ids: Sequence[Sequence[int]]) -> Tensor:
        """Of each class for several documents, B x C in fp32, from the state of each one's last token."""
        import torch

        width, device = max(map(len, ids)), self.network.device
        tokens_BT = torch.zeros(len(ids), width, dtype=torch.int64)
        documents_BT = torch.full((len(ids), width), -1, dtype=torch.int32)
        for row, some in enumerate(ids):
            tokens_BT[row, : len(some)] = torch.tensor(some)
            documents_BT[row, : len(some)] = 0
        last_B = torch.tensor([len(some) - 1 for some in ids], device=device)
        with torch.inference_mode():
            hidden_BTD = self.network.hidden(tokens_BT.to(device), None, documents_BT.to(device))
            last_BD = hidden_BTD[torch.arange(len(ids), device=device), last_B]
            return (last_BD.float() @ self.network.head_VD.float().T).log_softmax(-1).cpu()

    def try_scores(self, records: Sequence[Record]) -> float:
        """Largest difference, in nats, between documents together and each one alone."""
        ids = [self._ids(record) for record in records]
        together = self.logprobs(ids)
        alone = (self.logprobs([some])[0] for some in ids)
        return max((float((one - other).abs().max()) for one, other in zip(together, alone, strict=True)), default=0.0)


def classes_of_records(records: Iterable[Record], field: str) -> list[str]:
    """The class of each record.  Raises WuxingError where one has none."""
    from wuxing.data.labelled import label_of

    found = []
    for record in records:
        label = label_of(record, field)
        if not isinstance(label, str | int):
            raise WuxingError(f'{record.id} has no class "{field}"', "Name the field that holds it: label")
        found.append(str(label))
    return found


def _batches(ids: Sequence[Sequence[int]]) -> Iterable[list[int]]:
    """Places of documents of like length, so that little is padded."""
    batch: list[int] = []
    for place in sorted(range(len(ids)), key=lambda place: (len(ids[place]), place)):
        if batch and (len(batch) + 1) * len(ids[place]) > BATCH_TOKENS:
            yield batch
            batch = []
        batch.append(place)
    if batch:
        yield batch


def count_classes(named: Sequence[Named], known: Iterable[str] = ()) -> tuple[list[str], np.ndarray]:
    """(classes, documents by true and by named class)."""
    classes = sorted({*known, *(one.label for one in named), *(one.named for one in named)})
    numbers = {name: number for number, name in enumerate(classes)}
    counts = np.zeros((len(classes), len(classes)))
    for one in named:
        counts[numbers[one.label], numbers[one.named]] += 1
    return classes, counts


def class_metrics(named: Sequence[Named], seed: int) -> dict[str, Estimate]:
    """The headline figures."""
    _, counts = count_classes(named)
    right = np.array([one.right for one in named], float)
    sure = np.array([one.sure for one in named])
    value, (low, high) = macro_f1(counts), f1_interval(counts)
    return {
        "accuracy": wilson(int(right.sum()), len(named)),
        "macro_f1": Estimate(value, min(value, low), max(value, high), len(named)),
        "calibration_error": calibration_estimate(sure, right, seed),
    }


def class_details(named: Sequence[Named], seed: int) -> dict[str, Any]:
    """Each class by itself, the confusion matrix, and how sureness and being right go together."""
    classes, counts = count_classes(named)
    right = np.array([one.right for one in named], float)
    sure = np.array([one.sure for one in named])
    nats = [one.nats for one in named if math.isfinite(one.nats)]
    return {
        "classes": [_of_class(name, counts, number) for number, name in enumerate(classes)],
        "confusion": {"classes": classes, "counts": counts.astype(int).tolist()},
        "calibration": {"bins": reliability(sure, right), "by_chance": by_chance(sure, seed)},
        "nats": sum(nats) / max(1, len(nats)),
        "unknown_classes": len(named) - len(nats),
    }


def _of_class(name: str, counts: np.ndarray, number: int) -> dict[str, Any]:
    """Precision and recall with Wilson's intervals; None where nothing was named so, or is so."""
    right, named, true = (int(n) for n in (counts[number, number], counts[:, number].sum(), counts[number].sum()))
    return {
        "class": name,
        "n": true,
        "named": named,
        "precision": wilson(right, named).to_json() if named else None,
        "recall": wilson(right, true).to_json() if true else None,
        "f1": 2 * right / (named + true),
    }


def confusions(details: Mapping[str, Any], limit: int = CONFUSIONS_NAMED) -> list[dict[str, Any]]:
    """The commonest mistakes: what was taken for what, and how often."""
    classes, counts = details["confusion"]["classes"], np.array(details["confusion"]["counts"])
    found = [
        {
            "class": classes[true],
            "named": classes[named],
            "count": int(counts[true, named]),
            "of": int(counts[true].sum()),
        }
        for true, named in np.argwhere(counts > 0).tolist()
        if true != named
    ]
    return sorted(found, key=lambda one: (-one["count"], one["class"], one["named"]))[:limit]


def class_baselines(train: Iterable[Record], labels: Sequence[str], field: str) -> dict[str, dict[str, Any]]:
    """Always naming the commonest class of the training split."""
    counts = Counter(str(label) for label in classes_of_records(train, field))
    if not counts:
        counts = Counter(labels)
    answer = min(counts, key=lambda name: (-counts[name], name))
    rows = [Named("", label, answer, 1.0, 0.0, 0, "") for label in labels]
    share = sum(one.right for one in rows) / len(rows)
    told = {"name": "commonest_class", "answer": answer}
    return {"accuracy": {**told, "value": share}, "macro_f1": {**told, "value": macro_f1(count_classes(rows)[1])}}


def try_classes(named: Sequence[Named]) -> dict[str, Any]:
    """Right, exchanged and constant answers through the measures, and the classifier's own against exchanged labels.

    `passed` when right answers count in full, exchanged ones where they are equal only, a constant one as often as its
    class occurs, and the classifier's answers fit their own documents better than others'.
    """
    labels = [one.label for one in named]
    commonest = Counter(labels).most_common(1)[0][0]
    shift = next((s for s in range(1, len(labels)) if labels[0] != labels[s]), 0)
    others = [labels[(place + shift) % len(labels)] for place in range(len(labels))]

    def measured(answers: Sequence[str], truth: Sequence[str] = labels) -> tuple[float, float]:
        rows = [Named("", label, answer, 1.0, 0.0, 0, "") for label, answer in zip(truth, answers, strict=True)]
        return sum(one.right for one in rows) / len(rows), macro_f1(count_classes(rows)[1])

    said = [one.named for one in named]
    share = labels.count(commonest) / len(labels)
    right, constant, exchanged = measured(labels), measured([commonest] * len(labels)), measured(others)[0]
    expected = share, 2 * share / (1 + share) / len(set(labels))
    equal = sum(a == b for a, b in zip(labels, others, strict=True)) / len(labels)
    own, foreign = measured(said)[0], measured(said, others)[0]
    sound = right == (1.0, 1.0) and exchanged == equal < 1.0 and bool(np.allclose(constant, expected))
    return {
        "right": right,
        "exchanged": exchanged,
        "exchanged_expected": equal,
        "constant": constant,
        "constant_expected": expected,
        "own": own,
        "foreign": foreign,
        "passed": sound and own > foreign,
    }


def class_rows(named: Sequence[Named]) -> list[dict[str, Any]]:
    """One row per document, laid out as a reply to a task is."""
    return [
        {
            "id": one.id,
            "prompt": [{"role": "user", "content": one.text}],
            "reply": one.named,
            "answer": one.label,
            "score": {"correct": float(one.right)},
            "mean_logprob": math.log(one.sure),
            "tokens": one.tokens,
        }
        for one in named
    ]
