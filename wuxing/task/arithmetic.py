"""Arithmetic: generated problems whose difficulty is dialled by operation and range."""

from __future__ import annotations

import hashlib
from decimal import Decimal
from random import Random
from typing import Literal

from pydantic import Field, model_validator

from wuxing.core.error import UsageError
from wuxing.core.step import Config
from wuxing.task.number import final_number
from wuxing.task.setting import TaskStep
from wuxing.task.task import SPLITS, Example

SYMBOLS = {"add": "+", "subtract": "-", "multiply": "*", "divide": "/"}
COMMUTATIVE = ("add", "multiply")
PHRASINGS = (
    "What is {problem}?",
    "{problem} =",
    "How much is {problem}?",
    "Calculate {problem}.",
    "Please work out {problem}.",
)
HELD_OUT_SPARE = 2.0
"""Problems set aside for a held-out split, per example that it needs: drawing until all are different stays quick."""
LEAST_HELD_OUT = 0.05
"""Least share of all problems set aside for a held-out split: where problems abound, drawing still finds them soon."""


class Operation(Config):
    """One family of problems."""

    operation: Literal["add", "subtract", "multiply", "divide"]
    low: int = Field(0, ge=0)
    """Smallest operand."""
    high: int = Field(ge=1)
    """Largest operand (of a division: largest divisor and largest quotient).  Larger is harder."""
    weight: float = Field(1.0, gt=0)
    """Share of the examples, relative to the other families."""

    @model_validator(mode="after")
    def _range(self) -> Operation:
        if self.low > self.high:
            raise ValueError(f"low {self.low} is above high {self.high}")
        return self

    @property
    def symbol(self) -> str:
        return SYMBOLS[self.operation]

    @property
    def problems(self) -> int:
        """How many different problems there are."""
        numbers = self.high - self.low + 1
        if self.operation == "divide":
            return (self.high - max(1, self.low) + 1) * numbers
        return numbers * (numbers + 1) // 2

    def draw(self, random: Random) -> tuple[int, int]:
        """Two operands in the order in which they are shown; differences are never negative, divisions come out."""
        a, b = random.randint(self.low, self.high), random.randint(self.low, self.high)
        if self.operation == "subtract":
            return max(a, b), min(a, b)
        if self.operation == "divide":
            divisor = random.randint(max(1, self.low), self.high)
            return a * divisor, divisor
        return a, b


class Counts(Config):
    """Examples per split."""

    train: int = Field(ge=1)
    validation: int = Field(ge=0)
    test: int = Field(ge=1)


