"""`wuxing strategies`: what a recipe may name is listed, its example is a valid step, and each of them trains."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from random import Random
from typing import Any

import pytest

from wuxing.commands.strategies import Way, name_of, with_ways

OFFERED = {
    "optimizer.kind": ["adafactor", "adamw", "lion", "muon", "schedule_free"],
    "schedule.shape": ["constant", "cosine", "inverse_sqrt", "linear", "plateau", "wsd"],
    "schedule.batch_law": ["linear", "none", "sqrt"],
    "guard.spike": ["name", "rewind", "skip"],
    "keep": ["best", "last"],
    "precision": ["auto", "bf16", "float8", "fp32"],
}
"""What the documents promise, written down apart from the code."""
RECIPE = """name: ways
seed: 7
steps:
  articles: {make: corpus, sources: [{files: "articles.jsonl"}], split: {validation: 0.1, test: 0.1}}
  vocabulary: {make: tokenizer, corpus: articles, vocab_size: 300}
  base:
    make: model
    architecture: {size: 60k, width: 32, layers: 2, max_positions: 64}
    tokenizer: vocabulary
    data: {articles: 1.0}
    objective: next_token
    length_tokens: 64
    batch_tokens: 256
    budget: {steps: 3}
    validation: {times: 1, tokens: 256}
"""


def answer(done: subprocess.CompletedProcess[str]) -> Any:
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def run(tmp_path: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "WUXING_HOME": str(tmp_path / "store"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "wuxing", "strategies", *words]
    return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    random = Random(3)
    names = ["river", "king", "star", "metal"]
    rows = [
        {"text": f"The {random.choice(names)} of number {n} lies near the {random.choice(names)}."} for n in range(120)
    ]
    (tmp_path / "articles.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "ways.yaml").write_text(RECIPE)
    return tmp_path / "ways.yaml"


def test_every_strategy_is_listed_and_its_example_is_a_valid_step(recipe: Path, tmp_path: Path) -> None:
    listed = answer(run(tmp_path, "--json"))
    found: dict[str, list[str]] = {}
    for one in listed:
        found.setdefault(one["key"], []).append(one["value"])
        key, _, value = one["example"].partition("=")
        way = Way({key: value})
        made = with_ways(recipe, "base", [way], 1)
        assert name_of("base", 0, way, 0) in made.steps  # as a recipe it is whole and valid
    assert {key: sorted(values) for key, values in found.items()} == OFFERED
    shown = run(tmp_path)
    assert shown.returncode == 0
    assert all(value in shown.stdout for values in OFFERED.values() for value in values)


def test_every_optimizer_trains_and_they_are_ranked(recipe: Path, tmp_path: Path) -> None:
    kinds = ",".join(OFFERED["optimizer.kind"])
    first = answer(run(tmp_path, "ways.yaml", "base", f"optimizer.kind={kinds}", "--seeds", "1", "--json"))
    assert first["metric"] == "bits_per_byte" and len(first["ways"]) == 5
    for way in first["ways"]:
        assert way["failed"] == [] and len(way["values"]) == 1, way
    means = [way["mean"] for way in first["ways"]]
    assert means == sorted(means) and len(set(means)) == 5  # five that are really different, the best first


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("ways.yaml",), "needs a step and what to vary"),
        (("ways.yaml", "bose", "keep=best"), 'Did you mean "base"?'),
        (("ways.yaml", "articles", "keep=best"), "articles is no model"),
        (("ways.yaml", "base", "optimizer.kind"), "names no ways"),
        (("ways.yaml", "base", "optimizer.kind=adam,muon"), "optimizer.kind"),
    ],
)
def test_mistakes_are_one_line(recipe: Path, tmp_path: Path, words: tuple[str, ...], line: str) -> None:
    done = run(tmp_path, *words)
    assert done.returncode == 2 and line in done.stderr and "Traceback" not in done.stderr
