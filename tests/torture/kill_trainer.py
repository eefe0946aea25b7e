"""Kill training with SIGKILL at random instants, run it again until it ends, and compare the weights byte for byte.

    python tests/torture/kill_trainer.py [--kills 20] [--seed 1] [--kind base|solver|both]

Every attempt is a process of its own.  It saves a checkpoint as often as it can, so that many kills hit a save.
Exit code 0: no byte differs from a run that was never stopped.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random

sys.path.insert(0, str(Path(__file__).parent.parent / "train"))

import torch
from small_run import build_world, signed, train_base, train_solver

from wuxing.core.artifact import Artifact

COMPARED = ("model.safetensors", "training.json", "config.json", "rollouts/train.jsonl")
QUICK = {"save_every_seconds": 1e-6}


def attempt(work: Callable[[], object], due: Callable[[], bool] = lambda: False) -> bool:
    """Run `work` in a child process, killed once `due` says so; True when it came to its end."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return _ended(status)
        if due():
            os.kill(child, signal.SIGKILL)
            return _ended(os.waitpid(child, 0)[1])
        time.sleep(0.001)


def after_steps(log: Path, steps: int, delay: float) -> Callable[[], bool]:
    """Due `delay` seconds after the log has grown by `steps` lines; one in five is due within the first second."""
    began = time.monotonic()
    grown: list[float] = []
    before = [0]

    def due() -> bool:
        if not steps:
            return time.monotonic() - began > delay * 20
        lines = log.read_bytes().count(b"\n") if log.exists() else 0
        if not before[0] or lines < before[0]:
            before[0] = max(1, lines)
        if lines >= before[0] + steps and not grown:
            grown.append(time.monotonic())
        return bool(grown) and time.monotonic() - grown[0] > delay

    return due


def _ended(status: int) -> bool:
    if os.WIFSIGNALED(status):
        return False
    if os.WEXITSTATUS(status):
        raise SystemExit("an attempt failed by itself: see the lines above")
    return True


def digests(directory: Path) -> dict[str, str]:
    """Digest of each compared file."""
    paths = [directory / name for name in COMPARED]
    return {str(p.relative_to(directory)): hashlib.sha256(p.read_bytes()).hexdigest() for p in paths if p.exists()}


def torture(name: str, train: Callable[[Path], object], root: Path, kills: int, random: Random) -> int:
    """Kill `kills` times, finish, compare with a straight run; returns the number of files that differ."""
    attempt(lambda: train(root / "straight" / name))
    expected, killed, runs, resumed = digests(root / "straight" / name), 0, 0, 0
    while killed < kills:
        directory = root / f"run-{runs}" / name
        runs += 1
        ended = False
        while not ended:
            steps = 0 if random.random() < 0.2 else random.randint(1, 9)
            due = after_steps(directory / "log.jsonl", steps, random.uniform(0, 0.05))
            work = partial(train, directory)
            ended = attempt(work, due) if killed < kills else attempt(work)
            killed += not ended
            resumed += not ended and any(directory.glob("checkpoints/step-*"))
        found = digests(directory)
        if found != expected:
            wrong = [file for file in expected if found.get(file) != expected[file]]
            print(f"{name}: after {killed} kills {', '.join(wrong)} differ", flush=True)
            return len(wrong)
        shutil.rmtree(directory)
    print(f"{name}: {killed} kills in {runs} runs, {resumed} of them with a checkpoint to go on from: 0 bytes differ")
    return 0


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kind", choices=("base", "solver", "both"), default="both")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        # the parent computes nothing by itself: a child must not inherit another process's threads
        attempt(lambda: build_world(root / "world"))
        world = {
            "vocabulary": signed(root / "world" / "vocabulary", "tokenizer", "vocabulary"),
            "arithmetic": signed(root / "world" / "arithmetic", "task", "arithmetic"),
            "articles": signed(root / "world" / "articles.vocabulary", "tokens", "articles"),
            "dialogues": signed(root / "world" / "dialogues.vocabulary", "tokens", "dialogues"),
        }
        wrong = 0
        if options.kind != "solver":
            wrong += torture("base", lambda d: train_base(d, world, **QUICK), root, options.kills, Random(options.seed))
        if options.kind != "base":
            attempt(lambda: train_base(root / "start" / "base", world))
            start: Artifact = signed(root / "start" / "base", "model", "base")
            random = Random(options.seed + 1)
            wrong += torture("solver", lambda d: train_solver(d, world, start, **QUICK), root, options.kills, random)
    return min(wrong, 1)


if __name__ == "__main__":
    sys.exit(main())
