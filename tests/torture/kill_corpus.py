"""Kill the making of a corpus at random instants; compare every file with an undisturbed run.

    python tests/torture/kill_corpus.py [--kills 20] [--seed 1] [--megabytes 12] [--workers 2] [--folder DIRECTORY]

Each kill is a SIGKILL of the real command's process group at a random instant of its life; then the same command is
typed again.  A run that ends before its kill has made a version: the next kill begins with a changed cleaning step, so
that shards, duplicates, splits and evidence are all hit.  At the end the same recipe runs undisturbed in a home of its
own; every file but those that hold times must have the same bytes, and the fates must sum to all rows.
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
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))
TIMED = {"record.json", "summary.json", "shards.json"}
"""They hold times, and how many shards were reused."""


def recipe(source: Path, words: int) -> str:
    clean = ["repair", "normalise", {"quality": {"min_words": words}}, "repetition", "privacy"]
    step: dict[str, Any] = {
        "make": "corpus",
        "sources": [{"files": str(source), "fields": {"text": "text"}, "license": "CC0-1.0"}],
        "clean": clean,
        "duplicates": {"near_jaccard": 0.8, "substring_tokens": 50},
        "split": {"validation": 0.02, "test": 0.02},
    }
    return json.dumps({"name": "torture", "seed": 7, "steps": {"texts": step}})


def command(recipe_path: Path, home: Path, workers: int) -> list[str]:
    change = ["--set", f"texts.workers={workers}"]
    accept = ["--accept", "the torture is about bytes"]
    return [sys.executable, "-m", "wuxing", "run", str(recipe_path), "--home", str(home), "--json", *change, *accept]


def run(recipe_path: Path, home: Path, workers: int) -> Path:
    """The undisturbed command; returns the folder of what it made."""
    done = subprocess.run(command(recipe_path, home, workers), capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"the run failed: {done.stdout}{done.stderr}")
    made = json.loads(done.stdout)["made"][0]
    return home / str(made["artifact"]).replace("@", "/")


def kill(recipe_path: Path, home: Path, workers: int, seconds: float, log: Path) -> str | None:
    """Start the command and kill it after some seconds; returns where it stood, None when it had ended."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            command(recipe_path, home, workers), stdout=output, stderr=output, start_new_session=True
        )
        time.sleep(seconds)
        if process.poll() is not None:
            return None
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    shards = len(list((home / "cache" / "shards").rglob("*.shard")))
    drafts = [sorted(p.name for p in path.iterdir()) for path in home.glob("corpus/*/.partial-*")]
    files = ", ".join(drafts[0]) if drafts else "no draft"
    return f"{shards} shards; {files}"


def compare(one: Path, other: Path) -> int:
    """Differing bytes of all files, missing ones counted whole."""
    names = {p.relative_to(place).as_posix() for place in (one, other) for p in place.rglob("*") if p.is_file()}
    wrong = 0
    for name in sorted(names - TIMED):
        a, b = ((place / name).read_bytes() if (place / name).is_file() else b"" for place in (one, other))
        differ = abs(len(a) - len(b)) + sum(x != y for x, y in zip(a, b, strict=False)) if a != b else 0
        wrong += differ
        print(f"  {name:<24} {len(a):>10,} bytes  {differ} differ")
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--megabytes", type=float, default=12)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("WUXING_TEST_DATA", "../shared/data")))
    parser.add_argument("--folder", type=Path, default=None)
    options = parser.parse_args()
    import memory

    folder = options.folder or Path(tempfile.mkdtemp(prefix="wuxing-torture-"))
    os.environ.pop("WUXING_CACHE", None)  # each home keeps its own shards
    memory.write(folder / "source", options.data, int(options.megabytes * 1e6), file_bytes=1_000_000)
    path, draw = folder / "recipe.yaml", random.Random(options.seed)
    words = 20
    path.write_text(recipe(folder / "source", words))
    started = time.monotonic()
    run(path, folder / "measured", options.workers)
    length = time.monotonic() - started
    print(f"never stopped: {length:.1f} s", flush=True)
    kills = finished = 0
    while kills < options.kills:
        hit = kill(path, folder / "killed", options.workers, draw.uniform(0.1, 1.0) * length, folder / "log")
        if hit is None:
            finished, words = finished + 1, words + 1
            path.write_text(recipe(folder / "source", words))
            continue
        kills += 1
        print(f"kill {kills:3}: {hit}", flush=True)
    killed = run(path, folder / "killed", options.workers)
    whole = run(path, folder / "whole", 1)
    wrong = compare(whole, killed)
    fates = json.loads((killed / "fates.json").read_text())
    total = sum(fates["counts"].values())
    said = f"{wrong} differing bytes; fates {total} of {fates['total']}"
    print(f"{kills} kills, {finished} runs ended before theirs; {said}")
    return 1 if wrong or total != fates["total"] else 0


if __name__ == "__main__":
    raise SystemExit(main())
