"""Multiple choice from a JSON-lines file: a question, its options, and which of them is right."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from wuxing.core.error import WuxingError
from wuxing.core.step import Config
from wuxing.task.setting import TaskStep
from wuxing.task.task import SPLITS, Example

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_MARK = re.compile(r"\banswer\b(?:\s+is\b)?\s*:?|答案(?:是|为)?[:：]?", re.IGNORECASE)
_LETTER = re.compile(r"(?<![A-Za-z0-9'’])([A-Z])(?![A-Za-z0-9'’])")


class Shares(Config):
    """Shares of the held-out splits; the rest is `train`."""

    validation: float = Field(ge=0, lt=1)
    test: float = Field(gt=0, lt=1)


class ChoicesStep(TaskStep):
    """Settings of the task `choices`."""

    task: Literal["choices"]
    file: Path
    """JSON lines, `.gz` allowed: each an object with `question`, `options` (a list) and `answer`."""
    question: str = "question"
    """Key of the question."""
    options: str = "options"
    """Key of the list of options."""
    answer: str = "answer"
    """Key of the right option: its letter, its position from 0, or its text."""
    split: Shares
    """Questions go to a split by a digest of their text, so equal questions always share one."""

    def generate(self, seed: int) -> dict[str, list[Example]]:
        splits: dict[str, list[Example]] = {split: [] for split in SPLITS}
        for number, row in self._rows():
            example = self._example(f"choices-{number}", row, f"{self.file}, line {number}")
            splits[self._place(seed, self.identity(example))].append(example)
        for split in ("train", "test"):
            if not splits[split]:
                raise WuxingError(f"{self.file} gives no example of {split}", "Add questions, or change split")
        return splits

    def score(self, example: Example, reply: str) -> dict[str, float]:
        chosen = chosen_option(reply, example.meta["options"])
        return {"correct": float(chosen == example.answer), "answered": float(chosen is not None)}

    def identity(self, example: Example) -> str:
        return " ".join(str(example.meta["question"]).split()).casefold()

    def right_replies(self, example: Example) -> list[str]:
        letter = example.answer
        text = example.meta["options"][LETTERS.index(letter)]
        return [*super().right_replies(example), f"({letter})", f"The answer is {letter}.", f"{letter}. {text}", text]

    def wrong_replies(self, example: Example) -> list[str]:
        letters = LETTERS[: len(example.meta["options"])]
        wrong = [letter for letter in letters if letter != example.answer]
        texts = [example.meta["options"][LETTERS.index(letter)] for letter in wrong]
        hedged = [f"{example.answer} or {wrong[0]}", " ".join(letters), f"{wrong[0]}, {example.answer}"]
        return [*wrong, *texts, *hedged, *(f"The answer is {letter}." for letter in wrong)]

    def files(self) -> dict[str, str]:
        return {"file": str(self.file)}

    def _rows(self) -> Iterator[tuple[int, dict[str, Any]]]:
        if not self.file.is_file():
            raise WuxingError(f"There is no file {self.file}", "Give the path of a JSON-lines file")
        content = self.file.read_bytes()
        text = (gzip.decompress(content) if self.file.suffix == ".gz" else content).decode("utf-8")
        for number, line in enumerate(text.split("\n"), 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                raise WuxingError(f"{self.file}, line {number} is no JSON: {error}", "Mend the line") from None
            missing = [key for key in (self.question, self.options, self.answer) if key not in row]
            if missing:
                raise WuxingError(f"{self.file}, line {number} has no {missing[0]}", "Name the file's keys")
            yield number, row

    def _example(self, id: str, row: dict[str, Any], where: str) -> Example:
        question, options = str(row[self.question]), [str(option) for option in row[self.options]]
        if not 2 <= len(set(options)) == len(options) <= len(LETTERS):
            raise WuxingError(f"{where} needs 2 to {len(LETTERS)} different options", "Mend the line")
        letter = _letter_of(row[self.answer], options)
        if letter is None:
            raise WuxingError(f'{where}: the answer "{row[self.answer]}" is none of the options', "Mend the line")
        listed = "\n".join(f"{LETTERS[place]}. {option}" for place, option in enumerate(options))
        messages = [
            {"role": "user", "content": f"{question}\n{listed}\nAnswer with the letter."},
            {"role": "assistant", "content": letter},
        ]
        return Example(id, messages, letter, {"answer": letter, "question": question, "options": options})

    def _place(self, seed: int, identity: str) -> str:
        point = int.from_bytes(hashlib.sha256(f"{seed}/{identity}".encode()).digest()[:8]) / 2**64
        if point < self.split.test:
            return "test"
        return "validation" if point < self.split.test + self.split.validation else "train"


def _letter_of(answer: Any, options: list[str]) -> str | None:
    if isinstance(answer, int) and 0 <= answer < len(options):
        return LETTERS[answer]
    if str(answer) in options:
        return LETTERS[options.index(str(answer))]
    return str(answer) if str(answer) in tuple(LETTERS[: len(options)]) else None


def chosen_option(reply: str, options: list[str]) -> str | None:
    """The one option to which a reply commits itself.

    An option's text alone counts as its letter.  Otherwise, after the last `answer is` (or in the whole reply), exactly
    one different capital letter of an option must stand by itself; several are hedging and count as no answer.
    """
    said = reply.strip().rstrip(".").casefold()
    for place, option in enumerate(options):
        if said and said == option.strip().rstrip(".").casefold():
            return LETTERS[place]
    statement = reply
    for mark in _MARK.finditer(reply):
        statement = reply[mark.end() :]
    letters = {letter for letter in _LETTER.findall(statement) if letter in LETTERS[: len(options)]}
    return letters.pop() if len(letters) == 1 else None
