"""What the command itself costs: CPU-seconds of `--help`, of a plan and a run with nothing to do; an alias switch.

python benchmarks/command.py
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from wuxing.core.alias import AliasLog
from wuxing.core.artifact import Artifact
from wuxing.core.file import append_line

EXAMPLES = "{train: 50, validation: 5, test: 20}"
STEP = f"{{make: task, task: arithmetic, operations: [{{operation: add, high: 30}}], examples: {EXAMPLES}}}"


def cpu_seconds(*words: str) -> float:
    """Median of five runs, user and system time of the process, interpreter start included."""
    taken = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-m", "wuxing", *words], check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        taken.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return statistics.median(taken)


def main() -> None:
    folder = Path(tempfile.mkdtemp())
    os.environ["WUXING_HOME"] = str(folder / "store")
    recipe = folder / "ten.yaml"
    steps = "\n".join(f"  step{i}: {STEP}" for i in range(10))
    recipe.write_text(f"name: ten\nseed: 1\nsteps:\n{steps}\n")
    subprocess.run([sys.executable, "-m", "wuxing", "run", recipe], check=True, capture_output=True)
    print(f"--help                      {cpu_seconds('--help'):.2f} CPU-s")
    print(f"plan of ten made steps      {cpu_seconds('plan', str(recipe)):.2f} CPU-s")
    print(f"run of ten made steps       {cpu_seconds('run', str(recipe)):.2f} CPU-s")

    log = AliasLog(folder / "aliases.jsonl")
    artifacts = [Artifact(folder, {"kind": "release", "name": "x", "version": i}) for i in (1, 2)]
    started = time.perf_counter()
    for i in range(50):
        log.promote(artifacts[i % 2], "production", "benchmark", "me")
    print(f"alias switch                {(time.perf_counter() - started) / 50 * 1000:.2f} ms")
    started = time.perf_counter()
    for i in range(1000):
        append_line(folder / "scalars.jsonl", {"step": i, "loss": 1.5})
    print(f"1,000 scalars in a log      {(time.perf_counter() - started) * 1000:.0f} ms")


if __name__ == "__main__":
    main()
