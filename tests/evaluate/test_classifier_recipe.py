"""`recipes/classifier.yaml` by the command, small: its data replaced by sentences whose words tell their topic."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from random import Random

from wuxing.core.file import read_json, read_lines

ROOT = Path(__file__).parents[2]
WORDS = {
    "Geography": ["river", "valley", "coast", "island", "mountain", "border"],
    "Mathematics": ["theorem", "number", "proof", "matrix", "integral", "prime"],
    "Arts": ["painter", "novel", "symphony", "theatre", "sculptor", "poem"],
}
SMALL = {
    "articles.clean": "[repair, normalise]",
    "articles.duplicates": "{}",
    "vocabulary.vocab_size": "400",
    "encoder.architecture": "{size: 60k, width: 32, layers: 2, max_positions: 64}",
    "fresh.architecture": "{size: 60k, width: 32, layers: 2, max_positions: 64, attention: bidirectional}",
    "encoder.budget": "{steps: 20}",
    "topics.budget": "{steps: 20}",
    "fresh.budget": "{steps: 20}",
    "scores.documents": "60",
} | {
    f"{step}.{key}": value
    for step in ("encoder", "topics", "fresh")
    for key, value in (("length_tokens", "64"), ("batch_tokens", "512"), ("optimizer", "{learning_rate: 0.01}"))
}


def rows(count: int) -> list[dict[str, str]]:
    random, found = Random(4), []
    for number in range(count):
        topic = random.choice(list(WORDS))
        some = [
            f"The {random.choice(WORDS[topic])} {random.choice(['near', 'behind', 'beside'])} the {word}."
            for word in random.sample(WORDS[topic], 3)
        ]
        found.append({"title": f"Entry {number}", "extract": " ".join(some), "topic": topic})
    return found


def test_the_recipe_runs_to_its_report(tmp_path: Path) -> None:
    (tmp_path / "articles.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows(500)))
    fields = '{text: "{title}\\n\\n{extract}", label: topic}'
    changes = {**SMALL, "articles.sources": f"[{{files: {tmp_path / 'articles.jsonl'}, fields: {fields}}}]"}
    words = [part for key, value in changes.items() for part in ("--set", f"{key}={value}")]
    environment = {**os.environ, "WUXING_HOME": str(tmp_path / "store"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "wuxing", "run", str(ROOT / "recipes/classifier.yaml"), *words, "--json"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr + done.stdout
    made = {
        step["step"]: tmp_path / "store" / step["artifact"].replace("@", "/")
        for step in json.loads(done.stdout)["made"]
    }
    assert {"articles", "vocabulary", "encoder", "topics", "fresh", "scores", "report"} <= set(made)
    assert [read_json(made[name] / "config.json")["is_causal"] for name in ("encoder", "topics", "fresh")] == [
        False
    ] * 3
    results = read_json(made["scores"] / "results.json")
    assert set(results["models"]) == {"fresh", "topics"} and results["baselines"]["accuracy/articles"]["value"] < 0.5
    for name in ("fresh", "topics"):
        answers = read_lines(made["scores"] / f"samples/{name}--articles.jsonl")
        share = sum(row["reply"] == row["answer"] for row in answers) / len(answers)
        assert results["models"][name]["metrics"]["accuracy/articles"]["value"] == share > 0.6
    page = (made["report"] / "report.html").read_text(encoding="utf-8")
    for word in ("macro F1", "Classes by topics", "Confusion matrix", "calibration error", "as sure as right"):
        assert word in page
