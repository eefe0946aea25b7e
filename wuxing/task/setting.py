"""What a recipe says about a task: `make: task`, `task: <name>`, and that task's own keys, checked strictly.

A new kind of task is one subclass of `TaskStep`.  Built-in ones stand in `BUILT_IN`; others are found through the entry
point group `wuxing.task` of any installed distribution (`name = "module:Class"`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module, metadata
from typing import Any, ClassVar

from pydantic import GetJsonSchemaHandler, ValidationError, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, InitErrorDetails, PydanticCustomError

from wuxing.core.error import UsageError, nearest
from wuxing.core.step import StepConfig
from wuxing.task.task import SPLITS, Example

GROUP = "wuxing.task"
BUILT_IN = {
    "arithmetic": "wuxing.task.arithmetic:ArithmeticStep",
    "choices": "wuxing.task.choices:ChoicesStep",
}


class TaskStep(StepConfig):
    """Base of the tasks' settings.  Validating a mapping with it gives the settings class of the task it names."""

    task: str
    """Which kind of task: `arithmetic`, `choices`, or one that a plug-in brings."""

    splits: ClassVar[tuple[str, ...]] = SPLITS

    def generate(self, seed: int) -> dict[str, list[Example]]:
        """Every example of each split.  A pure function of the settings, the seed and the files they name."""
        raise NotImplementedError

    def score(self, example: Example, reply: str) -> dict[str, float]:
        """Judge one reply.  `correct` is 1.0 or 0.0; other keys are the task's own."""
        raise NotImplementedError

    def identity(self, example: Example) -> str:
        """Examples with the same identity are the same problem, however they are worded."""
        raise NotImplementedError

    def right_replies(self, example: Example) -> list[str]:
        """Wordings of the right answer that `score` must accept: the taught reply and the bare answer."""
        return [example.messages[-1]["content"], example.answer]

    def wrong_replies(self, example: Example) -> list[str]:
        """Near misses, hedges and tricks that `score` must reject, besides those that every task is tried with."""
        raise NotImplementedError

    def slice(self, example: Example) -> str:
        """The part of the task to which an example belongs, where results are also given by part; empty: none."""
        return ""

    def files(self) -> dict[str, str]:
        """Name → path of the outside files that `generate` reads."""
        return {}

    @classmethod
    def shape(cls, value: Mapping[str, Any]) -> type[StepConfig]:
        known = str(value.get("task")) in known_tasks()
        return find_task(str(value["task"])) if known else cls

    @model_validator(mode="wrap")
    @classmethod
    def _choose(cls, value: Any, handler: Callable[[Any], TaskStep]) -> TaskStep:
        if cls is not TaskStep or not isinstance(value, Mapping) or "task" not in value:
            return handler(value)
        try:
            chosen = find_task(str(value["task"]))
        except UsageError as error:
            wrong = PydanticCustomError("unknown_task", "{line}", {"line": str(error)})
            line = InitErrorDetails(type=wrong, loc=("task",), input=value["task"])
            raise ValidationError.from_exception_data("task", [line]) from None
        return chosen.model_validate(dict(value))

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        if cls is not TaskStep:
            return handler(schema)
        return {"anyOf": [handler(find_task(name).__pydantic_core_schema__) for name in known_tasks()]}


def known_tasks() -> list[str]:
    """The names that may stand after `task:`."""
    return sorted({*BUILT_IN, *(point.name for point in metadata.entry_points(group=GROUP))})


def find_task(name: str) -> type[TaskStep]:
    """The settings class of the task `name`; UsageError with the nearest known name."""
    target = BUILT_IN.get(name)
    if target is None:
        points = list(metadata.entry_points(group=GROUP, name=name))
        if not points:
            raise UsageError(f'There is no task "{name}"', nearest(name, known_tasks()))
        target = points[0].value
    module, _, attribute = target.partition(":")
    found = getattr(import_module(module), attribute)
    if not (isinstance(found, type) and issubclass(found, TaskStep)):
        raise UsageError(f'The task "{name}" is {target}, which is no TaskStep', "Mend the plug-in that brings it")
    return found
