"""Metrics on trial: one that does not react to what it measures is worth nothing, and says so in the evidence."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from random import Random
from typing import Any, Protocol

from wuxing.core.record import Record
from wuxing.evaluate.metric import bits_per_byte
from wuxing.evaluate.subject import Score, Subject
from wuxing.task.task import Example, StoredTask

TOLERANCE = 1e-3
"""Nats per token between the engine's scorer and a plain forward pass, both in fp32: 300 times what rounding gives."""
RISE = 0.02
"""How much worse, relatively, the words of a document in random order must be predicted."""


def try_accuracy(task: StoredTask, examples: Sequence[Example]) -> dict[str, Any]:
    """Right, exchanged and empty answers through the verifier.

    `passed` when all right ones count, no empty one does, and an exchanged one only where it is the same answer.
    """
    n = len(examples)
    shift = next((s for s in range(1, n) if examples[0].answer != examples[s].answer), 0)
    others = [examples[(place + shift) % n] for place in range(n)]

    def share(replies: Sequence[str]) -> float:
        return sum(task.score(e, reply)["correct"] for e, reply in zip(examples, replies, strict=True)) / n

    right = share([example.messages[-1]["content"] for example in examples])
    exchanged = share([other.messages[-1]["content"] for other in others])
    same = sum(example.answer == other.answer for example, other in zip(examples, others, strict=True)) / n
    empty = share([""] * n)
    found = {"right": right, "exchanged": exchanged, "exchanged_expected": same, "empty": empty}
    return {**found, "passed": right == 1.0 and exchanged == same < 1.0 and empty == 0.0}


def shuffle_words(records: Sequence[Record], seed: int) -> list[Record]:
    """The same documents with their words in random order: as many bytes of the same words, without their sense."""

    def shuffled(text: str, place: str) -> str:
        words = text.split(" ")
        Random(f"{seed}/{place}").shuffle(words)
        return " ".join(words)

    found = []
    for record in records:
        text = None if record.text is None else shuffled(record.text, record.id)
        messages = [
            {**message, "content": shuffled(message["content"], f"{record.id}/{number}")}
            for number, message in enumerate(record.messages or [])
        ]
        found.append(Record(record.id, record.source, text, messages or None))
    return found


class Scorer(Protocol):
    """Whatever scores documents."""

    @property
    def name(self) -> str: ...

    def score(self, records: Iterable[Record]) -> Iterator[Score]:
        """How likely each one is found."""
        ...


def try_bits(subject: Scorer, records: Sequence[Record], seed: int) -> dict[str, Any]:
    """Bits per byte of some documents, and of the same with their words shuffled; `passed` when those are worse."""
    plain = bits_per_byte(list(subject.score(records)))
    shuffled = bits_per_byte(list(subject.score(shuffle_words(records, seed))))
    return {"model": subject.name, "plain": plain, "shuffled": shuffled, "passed": shuffled > plain * (1 + RISE)}


def try_scorer(subject: Subject, pairs: Sequence[tuple[list[int], list[int]]]) -> float:
    """Largest difference, in nats per token, between the engine's scores and one plain forward pass per pair."""
    import torch

    worst = 0.0
    network = subject.network
    for (prompt, ids), scored in zip(pairs, subject.engine.score(list(pairs)), strict=True):
        tokens = torch.tensor([prompt + ids], device=network.device)
        with torch.inference_mode():
            logprobs = network(tokens)[0].float().log_softmax(-1)
        places = torch.arange(len(prompt) - 1, len(prompt) + len(ids) - 1, device=network.device)
        plain = logprobs[places, tokens[0, len(prompt) :]].cpu()
        worst = max(worst, float((plain - torch.tensor(scored)).abs().max()))
    return worst