class ArithmeticStep(TaskStep):
    """Settings of the task `arithmetic`."""

    task: Literal["arithmetic"]
    operations: list[Operation] = Field(min_length=1)
    """Families of problems; an easy and a hard family of one operation may stand side by side."""
    examples: Counts
    """Examples per split.  Held-out problems are all different, and not in `train` in either order."""
    phrasings: list[str] = Field(list(PHRASINGS), min_length=1)
    """Questions; `{problem}` is replaced by `7 + 5`."""
    reply: Literal["bare", "sentence", "worked"] = "bare"
    """The taught reply: `12`; `The answer is 12.`; `27 + 45 = 60 + 12 = 72`."""

    @model_validator(mode="after")
    def _phrased(self) -> ArithmeticStep:
        for phrasing in self.phrasings:
            if phrasing.count("{problem}") != 1:
                raise ValueError(f'the phrasing "{phrasing}" must hold {{problem}} once')
        return self

    def generate(self, seed: int) -> dict[str, list[Example]]:
        shares = self._shares()
        return {split: self._split(seed, split, shares) for split in SPLITS}

    def score(self, example: Example, reply: str) -> dict[str, float]:
        number = final_number(reply)
        return {
            "correct": float(number is not None and number == Decimal(example.answer)),
            "answered": float(number is not None),
        }

    def identity(self, example: Example) -> str:
        return str(example.meta["problem"])

    def slice(self, example: Example) -> str:
        digits = max(len(str(operand)) for operand in example.meta["operands"])
        return f"{example.meta['operation']}, {digits} digit{'s' if digits > 1 else ''}"

    def right_replies(self, example: Example) -> list[str]:
        answer, shown = example.answer, example.meta["shown"]
        return [
            *super().right_replies(example),
            f"The answer is {answer}.",
            f"{shown} = {answer}",
            f"{shown} is {answer}.",
        ]

    def wrong_replies(self, example: Example) -> list[str]:
        value, shown = int(example.answer), example.meta["shown"]
        near = {value + 1, value - 1, value + 10, value - 10, -value, value * 10, int(str(value)[::-1])} - {value}
        replies = [
            form.format(wrong) for wrong in sorted(near) for form in ("{}", "The answer is {}.", f"{shown} = {{}}")
        ]
        return [
            *replies,
            shown,
            f"{shown} =",
            f"{value} or {value + 1}",
            f"{value - 1}, {value}",
            f"{shown} = {value} or {value + 2}",
            f"{value}.5",
        ]

    def _split(self, seed: int, split: str, shares: dict[str, float]) -> list[Example]:
        count, seen, examples = getattr(self.examples, split), set[str](), list[Example]()
        attempt = 0
        while len(examples) < count:
            random = Random(f"{seed}/{split}/{attempt}")
            attempt += 1
            if attempt > 1000 * (count + 10):
                raise UsageError(
                    f"There are too few different problems for {count} examples of {split}",
                    "Raise operations.high, or lower examples",
                )
            operation = random.choices(self.operations, [family.weight for family in self.operations])[0]
            operands = operation.draw(random)
            problem = identity_of(operation.operation, operands)
            if _place(f"{seed}/{problem}", shares) != split or (split != "train" and problem in seen):
                continue
            seen.add(problem)
            examples.append(self._example(f"arithmetic-{split}-{len(examples)}", operation, operands, problem, random))
        return examples

    def _example(
        self, id: str, operation: Operation, operands: tuple[int, int], problem: str, random: Random
    ) -> Example:
        a, b = operands
        shown = f"{a} {operation.symbol} {b}"
        answer = str(evaluate(operation.operation, a, b))
        question = random.choice(self.phrasings).replace("{problem}", shown)
        reply = {"bare": answer, "sentence": f"The answer is {answer}."}.get(self.reply)
        messages = [
            {"role": "user", "content": question},
            {"role": "assistant", "content": reply or worked(operation.operation, a, b)},
        ]
        meta = {
            "answer": answer,
            "problem": problem,
            "shown": shown,
            "operation": operation.operation,
            "operands": [a, b],
        }
        return Example(id, messages, answer, meta)

    def _shares(self) -> dict[str, float]:
        """The share of all problems that belongs to each held-out split."""
        largest: dict[str, int] = {}
        for family in self.operations:
            largest[family.operation] = max(largest.get(family.operation, 0), family.problems)
        problems, held_out = sum(largest.values()), self.examples.validation + self.examples.test
        if HELD_OUT_SPARE * held_out > problems / 2:
            raise UsageError(
                f"{held_out} held-out examples are too many for {problems} different problems",
                f"Ask for at most {int(problems / 2 / HELD_OUT_SPARE)}, or raise operations.high",
            )
        return {
            split: max(LEAST_HELD_OUT, HELD_OUT_SPARE * getattr(self.examples, split) / problems)
            for split in ("test", "validation")
        }


def identity_of(operation: str, operands: tuple[int, int]) -> str:
    """`add:5,7`: the same for 7 + 5 and 5 + 7."""
    ordered = sorted(operands) if operation in COMMUTATIVE else operands
    return f"{operation}:{ordered[0]},{ordered[1]}"


def evaluate(operation: str, a: int, b: int) -> int:
    """The right answer."""
    if operation == "divide":
        return a // b
    return {"add": a + b, "subtract": a - b, "multiply": a * b}[operation]


def worked(operation: str, a: int, b: int) -> str:
    """The answer by place values: `27 + 45 = 60 + 12 = 72`, `72 - 45 = 32 - 5 = 27`, `12 * 7 = 70 + 14 = 84`."""
    steps = [f"{a} {SYMBOLS[operation]} {b}"]
    if operation in COMMUTATIVE:
        parts = _places_added(a, b) if operation == "add" else [part * b for part in _places(a)]
        if len(parts) > 1:
            steps.append(" + ".join(map(str, parts)))
    elif operation == "subtract":
        rest, places = a, _places(b)
        for number, place in enumerate(places[:-1]):
            rest -= place
            steps.append(f"{rest} - {sum(places[number + 1 :])}")
    return " = ".join([*steps, str(evaluate(operation, a, b))])


def _places(number: int) -> list[int]:
    """347 → [300, 40, 7], without zeros."""
    digits = str(number)
    return [int(digit) * 10 ** (len(digits) - 1 - place) for place, digit in enumerate(digits) if digit != "0"]


def _places_added(a: int, b: int) -> list[int]:
    size = max(len(str(a)), len(str(b)))
    sums = [(a // 10**place % 10 + b // 10**place % 10) * 10**place for place in range(size - 1, -1, -1)]
    return [part for part in sums if part]


def _place(key: str, shares: dict[str, float]) -> str:
    """The split to which a problem belongs, whoever draws it."""
    point = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8]) / 2**64
    for split, share in shares.items():
        if point < share:
            return split
        point -= share
    return "train"
