"""Planned against actual: peak memory and time of a handful of trainings on this machine.

    python benchmarks/plan.py [--cases 3m-256-muon 10m-1024-muon ...] [--cache DIR]

`wuxing estimate` plans each training before it starts; then `wuxing run` trains it in a process of its own, and the
artifact says what it took.  Beside that the benchmark watches the process itself: its resident memory at the first
line that it says about the model, its peak, and the wall time of the whole command.  Errors are planned / actual - 1.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil
import yaml

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "peers"))
from environment import WUXING, cache_directory, machine  # noqa: E402

RECIPE = HERE.parent / "recipes" / "first-model.yaml"
CASES: dict[str, int] = {
    "3m-256-muon": 160_000,
    "3m-1024-adamw": 160_000,
    "10m-256-adamw": 65_536,
    "10m-1024-muon": 65_536,
    "30m-256-lion": 24_576,
    "30m-1024-muon": 24_576,
    "100m-256-adamw": 8_192,
    "100m-1024-muon": 8_192,
}
"""Size, tokens of a row, optimizer: tokens of the training."""
REPLIES: dict[str, dict[str, Any]] = {
    "grpo-solver": {},
    "grpo-10m": {
        "architecture": {"family": "qwen3", "size": "10m"},
        "objective": {"grpo": {"kl": 0.02}},
        "length_tokens": 128,
        "rollout": {"prompts": 8, "group": 8, "reply_tokens": 64},
        "budget": {"steps": 12},
    },
    "grpo-5m": {
        "architecture": {"family": "qwen3", "size": "5m"},
        "objective": "grpo",
        "length_tokens": 96,
        "rollout": {"prompts": 16, "group": 12, "reply_tokens": 48, "negative_share": 0.5},
        "piece_tokens": 4608,
        "budget": {"steps": 12},
    },
    "grpo-30m": {
        "architecture": {"family": "qwen3", "size": "30m"},
        "objective": "grpo",
        "length_tokens": 64,
        "rollout": {"prompts": 8, "group": 4, "reply_tokens": 32},
        "budget": {"steps": 12},
    },
}
"""Trainings on a model's own replies: the first recipe's solver, and larger ones that start from models of a minute
and so reply at full length."""
MEMORY_TARGET, TIME_TARGET = 0.10, 0.20


@dataclass(frozen=True)
class Outcome:
    """One training."""

    case: str
    planned_bytes: float
    actual_bytes: float
    watched_bytes: float
    """Peak of the process beyond what it held when the model was first spoken of, as seen from outside."""
    planned_seconds: float
    interval: tuple[float, float]
    actual_seconds: float
    whole_seconds: float
    """Wall time of the whole command, the tokens of the corpus already encoded or not."""
    estimate_seconds: float
    """Wall time of `wuxing estimate`, start included: what the plan itself cost."""
    memory_interval: tuple[float, float]
    memory_factor: float
    """What the earlier trainings of this table corrected the plan of memory by."""

    @property
    def memory_error(self) -> float:
        return self.planned_bytes / self.actual_bytes - 1

    @property
    def time_error(self) -> float:
        return self.planned_seconds / self.actual_seconds - 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cases = [*CASES, *REPLIES]
    parser.add_argument("--cases", nargs="*", default=cases, help="SIZE-LENGTH-OPTIMIZER[:TOKENS], or grpo-NAME")
    parser.add_argument("--cache", type=Path, default=cache_directory())
    parser.add_argument("--json", type=Path, help="also write every figure there")
    a = parser.parse_args()
    a.cache.mkdir(parents=True, exist_ok=True)
    outcomes = []
    with tempfile.TemporaryDirectory(dir=a.cache) as place:
        recipe, home = write_recipe(Path(place), a.cases), Path(place) / "home"
        answer(["run", str(recipe), "vocabulary", "--home", str(home)])
        for case in a.cases:
            outcomes.append(measure(case.partition(":")[0], recipe, home))
            print(f"  {_line(outcomes[-1])}", file=sys.stderr, flush=True)
    report(outcomes)
    if a.json:
        found = {"machine": machine(), "outcomes": [asdict(outcome) for outcome in outcomes]}
        a.json.write_text(json.dumps(found, indent=2) + "\n")
    return 0


def write_recipe(place: Path, cases: list[str]) -> Path:
    """The texts and vocabulary of the first recipe, and one model a case."""
    first = yaml.safe_load(RECIPE.read_text(encoding="utf-8"))["steps"]
    steps: dict[str, Any] = {name: first[name] for name in ("articles", "vocabulary")}
    for case in cases:
        if case in REPLIES:
            steps |= _of_replies(case, first)
            continue
        name, _, tokens = case.partition(":")
        size, length, optimizer = name.split("-")
        steps[step_of(name)] = {
            "make": "model",
            "architecture": {"family": "qwen3", "size": size},
            "tokenizer": "vocabulary",
            "data": {"articles": 1.0},
            "objective": "next_token",
            "length_tokens": int(length),
            "batch_tokens": 4096,
            "optimizer": {"kind": optimizer},
            "validation": {"times": 2, "tokens": 4096},
            "budget": {"tokens": int(tokens or CASES.get(name, 16_384))},
        }
    path = place / "plan.yaml"
    path.write_text(yaml.safe_dump({"name": "plan", "seed": 7, "steps": steps}, sort_keys=False), encoding="utf-8")
    return path


def _of_replies(case: str, first: dict[str, Any]) -> dict[str, Any]:
    """The task, the model to start from, and the one that learns from its own replies."""
    if case == "grpo-solver":
        names = ("dialogues", "arithmetic", "base", "chat")
        short = {**first["base"], "budget": {"tokens": 262_144}}
        steps = {**{name: first[name] for name in names}, "base": short}
        return {**steps, step_of(case): {**first["solver"], "budget": {"steps": 40}}}
    settings = dict(REPLIES[case])
    start = {
        "make": "model",
        "architecture": settings.pop("architecture"),
        "tokenizer": "vocabulary",
        "data": {"articles": 1.0},
        "objective": "next_token",
        "length_tokens": 256,
        "batch_tokens": 2048,
        "budget": {"tokens": 16_384},
        "validation": {"times": 1, "tokens": 4096},
    }
    rest = {"make": "model", "start_from": f"start-{case}", "task": "arithmetic", "validation": {"prompts": 64}}
    return {"arithmetic": first["arithmetic"], f"start-{case}": start, step_of(case): {**rest, **settings}}


def step_of(case: str) -> str:
    return f"m{case}"


def answer(words: list[str]) -> dict[str, Any]:
    """What a command of ours prints as JSON."""
    done = subprocess.run([*WUXING, *words, "--json"], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"wuxing {' '.join(words)} failed:\n{done.stdout}{done.stderr}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def measure(case: str, recipe: Path, home: Path) -> Outcome:
    """Plan one training, then make it."""
    step = step_of(case)
    if case in REPLIES:
        start = "chat" if case == "grpo-solver" else f"start-{case}"
        answer(["run", str(recipe), start, "--home", str(home), "--accept", "a model to start from"])
        answer(["run", str(recipe), "arithmetic", "--home", str(home)])
    began = time.monotonic()
    planned = answer(["estimate", str(recipe), step, "--home", str(home)])[step]
    asked = time.monotonic() - began
    if isinstance(planned, str):
        raise SystemExit(f"{case} cannot be planned: {planned}")
    command = [*WUXING, "run", str(recipe), step, "--home", str(home), "--accept", "short trainings, to be measured"]
    began = time.monotonic()
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    watch = Watch(child.pid)
    watch.start()
    assert child.stderr is not None
    said = ""
    for line in child.stderr:
        said += line
        if watch.base is None and re.search(rf"{step}: .*parameters", line):
            watch.base = watch.now
    whole, code = time.monotonic() - began, child.wait()
    watch.join()
    if code:
        raise SystemExit(f"{case} failed:\n{said[-3000:]}")
    versions = (home / "model" / step).glob("v*")
    version = max(versions, key=lambda path: int(path.name[1:]))
    took = json.loads((version / "plan.json").read_text(encoding="utf-8"))["actual"]
    least, most = planned["seconds"]
    return Outcome(
        case=case,
        planned_bytes=planned["memory_bytes"],
        actual_bytes=took["memory_bytes"],
        watched_bytes=watch.peak - (watch.base or 0),
        planned_seconds=planned.get("expected_seconds") or (least + most) / 2,
        interval=(least, most),
        actual_seconds=took["seconds"],
        whole_seconds=whole,
        estimate_seconds=asked,
        memory_interval=tuple(planned["memory_interval"]),
        memory_factor=json.loads((version / "start.json").read_text(encoding="utf-8"))["memory_factor"],
    )


class Watch(threading.Thread):
    """The resident memory of a process, every 20 ms."""

    def __init__(self, pid: int):
        super().__init__(daemon=True)
        self.process, self.now, self.peak = psutil.Process(pid), 0, 0
        self.base: int | None = None

    def run(self) -> None:
        while True:
            try:
                self.now = self.process.memory_info().rss
            except psutil.NoSuchProcess:
                return
            if not self.now:  # ended, not yet waited for
                return
            self.peak = max(self.peak, self.now)
            time.sleep(0.02)


def report(outcomes: list[Outcome]) -> None:
    """The table, in Markdown."""
    print(f"\nmachine: {machine()}\n")
    print("| training | MB planned | actual | error | s planned | actual | error | the estimate took |")
    print("|---|--:|--:|--:|--:|--:|--:|--:|")
    for o in outcomes:
        print(
            f"| {o.case} | {o.planned_bytes / 1e6:.0f} | {o.actual_bytes / 1e6:.0f} | {o.memory_error:+.1%} "
            f"| {o.planned_seconds:.1f} ({o.interval[0]:.1f}–{o.interval[1]:.1f}) "
            f"| {o.actual_seconds:.1f} | {o.time_error:+.1%} | {o.estimate_seconds:.1f} s |"
        )
    memory, seconds = ([abs(getattr(o, name)) for o in outcomes] for name in ("memory_error", "time_error"))
    print(
        f"\nlargest error of memory {max(memory):.1%} (median {statistics.median(memory):.1%}), asked for "
        f"{MEMORY_TARGET:.0%}; of time {max(seconds):.1%} (median {statistics.median(seconds):.1%}), asked for "
        f"{TIME_TARGET:.0%}"
    )
    held = sum(o.memory_interval[0] <= o.actual_bytes <= o.memory_interval[1] for o in outcomes)
    timed = sum(o.interval[0] <= o.actual_seconds <= o.interval[1] for o in outcomes)
    print(f"within its interval: memory {held} of {len(outcomes)}, time {timed} of {len(outcomes)}")
    outside = max(abs(o.watched_bytes / o.actual_bytes - 1) for o in outcomes)
    print(f"memory as seen from outside differs from what the run says by at most {outside:.1%}")


def _line(o: Outcome) -> str:
    return (
        f"{o.case}: memory {o.planned_bytes / 1e6:.0f} MB planned, {o.actual_bytes / 1e6:.0f} actual "
        f"({o.memory_error:+.1%}); {o.planned_seconds:.1f} s planned, {o.actual_seconds:.1f} actual "
        f"({o.time_error:+.1%})"
    )


if __name__ == "__main__":
    raise SystemExit(main())
