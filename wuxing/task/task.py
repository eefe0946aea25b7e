"""Tasks: examples, prompts, right answers and a verifier.  One task serves supervised tuning, RL and evaluation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from wuxing.core.error import UsageError, WuxingError, nearest
from wuxing.core.file import read_json

if TYPE_CHECKING:
    from wuxing.task.setting import TaskStep

SPLITS = ("train", "validation", "test")
Message = dict[str, str]


@dataclass(frozen=True)
class Example:
    """One problem.  `messages` is the whole dialogue; its last message is the assistant's right reply."""

    id: str
    messages: list[Message]
    answer: str
    """The bare right answer, as the verifier compares it."""
    meta: dict[str, Any] = field(default_factory=dict)


class Task(Protocol):
    """What trainers and evaluations see of a task."""

    @property
    def name(self) -> str:
        """The kind of task: `arithmetic`."""

    def examples(self, split: str) -> list[Example]:
        """The examples of `train`, `validation` or `test`, always in the same order."""

    def prompt(self, example: Example) -> list[Message]:
        """The messages that a model is asked to go on from."""

    def answer(self, example: Example) -> str:
        """The bare right answer."""

    def score(self, example: Example, reply: str) -> dict[str, float]:
        """Judge a reply: `correct` is 1.0 or 0.0; other keys are the task's own."""


@dataclass(frozen=True)
class StoredTask:
    """A task read back from its artifact: the rows from the Parquet files, the verifier from the settings."""

    directory: Path
    settings: TaskStep

    @property
    def name(self) -> str:
        return self.settings.task

    def examples(self, split: str) -> list[Example]:
        if split not in SPLITS:
            raise UsageError(f'A task has no split "{split}"', nearest(split, SPLITS))
        return list(_read(self.directory, split))

    def prompt(self, example: Example) -> list[Message]:
        return example.messages[:-1]

    def answer(self, example: Example) -> str:
        return example.answer

    def score(self, example: Example, reply: str) -> dict[str, float]:
        return self.settings.score(example, reply)

    def identity(self, example: Example) -> str:
        """What makes two examples the same problem."""
        return self.settings.identity(example)

    def slice(self, example: Example) -> str:
        """The part of the task to which an example belongs; empty where the task has no parts."""
        return self.settings.slice(example)


def load_task(directory: Path) -> StoredTask:
    """The task of an artifact's directory.  WuxingError when the directory holds none."""
    from wuxing.task.setting import TaskStep

    path = directory / "task.json"
    if not path.exists():
        raise WuxingError(f"{directory} is no task: it has no task.json", 'Name an artifact made by "make: task"')
    return StoredTask(directory, TaskStep.model_validate({"make": "task", **read_json(path)}))


def _read(directory: Path, split: str) -> Iterator[Example]:
    from wuxing.core.splits import read_records

    for record in read_records(directory, split):
        assert record.messages, f"{record.id} of a task has no messages"
        yield Example(record.id, record.messages, str(record.meta["answer"]), record.meta)
