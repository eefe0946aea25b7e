"""The verbs as a user types them: real processes, their exit codes, their lines, their JSON."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from wuxing.core.yaml import parse

ROOT = Path(__file__).parents[2]
RECIPE = """name: sums
seed: 7
steps:
  sums:
    make: task
    task: arithmetic
    operations: [{operation: add, high: 30}]
    examples: {train: 200, validation: 20, test: 50}
"""
Verb = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def wuxing(tmp_path: Path) -> Verb:
    """Run the command in a folder of its own, which holds `sums.yaml`."""
    (tmp_path / "sums.yaml").write_text(RECIPE)

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "WUXING_HOME": str(tmp_path / "store"), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "wuxing", *words]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    return run


def answer(done: subprocess.CompletedProcess[str]) -> Any:
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_life_of_an_artifact(wuxing: Verb, tmp_path: Path) -> None:
    assert answer(wuxing("plan", "sums.yaml", "--json"))[0]["verdict"] == "new"
    made = answer(wuxing("run", "sums.yaml", "--json"))["made"]
    assert [(step["artifact"], step["reused"]) for step in made] == [("task/sums@v1", False)]
    assert "nothing to do" in wuxing("run", "sums.yaml").stdout
    changed = ("--set", "sums.examples.train=100")
    plan = answer(wuxing("plan", "sums.yaml", *changed, "--json"))[0]
    assert plan["reason"] == "because examples.train 200 → 100"
    assert answer(wuxing("run", "sums.yaml", *changed, "--json"))["made"][0]["artifact"] == "task/sums@v2"

    assert [row["id"] for row in answer(wuxing("list", "--json"))] == ["task/sums@v1", "task/sums@v2"]
    shown = answer(wuxing("show", "sums@v1", "--json"))
    assert shown["summary"]["train"] == 200 and shown["evidence"] and shown["environment"]["packages"]["pydantic"]
    assert answer(wuxing("diff", "sums@v1", "sums@v2", "--json"))["recipe"] == ["examples.train 200 → 100"]
    assert wuxing("diff", "sums@v1", "sums@v1").stdout == "no difference\n"
    assert answer(wuxing("why", "sums", "--json"))["tree"]["id"] == "task/sums@v2"

    assert answer(wuxing("promote", "sums@v1", "production", "--why", "first", "--json"))["from"] is None
    assert answer(wuxing("promote", "sums@v2", "production", "--json"))["from"] == "task/sums@v1"
    assert answer(wuxing("rollback", "production", "--why", "worse", "--json"))["to"] == "task/sums@v1"
    audit = [json.loads(line) for line in (tmp_path / "store" / "aliases.jsonl").read_text().splitlines()]
    assert [(line["action"], line["why"]) for line in audit] == [
        ("promote", "first"),
        ("promote", "by hand"),
        ("rollback", "worse"),
    ]
    assert answer(wuxing("prune", "--json"))["items"] == []


def test_raw_record_is_traced_to_its_fate(wuxing: Verb) -> None:
    wuxing("run", "sums.yaml")
    (trace,) = answer(wuxing("why", "arithmetic-train-3", "--json"))
    assert (trace["corpus"], trace["fate"], trace["split"]) == ("task/sums@v1", "kept", "train")
    assert wuxing("why", "arithmetic-train-99999").returncode == 2


def test_flipped_byte_is_named(wuxing: Verb, tmp_path: Path) -> None:
    wuxing("run", "sums.yaml")
    assert answer(wuxing("verify", "--json")) == {"task/sums@v1": []}
    path = tmp_path / "store/task/sums/v1/train.parquet"
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    path.write_bytes(damaged)
    done = wuxing("verify", "sums", "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout) == {"task/sums@v1": ["train.parquet has other bytes than were signed"]}
    refused = wuxing("promote", "sums", "production")
    assert refused.returncode == 1 and "task/sums@v1 is damaged: train.parquet" in refused.stderr


@pytest.mark.parametrize(
    ("words", "code", "line"),
    [
        (("run", "none.yaml"), 2, "there is no recipe none.yaml. Write one with: wuxing new"),
        (("run", "sums.yaml", "--set", "sums.operatons=[]"), 2, 'unknown key "operatons". Did you mean "operations"?'),
        (("run", "sums.yaml", "--set", "sums.task=arithmetik"), 2, 'Did you mean "arithmetic"?'),
        (("run", "sums.yaml", "sum"), 2, 'the recipe has no step "sum". Did you mean "sums"?'),
        (("run", "sums.yaml", "--set", "sums.examples.train=many"), 2, "sums.examples.train: input should be a valid"),
        (("show", "sums"), 2, 'is called "sums". None is known'),
        (("rollback", "production"), 2, "nothing was ever promoted to @production"),
        (("new", "frist-model"), 2, 'Did you mean "first-model"?'),
        (("serve", "first-model@production"), 2, "nothing was ever promoted to first-model@production"),
    ],
)
def test_mistake_is_one_line_with_its_remedy(wuxing: Verb, words: tuple[str, ...], code: int, line: str) -> None:
    done = wuxing(*words)
    assert done.returncode == code
    assert line in done.stderr and len(done.stderr.strip().splitlines()) == 1
    assert "Traceback" not in done.stderr
    as_json = wuxing(*words, "--json") if words[0] != "serve" else None
    if as_json:
        assert json.loads(as_json.stdout)["exit_code"] == code


def test_new_writes_a_recipe_that_loads_and_never_overwrites(wuxing: Verb, tmp_path: Path) -> None:
    assert "first-model" in answer(wuxing("new", "--json"))
    assert answer(wuxing("new", "first-model", "--json")) == {"recipe": "recipes/first-model.yaml"}
    plan = answer(wuxing("plan", "recipes/first-model.yaml", "--json"))
    assert [step["step"] for step in plan if step["step"] in ("articles", "solver", "release")] == [
        "articles",
        "solver",
        "release",
    ]
    again = wuxing("new", "first-model")
    assert again.returncode == 2 and "already there" in again.stderr


def test_schema_names_every_kind_and_its_keys(wuxing: Verb) -> None:
    schema = answer(wuxing("schema"))
    step = schema["properties"]["steps"]["additionalProperties"]["properties"]["make"]["enum"]
    assert {"corpus", "tokenizer", "task", "model", "evaluation", "report", "release"} <= set(step)
    recipe = parse((ROOT / "recipes" / "first-model.yaml").read_text(encoding="utf-8"), "first-model")[0]
    checker = Draft202012Validator(schema)
    assert list(checker.iter_errors(recipe)) == []
    recipe["steps"]["base"]["bugdet"] = 1
    assert "bugdet" in next(checker.iter_errors(recipe)).message


def test_doctor_reads_this_machine(wuxing: Verb) -> None:
    found = {item["name"]: item["value"] for item in json.loads(wuxing("doctor", "--json").stdout)}
    assert any(
        str(len(os.sched_getaffinity(0))) in str(value) for name, value in found.items() if "core" in name.lower()
    )


def test_stdout_that_closes_early_is_no_traceback(wuxing: Verb, tmp_path: Path) -> None:
    wuxing("run", "sums.yaml")
    environment = {**os.environ, "WUXING_HOME": str(tmp_path / "store")}
    command = f"{sys.executable} -m wuxing show sums --json | head -c 10"
    done = subprocess.run(command, shell=True, env=environment, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr
