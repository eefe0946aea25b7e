"""A scaling law from three small sizes, and the fourth that it predicts before it is trained.

    python benchmarks/scaling.py [--folder DIR] [--page FILE]

Every run is a step of one recipe on the Wikipedia leads of recipes/first-model.yaml, trained by `wuxing run` with the
default settings, each with a schedule that ends at zero, so that each is worth what its law says.  `wuxing scaling`
fits the law to three sizes at three budgets and predicts the fourth size at the largest budget and at twice that; what
it said is written down before the fourth is trained.  A killed benchmark goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parent.parent
FIRST = ROOT / "recipes" / "first-model.yaml"
VOCABULARY = 2048
SIZES = {"s1": "600k", "s2": "1100k", "s3": "2m"}
"""0.4, 0.8 and 1.8 million parameters in the blocks."""
FOURTH = "3500k"
"""3.0 million in the blocks."""
BUDGETS = (100_000, 200_000, 400_000)
AHEAD = (400_000, 800_000)
"""Budgets of the fourth."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path.home() / ".cache" / "wuxing-bench" / "scaling")
    parser.add_argument("--page", type=Path, help="draw the law as an SVG file")
    a = parser.parse_args()
    recipe = write_recipe(a.folder)
    learnt = [f"{name}-{tokens // 1000}k" for name in SIZES for tokens in BUDGETS]
    ahead = [f"s4-{tokens // 1000}k" for tokens in AHEAD]
    for name in learnt:
        wuxing("run", str(recipe), name, "--home", str(a.folder / "home"))
    said = a.folder / "predicted.json"
    tokens = [word for value in AHEAD for word in ("--tokens", str(value))]
    page = ["--page", str(a.page)] if a.page else []
    asked = ["scaling", *learnt, "--size", FOURTH, *tokens, *page, "--home", str(a.folder / "home"), "--json"]
    said.write_text(wuxing(*asked))
    for name in ahead:
        wuxing("run", str(recipe), name, "--home", str(a.folder / "home"))
    return report(json.loads(said.read_text()), [measured(a.folder, name) for name in ahead])


def write_recipe(folder: Path) -> Path:
    """One recipe with the articles of the first model and a step for each run."""
    folder.mkdir(parents=True, exist_ok=True)
    steps: dict[str, Any] = {"articles": yaml.safe_load(FIRST.read_text())["steps"]["articles"]}
    steps["vocabulary"] = {"make": "tokenizer", "corpus": "articles", "vocab_size": VOCABULARY}
    for name, size in (*SIZES.items(), ("s4", FOURTH)):
        for tokens in AHEAD if name == "s4" else BUDGETS:
            steps[f"{name}-{tokens // 1000}k"] = {
                "make": "model",
                "architecture": {"family": "qwen3", "size": size},
                "tokenizer": "vocabulary",
                "data": {"articles": 1.0},
                "objective": "next_token",
                "length_tokens": 128,
                "batch_tokens": 1024,
                "validation": {"times": 1},
                "budget": {"tokens": tokens},
            }
    path = folder / "scaling.yaml"
    path.write_text(yaml.safe_dump({"name": "scaling", "seed": 7, "steps": steps}, sort_keys=False))
    return path


def wuxing(*words: str) -> str:
    """The command's answer."""
    done = subprocess.run([sys.executable, "-m", "wuxing", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stdout[-2000:] + done.stderr[-2000:])
    return done.stdout


def measured(folder: Path, name: str) -> float:
    """The last bits per byte of a run."""
    made = (folder / "home" / "model" / name).glob("v*/training.json")
    newest = max(made, key=lambda path: int(path.parent.name[1:]))
    return float(json.loads(newest.read_text())["validation"][-1]["bits_per_byte"])


def report(said: dict[str, Any], found: list[float]) -> int:
    """A table of the runs and of what was predicted; 1 where a measurement lies outside its interval."""
    print("| run | parameters of the blocks | positions | measured | by the law |\n|---|--:|--:|--:|--:|")
    for one in said["models"]:
        places = f"{one['parameters']:,.0f} | {one['positions']:,.0f}"
        print(f"| {one['model']} | {places} | {one['measured']:.3f} | {one['fitted']:.3f} |")
    outside = 0
    for one, value in zip(said["predictions"], found, strict=True):
        low, middle, high = one["bits_per_byte"]
        inside = low <= value <= high
        outside += not inside
        where = "inside" if inside else "**outside**"
        places = f"{one['parameters']:,.0f} | {one['positions']:,.0f}"
        print(f"| {one['size']}, predicted | {places} | {value:.3f} | {middle:.3f} [{low:.3f}, {high:.3f}] {where} |")
    for name, (low, middle, high) in said["law"].items():
        print(f"{name} {middle:.3g} [{low:.3g}, {high:.3g}]")
    return 1 if outside else 0


if __name__ == "__main__":
    raise SystemExit(main())
