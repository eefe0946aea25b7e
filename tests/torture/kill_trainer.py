"""Kill training at random and at chosen instants, type the same command again until it ends, compare every byte.

    python tests/torture/kill_trainer.py [--kills 100] [--seed 1] [--lives muon,grpo] [--record FILE]
    python tests/torture/kill_trainer.py --table FILE

Kills are drawn by the seed: at a uniform instant of setting up or of training; aimed at what it is doing (resuming,
measuring, saving, rewinding, writing the files, signing); before one chosen event of its files (open, rename, mkdir,
remove); several in a row before a life gets anywhere; by SIGKILL, SIGTERM and SIGINT; of two processes both or one.
Every life is the whole of `wuxing run` with its lease, its draft and its signature.  The finished artifact must equal
the one of a run that was never stopped: weights, training.json, kept checkpoints, rollouts and tokenizer byte for byte,
log and evidence without what a clock or the memory says.  Exit code 1 if anything differs.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import signal
import sys
import time
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")

import killer
import torch
import torch._dynamo  # the optimizers import it, which takes half a second
from killer import Kill, live, marks
from lives import LIVES, RANKS, copy_home, recipe, write_data

import wuxing.train.save.share  # noqa: F401  torch's FSDP takes seconds, which each forked life would pay again
from wuxing.compute.team import from_environment
from wuxing.core.context import Context
from wuxing.core.environment import environment
from wuxing.core.error import Interrupted, WuxingError
from wuxing.core.file import read_json, read_lines
from wuxing.core.progress import Progress
from wuxing.core.run import run
from wuxing.core.store import Store
from wuxing.train.save.checkpoint import damage
from wuxing.train.together import follow
from wuxing.train.watch.adjust import ADJUSTED, ASKED, ask

gc.freeze()  # collecting what all of this left takes each forked life a second, and copies its pages
CLOCKS = ("seconds", "tokens_per_second", "memory_bytes", "loader_wait_seconds")
MEASURED = ("memory_", "time_", "energy", "checkpoint_pause", "loader_wait_share")
KNOBS_AT = 9
"""The step after which the knobs of the life `adjust` are asked for."""
SHARES = {"uniform": 0.28, "aimed": 0.32, "file": 0.25, "row": 0.05, "SIGTERM": 0.05, "SIGINT": 0.05}
PLACES = ("resuming", "measuring", "writing a checkpoint", "writing the files", "signing", "copying for a save")


def attempt(root: Path, home: Path, life: str) -> Any:
    """What a child does: the run of one life, as `wuxing run` does it."""

    def work(rank: int) -> int:
        torch.set_num_threads(1)
        team = from_environment()
        try:
            if rank:
                assert team is not None
                follow(team)
                return 0
            if life == "adjust":
                _turn_knobs()
            context = Context(home, workers=1, progress=Progress("lines"), team=team)
            run(recipe(root, life), Store(home), context, target="base" if life == "base" else "life")
            if team is not None:
                team.close()
        except (Interrupted, KeyboardInterrupt):
            if team is not None and not rank:
                team.close()
            return 130
        except WuxingError as error:
            print(error, flush=True)
            return 1
        return 0

    return work


def _turn_knobs() -> None:
    from wuxing.train.run import Run

    tell = Run._tell

    def asking(self: Any, report: Any, bar: Any) -> None:
        tell(self, report, bar)
        if report.step == KNOBS_AT and not (self.directory / ASKED).exists():
            ask(self.directory, {"learning_rate": "0.004", "clip": "0.5", "steps": "26"}, "ann", "rough", "2026-01-01")

    Run._tell = asking  # type: ignore[method-assign]


class Torture:
    """One life, killed again and again."""

    def __init__(self, root: Path, life: str, seed: int):
        self.root, self.life, self.random = root, life, Random(f"{seed}/{life}")
        self.ranks = RANKS.get(life, 1)
        self.home, self.log = root / f"killed-{life}", root / f"{life}.log"
        self.hits: list[dict[str, Any]] = []

    def straight(self, home: Path) -> None:
        """The run that is never stopped; remembers how long it takes and how many events its files have."""
        if not home.exists():
            copy_home(self.root / "base", home)
        started = time.monotonic()
        said = live(attempt(self.root, home, self.life), home, None, self.ranks, self.log)
        assert said == "done", said
        self.seconds, self.events = time.monotonic() - started, marks.events
        self.setup = marks.began - started

    def draw(self) -> list[Kill]:
        """The next kill; several in a row when it is of that kind."""
        random, kinds = self.random, dict(SHARES)
        kind = random.choices(list(kinds), list(kinds.values()))[0]
        whom = random.choices(("all", "lead", "other"), (0.7, 0.15, 0.15))[0] if self.ranks > 1 else "all"
        if kind == "row":
            return [Kill(kind, random.uniform(0, 0.25) * self.seconds) for _ in range(random.randint(2, 4))]
        if kind == "file":
            return [Kill(kind, event=random.randint(1, max(1, self.events)))]
        if kind == "aimed":
            places = (*PLACES, "rewinding") if self.life == "rewind" else PLACES
            label, turn = random.choice(places), 1
            if label in ("measuring", "writing a checkpoint", "copying for a save"):
                turn = random.randint(1, 4)
            return [Kill(kind, random.uniform(0, 0.02), label, turn, whom=whom)]
        number = {"SIGTERM": signal.SIGTERM, "SIGINT": signal.SIGINT}.get(kind, signal.SIGKILL)
        whom = whom if kind == "uniform" else "all"
        if random.random() < 0.25:  # setting up takes most of so short a life, and each new one pays it again
            return [Kill(kind, random.uniform(0, 1.0) * self.setup, number=number, whom=whom)]
        rest = random.uniform(0, 0.8) * (self.seconds - self.setup)
        return [Kill(kind, rest, "resuming", number=number, whom=whom)]

    def kill(self, kill: Kill) -> bool:
        """One life with its end; False when it was over before."""
        said = live(attempt(self.root, self.home, self.life), self.home, kill, self.ranks, self.log)
        if said == "done":
            return False
        self.hits.append({"life": self.life, "kind": kill.kind, "hit": marks.hit, "at": marks.text, "whom": kill.whom})
        for path in self.home.glob("model/*/.partial-*/checkpoints/step-*"):
            if wrong := damage(path):
                raise SystemExit(f"{self.life}: after {self.hits[-1]} {path.name} is damaged: {wrong}")
        return True

    def finish(self) -> None:
        """Let it come to its end."""
        live(attempt(self.root, self.home, self.life), self.home, None, self.ranks, self.log)

    def torture(self, kills: int) -> list[str]:
        """Kill so often, over as many runs as that takes; what differs in any of them."""
        straight = self.root / f"straight-{self.life}"
        self.straight(straight)
        wrong: list[str] = []
        while len(self.hits) < kills and not wrong:
            killer.remove(self.home)
            copy_home(self.root / "base", self.home)
            ended = False
            while not ended and len(self.hits) < kills:
                ended = not all(self.kill(kill) for kill in self.draw())
            self.finish()
            if self.life == "adjust":
                self.straight_with_knobs(straight)
            wrong = compare(straight / "model" / self.life / "v1", self.home / "model" / self.life / "v1")
        return wrong

    def straight_with_knobs(self, home: Path) -> None:
        """A run that is never stopped, and whose knobs are turned at the steps of the killed one."""
        made = self.home / "model" / self.life / "v1"
        fingerprint = read_json(made / "record.json")["fingerprint"]
        killer.remove(home)
        copy_home(self.root / "base", home)
        draft = home / "model" / self.life / f".partial-{fingerprint[:16]}"
        draft.mkdir(parents=True)
        for name in (ASKED, ADJUSTED):
            if (made / name).exists():
                (draft / name).write_bytes((made / name).read_bytes())
        kept = self.seconds, self.setup, self.events
        self.straight(home)
        self.seconds, self.setup, self.events = kept


def compare(one: Path, other: Path) -> list[str]:
    """What sets two finished models apart."""
    names = {str(p.relative_to(place)) for place in (one, other) for p in place.rglob("*") if p.is_file()}
    wrong = []
    for name in sorted(names - {"record.json", "finished.json", "plan.json"}):
        a, b = one / name, other / name
        if not (a.exists() and b.exists()):
            wrong.append(f"{name} is only in {'the first' if a.exists() else 'the second'}")
        elif _seen(a) != _seen(b):
            wrong.append(f"{name} differs: {a} {b}")
    return wrong


def _seen(path: Path) -> Any:
    """A file's content without what a clock or the memory says."""
    if path.name == "log.jsonl":
        return [{k: v for k, v in line.items() if k not in CLOCKS} for line in read_lines(path)]
    if path.name == "evidence.json":
        return [check for check in read_json(path) if not check["name"].startswith(MEASURED)]
    if path.name in ("summary.json", "start.json", "state.json"):
        clocks = ("seconds", "step_seconds", "validation_seconds", "planned_seconds", "planned_bytes")
        return {k: v for k, v in read_json(path).items() if k not in clocks and not k.endswith("_error")}
    if path.name == "digest.json":
        return {k: v for k, v in read_json(path).items() if k != "state.json"}
    return path.read_bytes()


