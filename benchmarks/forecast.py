"""How often the time left that is shown while a run trains holds the true end, of a run whose steps grow in stages.

    python benchmarks/forecast.py [--size 3m] [--tokens 200000] [--cache DIR]

`wuxing run` trains in a process of its own.  Every second and a half the benchmark asks what `wuxing progress` would
show and keeps it with the moment; once the run is over, each of these promises is compared with what it really took.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "peers"))
from environment import WUXING, cache_directory, machine  # noqa: E402

from wuxing.core.error import WuxingError  # noqa: E402
from wuxing.core.store import Store  # noqa: E402
from wuxing.train.watch.view import find_run, view  # noqa: E402

RECIPE = HERE.parent / "recipes" / "first-model.yaml"
RAMP = [{"until": 0.15, "batch_tokens": 1024}, {"until": 0.45, "batch_tokens": 2048}]
EVERY_SECONDS = 1.5


@dataclass(frozen=True)
class Promise:
    """One look at the run."""

    at: float
    step: int
    tokens: int
    """Of the newest step: which stage it was."""
    least: float
    most: float


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="3m")
    parser.add_argument("--tokens", type=int, default=200_000)
    parser.add_argument("--cache", type=Path, default=cache_directory())
    parser.add_argument("--json", type=Path, help="also write every promise there")
    a = parser.parse_args()
    a.cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=a.cache) as place:
        recipe, home = write_recipe(Path(place), a.size, a.tokens), Path(place) / "home"
        subprocess.run([*WUXING, "run", str(recipe), "vocabulary", "--home", str(home)], check=True)
        promises, end = train(recipe, home)
    report(promises, end)
    if a.json:
        found = {"machine": machine(), "end": end, "promises": [asdict(one) for one in promises]}
        a.json.write_text(json.dumps(found, indent=2) + "\n")
    return 0


def write_recipe(place: Path, size: str, tokens: int) -> Path:
    """The texts and vocabulary of the first recipe, and a model whose steps grow twice."""
    first = yaml.safe_load(RECIPE.read_text(encoding="utf-8"))["steps"]
    steps: dict[str, Any] = {name: first[name] for name in ("articles", "vocabulary")}
    steps["ramped"] = {
        "make": "model",
        "architecture": {"family": "qwen3", "size": size},
        "tokenizer": "vocabulary",
        "data": {"articles": 1.0},
        "objective": "next_token",
        "length_tokens": 256,
        "batch_tokens": 4096,
        "batch_ramp": RAMP,
        "validation": {"times": 4, "tokens": 8192},
        "budget": {"tokens": tokens},
    }
    path = place / "forecast.yaml"
    path.write_text(yaml.safe_dump({"name": "forecast", "seed": 7, "steps": steps}, sort_keys=False), encoding="utf-8")
    return path


def train(recipe: Path, home: Path) -> tuple[list[Promise], float]:
    """What was promised while it trained, and the moment at which its last line was written."""
    command = [*WUXING, "run", str(recipe), "ramped", "--home", str(home), "--accept", "a short training, to be timed"]
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    store, promises, end = Store(home), list[Promise](), 0.0
    while child.poll() is None:
        time.sleep(EVERY_SECONDS)
        try:
            place = find_run(home / "model" / "ramped", store.drafts("model", "ramped"))
            now, found = time.time(), view(place, "ramped")
        except (WuxingError, FileNotFoundError):
            continue  # not begun, or just being signed
        end = max(end, (place / "log.jsonl").stat().st_mtime)
        if found.left is not None and found.step < found.steps:
            promises.append(Promise(now, found.step, int(found.last["tokens"]), *found.left))
    if child.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {child.returncode}")
    return promises, end


def report(promises: list[Promise], end: float) -> None:
    """The table, in Markdown."""
    print(f"\nmachine: {machine()}\n")
    print("| step | positions of it | s promised | s it took | holds |")
    print("|--:|--:|--:|--:|---|")
    for one in promises:
        left = end - one.at
        print(f"| {one.step} | {one.tokens:,} | {one.least:.1f}–{one.most:.1f} | {left:.1f} | {_mark(one, end)} |")
    held = sum(_mark(one, end) == "yes" for one in promises)
    print(f"\n{held} of {len(promises)} promises held ({held / max(1, len(promises)):.0%})")
    seen = [one for one in promises if one.tokens > RAMP[-1]["batch_tokens"]]
    wide = sorted((one.most - one.least) / max(1e-9, one.most + one.least) for one in seen)
    if wide:
        print(f"once the last size was seen, half a promise is {wide[len(wide) // 2]:.0%} of its middle wide")


def _mark(one: Promise, end: float) -> str:
    return "yes" if one.least <= end - one.at <= one.most else "no"


if __name__ == "__main__":
    raise SystemExit(main())
