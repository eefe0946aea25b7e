"""Evaluation items that a model may have seen in training: the same problem, the same text, or much the same words.

Memory holds only the evaluation items; training rows stream past once.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from wuxing.core.artifact import Artifact
from wuxing.core.record import Record
from wuxing.task.task import Example, StoredTask, load_task

_WORD = re.compile(r"[぀-ヿ㐀-鿿豈-﫿가-힯]|[^\W_぀-ヿ㐀-鿿豈-﫿가-힯]+", re.UNICODE)


@dataclass
class Item:
    """One item of an evaluation set."""

    set: str
    """Name of the corpus or task."""
    id: str
    texts: list[str]
    """Wordings whose appearance as a whole training row, or as a whole question, is a leak."""
    problem: str | None = None
    """`<task>:<identity>`: the same problem however it is worded."""


@dataclass(frozen=True)
class Match:
    """An item and the training row that gives it away."""

    set: str
    item: str
    data: str
    """Id of the artifact that holds the row."""
    row: str
    how: str
    """`exact`, `problem` or `near`."""
    share: float = 1.0
    """Share of the item's n-grams that the row holds."""

    def to_json(self) -> dict[str, Any]:
        return {key: getattr(self, key) for key in ("set", "item", "data", "row", "how", "share")}


@dataclass
class Index:
    """The evaluation items, ready to be asked about training rows."""

    items: list[Item]
    ngram: int
    threshold: float
    _texts: dict[str, list[int]] = field(init=False)
    _problems: dict[str, list[int]] = field(init=False)
    _grams: dict[tuple[str, ...], list[int]] = field(init=False)
    _sizes: list[int] = field(init=False)

    def __post_init__(self) -> None:
        self._texts, self._problems, self._grams = defaultdict(list), defaultdict(list), defaultdict(list)
        self._sizes = []
        for number, item in enumerate(self.items):
            for text in {normalised(text) for text in item.texts}:
                self._texts[text].append(number)
            if item.problem:
                self._problems[item.problem].append(number)
            grams = set(self._grams_of(item.texts[0]))
            self._sizes.append(len(grams))
            for gram in grams:
                self._grams[gram].append(number)

    def matches(self, data: Artifact) -> list[Match]:
        """The strongest match of each item with a row of the `train` split of `data`."""
        task = load_task(data.path) if data.kind == "task" else None
        found: dict[int, Match] = {}
        for row in _rows(data):
            for number, how, share in self._ask(row, task):
                item = self.items[number]
                match = Match(item.set, item.id, data.id, row.id, how, share)
                if number not in found or _strength(match) > _strength(found[number]):
                    found[number] = match
        return [found[number] for number in sorted(found)]

    def _ask(self, row: Record, task: StoredTask | None) -> Iterator[tuple[int, str, float]]:
        texts = texts_of(row)
        for text in {normalised(text) for text in texts}:
            for number in self._texts.get(text, ()):
                yield number, "exact", 1.0
        if task is not None and self._problems:
            for number in self._problems.get(problem_of(task, row), ()):
                yield number, "problem", 1.0
        hits: dict[int, int] = defaultdict(int)
        for gram in set(self._grams_of(texts[0])):
            for number in self._grams.get(gram, ()):
                hits[number] += 1
        for number, count in hits.items():
            share = count / self._sizes[number]
            if share >= self.threshold:
                yield number, "near", share

    def _grams_of(self, text: str) -> Iterator[tuple[str, ...]]:
        words = words_of(text)
        return zip(*(words[i:] for i in range(self.ngram)), strict=False)


def items_of_corpus(name: str, records: Iterable[Record]) -> list[Item]:
    """Documents or dialogues held out for bits per byte."""
    return [Item(name, record.id, texts_of(record)[:1]) for record in records]


def items_of_task(name: str, task: StoredTask, examples: Iterable[Example]) -> list[Item]:
    """Problems of a task."""
    return [Item(name, e.id, _texts(e.messages), f"{task.name}:{task.identity(e)}") for e in examples]


def texts_of(row: Record) -> list[str]:
    """The whole row first; then, of a dialogue, its question alone."""
    if row.text is not None:
        return [row.text]
    return _texts(row.messages or [])


def problem_of(task: StoredTask, row: Record) -> str:
    """`<task>:<identity>` of a row of a task."""
    return f"{task.name}:{task.identity(Example(row.id, row.messages or [], str(row.meta['answer']), row.meta))}"


def normalised(text: str) -> str:
    """Case, spaces and punctuation make no difference, digits and signs of arithmetic do."""
    return " ".join(re.findall(r"[\w+\-*/=<>^%×÷]+", text.casefold()))


def words_of(text: str) -> list[str]:
    """Words, and single characters of Chinese, Japanese and Korean."""
    return _WORD.findall(text.casefold())


def _texts(messages: list[dict[str, str]]) -> list[str]:
    whole = "\n".join(message["content"] for message in messages)
    asked = "\n".join(message["content"] for message in messages[:-1])
    return [whole, asked] if asked else [whole]


def _rows(data: Artifact) -> Iterator[Record]:
    from wuxing.core.splits import read_records

    return read_records(data.path, "train")


def _strength(match: Match) -> tuple[int, float]:
    return ({"near": 0, "problem": 1, "exact": 2}[match.how], match.share)
