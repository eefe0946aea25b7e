"""Multiple choice from a file, and tasks that a plug-in brings."""

import gzip
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from wuxing.core.artifact import Artifact
from wuxing.core.context import Context
from wuxing.core.error import WuxingError
from wuxing.task.choices import chosen_option
from wuxing.task.setting import TaskStep
from wuxing.task.task import load_task
from wuxing.task.task_kind import TaskKind

CAPITALS = ["Paris", "Rome", "Berlin", "Madrid", "Vienna", "Athens"]


def write_file(path: Path, rows: int = 60) -> Path:
    lines = []
    for number in range(rows):
        options = [CAPITALS[(number + place) % 6] for place in range(4)]
        answer: Any = [options[number % 4], "ABCD"[number % 4], number % 4][number % 3]
        lines.append(json.dumps({"question": f"Which city comes {number}th?", "options": options, "answer": answer}))
    content = "\n".join(lines).encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


@pytest.mark.parametrize("name", ["questions.jsonl", "questions.jsonl.gz"])
def test_file_becomes_a_task_that_passes_its_own_evidence(
    make_step: Callable[..., Artifact], tmp_path: Path, name: str
) -> None:
    config = {
        "task": "choices",
        "file": str(write_file(tmp_path / name)),
        "split": {"validation": 0.1, "test": 0.3},
    }
    artifact = make_step(TaskKind(), config, name="cities")
    assert artifact.failures == []
    task = load_task(artifact.path)
    examples = [example for split in ("train", "validation", "test") for example in task.examples(split)]
    assert len(examples) == 60
    for example in examples:
        number = int(example.id.split("-")[1]) - 1
        assert task.answer(example) == "ABCD"[number % 4]
        assert task.score(example, f"The answer is {'ABCD'[(number + 1) % 4]}.")["correct"] == 0.0


@pytest.mark.parametrize(
    ("reply", "chosen"),
    [
        ("B", "B"),
        ("(B)", "B"),
        ("B. Rome", "B"),
        ("The answer is B.", "B"),
        ("rome", "B"),
        ("A is wrong, the answer is B", "B"),
        ("A or B", None),
        ("A B C D", None),
        ("", None),
        ("E", None),
        ("Because", None),
    ],
)
def test_one_option_must_be_chosen(reply: str, chosen: str | None) -> None:
    assert chosen_option(reply, ["Paris", "Rome", "Berlin", "Madrid"]) == chosen


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{broken", "line 1 is no JSON"),
        ('{"question": "q", "options": ["a", "b"]}', "line 1 has no answer"),
        ('{"question": "q", "options": ["a", "a"], "answer": 0}', "different options"),
        ('{"question": "q", "options": ["a", "b"], "answer": "c"}', 'the answer "c" is none of the options'),
    ],
)
def test_broken_lines_are_named(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text(line)
    step = TaskStep.model_validate(
        {"make": "task", "task": "choices", "file": path, "split": {"validation": 0.0, "test": 0.5}}
    )
    with pytest.raises(WuxingError, match=message):
        step.generate(1)


def test_missing_file_is_named_before_anything_is_made(tmp_path: Path) -> None:
    step = TaskStep.model_validate(
        {"make": "task", "task": "choices", "file": "no.jsonl", "split": {"validation": 0.0, "test": 0.5}}
    )
    with pytest.raises(WuxingError, match=r"no file no\.jsonl"):
        TaskKind().inputs(step, Context(home=tmp_path))


def test_changed_file_changes_the_inputs(tmp_path: Path) -> None:
    path = write_file(tmp_path / "q.jsonl")
    step = TaskStep.model_validate(
        {"make": "task", "task": "choices", "file": path, "split": {"validation": 0.0, "test": 0.5}}
    )
    before = TaskKind().inputs(step, Context(home=tmp_path))
    write_file(path, rows=61)
    assert TaskKind().inputs(step, Context(home=tmp_path)) != before


def test_plug_in_task_is_found_by_its_entry_point(tmp_path: Path) -> None:
    (tmp_path / "echoing.py").write_text(
        "from typing import Literal\n"
        "from wuxing.task.setting import TaskStep\n"
        "class EchoStep(TaskStep):\n"
        "    task: Literal['echo']\n"
        "    words: int\n"
    )
    information = tmp_path / "echoing-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: echoing\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text("[wuxing.task]\necho = echoing:EchoStep\n")
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "from wuxing.task.task_kind import TaskKind\n"
        "step = TaskKind.Config.model_validate({'make': 'task', 'task': 'echo', 'words': 3})\n"
        "print(type(step).__name__, step.words, 'torch' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["EchoStep", "3", "False"]
