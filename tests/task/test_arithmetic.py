"""Arithmetic: pure, disjoint, right, and refused when it cannot be."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from wuxing.core.artifact import Artifact
from wuxing.core.error import UsageError
from wuxing.core.file import read_json
from wuxing.core.splits import read_table
from wuxing.task.arithmetic import ArithmeticStep
from wuxing.task.setting import TaskStep
from wuxing.task.task import load_task
from wuxing.task.task_kind import TaskKind

CONFIG: dict[str, Any] = {
    "task": "arithmetic",
    "operations": [{"operation": "add", "high": 30}, {"operation": "multiply", "high": 12}],
    "examples": {"train": 600, "validation": 20, "test": 60},
}


def settings(**changes: Any) -> TaskStep:
    return TaskStep.model_validate({"make": "task", **CONFIG, **changes})


def unordered(example: Any) -> tuple[str, frozenset[int]]:
    return example.meta["operation"], frozenset(example.meta["operands"])


def test_held_out_problems_appear_nowhere_else_in_either_order() -> None:
    splits = settings().generate(7)
    problems = {split: [unordered(example) for example in examples] for split, examples in splits.items()}
    assert [len(problems[split]) for split in ("train", "validation", "test")] == [600, 20, 60]
    for held_out in ("validation", "test"):
        assert len(set(problems[held_out])) == len(problems[held_out])
    assert not set(problems["test"]) & (set(problems["train"]) | set(problems["validation"]))
    assert not set(problems["validation"]) & set(problems["train"])
    assert any(e.meta["operands"][0] > e.meta["operands"][1] for e in splits["train"]), "operands come in both orders"


def test_generation_is_a_pure_function_of_the_seed() -> None:
    assert settings().generate(7) == settings().generate(7)
    assert settings().generate(7) != settings().generate(8)
    more = settings(examples={"train": 700, "validation": 20, "test": 60}).generate(7)
    assert more["train"][:600] == settings().generate(7)["train"], "a longer split begins like a shorter one"


@pytest.mark.parametrize("reply", ["bare", "sentence", "worked"])
def test_answers_are_right(reply: str) -> None:
    operations = [{"operation": name, "low": 1, "high": 40} for name in ("add", "subtract", "multiply", "divide")]
    step = settings(operations=operations, reply=reply)
    for example in step.generate(3)["train"]:
        a, b = example.meta["operands"]
        symbol = example.meta["shown"].split()[1]
        assert eval(f"{a} {symbol} {b}") == int(example.answer) >= 0
        assert example.meta["shown"] in example.messages[0]["content"]
        assert step.score(example, example.messages[-1]["content"])["correct"] == 1.0


def test_harder_ranges_give_longer_operands() -> None:
    easy = settings(operations=[{"operation": "add", "high": 30}]).generate(1)["train"]
    hard = settings(operations=[{"operation": "add", "low": 100, "high": 999}]).generate(1)["train"]
    assert max(e.meta["operands"][0] for e in easy) <= 30 < 100 <= min(e.meta["operands"][0] for e in hard)


def test_too_few_problems_are_refused_with_the_possible_number() -> None:
    step = settings(operations=[{"operation": "multiply", "high": 9}])
    with pytest.raises(UsageError, match="80 held-out examples are too many for 55 different problems"):
        step.generate(1)


def test_artifact_has_the_layout_of_a_corpus_and_reads_back(make_step: Callable[..., Artifact]) -> None:
    artifact = make_step(TaskKind(), CONFIG, name="arithmetic")
    assert artifact.failures == []
    assert sorted(artifact.record["files"]) == [
        "evidence.json",
        "fates.json",
        "fates.parquet",
        "task.json",
        "test.parquet",
        "train.parquet",
        "validation.parquet",
    ]
    task = load_task(artifact.path)
    made = settings().generate(7)
    assert {split: task.examples(split) for split in made} == made
    assert read_table(artifact.path, "train").num_rows == 600
    assert read_json(artifact.path / "fates.json") == {"total": 680, "counts": {"kept": 680}}
    example = task.examples("test")[0]
    assert task.prompt(example) == example.messages[:1] and task.prompt(example)[0]["role"] == "user"
    assert task.score(example, example.answer) == {"correct": 1.0, "answered": 1.0}
    assert task.score(example, "no idea") == {"correct": 0.0, "answered": 0.0}
    with pytest.raises(UsageError, match='Did you mean "test"'):
        task.examples("tset")


def test_equal_settings_and_seed_give_equal_bytes(make_step: Callable[..., Artifact], tmp_path: Path) -> None:
    one, two = make_step(TaskKind(), CONFIG, name="one"), make_step(TaskKind(), CONFIG, name="two")
    assert one.content == two.content
    assert make_step(TaskKind(), CONFIG, name="one", seed=8).content != one.content


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"task": "arithmetik"}, 'There is no task "arithmetik". Did you mean "arithmetic"'),
        ({"operatons": []}, "Extra inputs"),
        ({"phrasings": ["What?"]}, "must hold {problem} once"),
        ({"operations": [{"operation": "add", "low": 9, "high": 3}]}, "low 9 is above high 3"),
        ({"operations": []}, "at least 1 item"),
    ],
)
def test_mistakes_in_the_settings_are_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message.replace("{", r"\{").replace("?", r"\?")):
        settings(**change)


def test_schema_names_every_key_of_every_task() -> None:
    schema = TaskStep.model_json_schema()
    parts = {part["title"]: part for part in schema["anyOf"]}
    assert {"ArithmeticStep", "ChoicesStep"} <= set(parts)
    assert set(CONFIG) < set(parts["ArithmeticStep"]["properties"])
    assert "weight" in schema["$defs"]["Operation"]["properties"]
    assert isinstance(settings(), ArithmeticStep)