def table(hits: list[dict[str, Any]]) -> str:
    """How many kills hit what, as Markdown."""
    columns = [kind for kind in SHARES if any(hit["kind"] == kind for hit in hits)]
    places = Counter(hit["hit"] for hit in hits)
    lines = [f"| what it was doing | {' | '.join(columns)} | all |", "|---|" + "--:|" * (len(columns) + 1)]
    for place, total in places.most_common():
        counts = Counter(hit["kind"] for hit in hits if hit["hit"] == place)
        lines.append(f"| {place} | {' | '.join(str(counts[kind] or '') for kind in columns)} | {total} |")
    counts = Counter(hit["kind"] for hit in hits)
    lines.append(f"| all | {' | '.join(str(counts[kind]) for kind in columns)} | {len(hits)} |")
    by_life = ", ".join(f"{life} {count}" for life, count in Counter(hit["life"] for hit in hits).items())
    return "\n".join([*lines, "", f"By life: {by_life}."])


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=100, help="over all lives")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--lives", default=",".join(LIVES))
    parser.add_argument("--record", type=Path, default=None, help="append every kill to this file")
    parser.add_argument("--table", type=Path, default=None, help="only print the table of such a file")
    parser.add_argument("--keep", action="store_true", help="leave the folder")
    options = parser.parse_args()
    if options.table is not None:
        print(table(read_lines(options.table)))
        return 0
    root, wrong, hits = killer.scratch(), 0, []
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(root / "inductor")
    os.environ["WUXING_TIMEOUT_SECONDS"] = "20"
    environment()  # asks git once, for all children
    write_data(root)
    live(attempt(root, root / "base", "base"), root / "base", None, 1, root / "base.log")
    names = options.lives.split(",")
    for number, life in enumerate(names):
        share = options.kills // len(names) + (number < options.kills % len(names))
        one, started = Torture(root, life, options.seed), time.monotonic()
        different = one.torture(share) if share else []
        hits += one.hits
        wrong += len(different)
        seconds = time.monotonic() - started
        said = "; ".join(different) or "0 bytes differ"
        print(f"{life:<14} {len(one.hits):3} kills, {seconds:5.1f} s, a life {one.seconds:.1f} s: {said}", flush=True)
        if options.record is not None:
            with options.record.open("a") as file:
                file.writelines(json.dumps(hit) + "\n" for hit in one.hits)
    print(table(hits))
    if not wrong and not options.keep:
        killer.remove(root)
    else:
        print(f"see {root}")
    print(f"{len(hits)} kills: {wrong or 'no'} differences")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
