"""Kill the whole recipe at random instants in every step; compare each artifact with a never-stopped run.

    python tests/torture/kill_recipe.py [--kills 20] [--seed 1] [--folder DIRECTORY]

Each kill is a SIGKILL of the real command's process group while a chosen step has a draft; then the same command is
typed again.  At the end every byte of every model's weights must equal the never-stopped run's.  Exit code 1 if not.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
FIXED = (
    "base.budget={steps: 40}",
    "chat.budget={steps: 40}",
    "solver.budget={steps: 6}",
    "base.save_every_seconds=1",
    "chat.save_every_seconds=1",
    "solver.save_every_seconds=1",
    "arithmetic.examples={train: 2000, validation: 50, test: 60}",
    "release.gate=null",
)
"""Budgets in steps: one in minutes is resolved by the clock, so two runs would differ by right."""


def command(home: Path) -> list[str]:
    changes = [part for change in FIXED for part in ("--set", change)]
    return [
        sys.executable,
        "-m",
        "wuxing",
        "run",
        str(ROOT / "recipes/first-model.yaml"),
        "--home",
        str(home),
        *changes,
    ]


def whole_run(home: Path, accept: str) -> list[dict[str, Any]]:
    done = subprocess.run([*command(home), "--json", "--accept", accept], capture_output=True, text=True, check=False)
    answer = json.loads(done.stdout)
    if done.returncode:
        raise SystemExit(f"the run failed: {answer.get('error', done.stderr)}")
    made: list[dict[str, Any]] = answer["made"]
    return made


def folder_of(home: Path, artifact: str) -> Path:
    return home / artifact.replace("@", "/")


def kill_inside(home: Path, artifact: str, seconds: float, draw: random.Random, log: Path, accept: str) -> str | None:
    """Start the run, wait for the draft of `artifact`, kill it at a random instant; returns what was being made."""
    drafts = folder_of(home, artifact).parent
    with log.open("ab") as output:
        process = subprocess.Popen(
            [*command(home), "--accept", accept], stdout=output, stderr=output, start_new_session=True
        )
        while process.poll() is None and not list(drafts.glob(".partial-*")):
            time.sleep(0.002)
        time.sleep(draw.uniform(0, 0.6 * seconds))
        if process.poll() is not None:
            return None
        hit = [f"{path.parent.parent.name}/{path.parent.name}" for path in home.glob("*/*/.partial-*")]
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return ", ".join(hit) or "between two steps"


def differing_bytes(one: Path, other: Path) -> int:
    a, b = one.read_bytes(), other.read_bytes()
    return abs(len(a) - len(b)) + sum(x != y for x, y in zip(a, b, strict=False)) if a != b else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path, default=None)
    options = parser.parse_args()
    folder = options.folder or Path(tempfile.mkdtemp(prefix="wuxing-torture-"))
    os.environ.setdefault("WUXING_CACHE", str(folder / "cache"))
    accept = "the torture is about bytes, not about quality"
    draw = random.Random(options.seed)
    started = time.monotonic()
    made = whole_run(folder / "whole", accept)
    print(f"never stopped: {len(made)} artifacts in {time.monotonic() - started:.0f} s", flush=True)

    names = [str(step["artifact"]) for step in made]
    seconds = [json.loads((folder_of(folder / "whole", name) / "record.json").read_text())["seconds"] for name in names]
    targets = list(range(len(made))) + draw.choices(range(len(made)), seconds, k=max(0, options.kills - len(made)))
    hits: Counter[str] = Counter()
    for target in sorted(targets):
        unsigned = [i for i, name in enumerate(names) if not folder_of(folder / "killed", name).exists()]
        if not unsigned:
            break
        place = min(i for i in unsigned if i >= target or i == unsigned[-1])
        hit = kill_inside(folder / "killed", names[place], seconds[place], draw, folder / "killed.log", accept)
        if hit:
            hits[hit] += 1
            print(f"kill {sum(hits.values()):3}: while making {hit}", flush=True)
    again = whole_run(folder / "killed", accept)
    wrong = 0
    for before, after in zip(made, again, strict=True):
        paths = [
            folder_of(folder / "whole", before["artifact"]),
            folder_of(folder / "killed", after["artifact"]),
        ]
        for name in ("model.safetensors", "tokenizer.json", "train.parquet"):
            if (paths[0] / name).exists():
                bytes_ = differing_bytes(paths[0] / name, paths[1] / name)
                wrong += bytes_
                print(f"{before['artifact']:<28} {name:<20} {bytes_} differing bytes")
    print(f"{sum(hits.values())} kills, {wrong} differing bytes")
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
