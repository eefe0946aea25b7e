"""Training speed of the same Qwen3-type model: Wuxing beside HF Trainer, TRL, litgpt and nanochat, bf16 on this CPU.

    python benchmarks/train.py [--models 10m 100m] [--peers trl hf litgpt nanochat] [--variants best|all] [--rounds 3]

The same network (config.json, so the same parameters), the same random tokens in rows of one length without padding,
the same rows a step, clipping at 1, no evaluation and no saving.  Every trainer is a process of its own that stands
ready and takes steps when asked: Wuxing and one peer take turns, A B A B, after the first steps and compilation, and
the median step of all turns counts.  nanochat has an architecture and optimizers of its own, so it is compared by
arithmetic per second, with Wuxing's Muon.  The share of the machine is arithmetic (6 per weight of a matrix and token,
6 per channel and position of causal attention) over the rate of bf16 products of 1,024-wide matrices, measured between
the turns.  Peers are installed once, each in an environment of its own below --cache.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "peers"))
from environment import cache_directory, install, machine, nanochat_source  # noqa: E402

MODELS: dict[str, dict[str, Any]] = {
    "10m": {"size": "10m", "vocab": 8192, "length": 512, "rows": 8, "nanochat": {"depth": 5, "width": 320}},
    "100m": {"size": "100m", "vocab": 32768, "length": 512, "rows": 4, "nanochat": {"depth": 11, "width": 704}},
}
"""Sizes and batches; nanochat's shape has about as many weights in matrices."""
PEERS: dict[str, dict[str, Any]] = {
    "hf": {"environment": "trl", "script": "train_trl.py", "target": 1.5},
    "trl": {"environment": "trl", "script": "train_trl.py", "target": 1.5},
    "litgpt": {"environment": "litgpt", "script": "train_litgpt.py", "target": 1.2},
    "nanochat": {"environment": "nanochat", "script": "train_nanochat.py", "target": 1.0},
}
PLAIN: dict[str, Any] = {"compile": False, "workers": 0, "pieces": 1, "precision": "bf16-mixed"}
VARIANTS: dict[str, dict[str, dict[str, Any]]] = {
    "hf": {"eager": {}, "compiled": {"compile": True}, "eager, a worker": {"workers": 1}},
    "trl": {"eager": {}, "compiled": {"compile": True}},
    "litgpt": {
        "compiled": {"compile": True},
        "eager": {},
        "compiled, bf16 weights": {"precision": "bf16-true", "compile": True},
    },
    "nanochat": {"compiled": {"compile": True}, "eager": {}},
}
BEST: dict[str, list[str]] = {"hf": ["compiled"], "trl": ["compiled"], "litgpt": ["compiled"], "nanochat": ["compiled"]}
"""What was fastest of all variants here; `--variants all` measures the others too."""
GEMM_TARGET = 0.6
WARM = 2


@dataclass
class Trainer:
    """A trainer that stands ready in a process of its own."""

    name: str
    process: subprocess.Popen[str]
    log: Path
    tokens: int
    facts: dict[str, Any] = field(default_factory=dict)
    times: list[float] = field(default_factory=list)

    def ready(self) -> None:
        """Wait for its start, then let it take the first steps, which are not timed."""
        self._answer()
        self.turn(WARM)
        self.times.clear()

    def turn(self, steps: int) -> float:
        """So many steps; returns the median seconds."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{steps}\n")
        self.process.stdin.flush()
        times = self._answer()["times"]
        self.times += times
        return statistics.median(times)

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("@@ "):
                self.facts = json.loads(line[3:])
                return self.facts
        raise SystemExit(f"{self.name} failed:\n{self.log.read_text()[-4000:]}")

    @property
    def rate(self) -> float:
        """Tokens per second of the median step."""
        return self.tokens / statistics.median(self.times)


@dataclass(frozen=True)
class Pair:
    """Wuxing and one peer, measured in turns."""

    model: str
    peer: str
    parameters: int
    our_parameters: int
    rate: float
    our_rate: float
    ratio: float
    """Of tokens per second, or of arithmetic per second where the networks differ."""
    target: float
    gflops: float
    our_gflops: float
    gemm_gflops: float
    peak_bytes: int
    our_peak_bytes: int


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="*", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--peers", nargs="*", default=list(PEERS), choices=list(PEERS))
    parser.add_argument("--variants", default="best", help="best, all, or one by name")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each trainer")
    parser.add_argument("--seconds", type=float, default=6.0, help="of one turn, about")
    parser.add_argument("--ours", default="eager", choices=["eager", "compiled"])
    parser.add_argument("--cache", type=Path, default=cache_directory())
    parser.add_argument("--json", type=Path, help="also write every figure there")
    a = parser.parse_args()
    pairs = []
    for model in a.models:
        for optimizer, peers in {"adamw": ("hf", "trl", "litgpt"), "muon": ("nanochat",)}.items():
            if asked := [peer for peer in peers if peer in a.peers]:
                with started(a, "wuxing", model, {"optimizer": optimizer, "compile": a.ours == "compiled"}) as ours:
                    ours.ready()
                    pairs += [pair for peer in asked for pair in compare(a, model, peer, ours)]
    report(pairs)
    if a.json:
        a.json.write_text(json.dumps({"machine": machine(), "pairs": [asdict(p) for p in pairs]}, indent=2) + "\n")
    return 0


def compare(a: argparse.Namespace, model: str, peer: str, ours: Trainer) -> Iterator[Pair]:
    """Each variant of the peer in turns with ours."""
    import torch

    from wuxing.compute.measure import gemm_gflops

    names = VARIANTS[peer] if a.variants == "all" else BEST[peer] if a.variants == "best" else [a.variants]
    for name in names:
        began = time.monotonic()
        with started(a, peer, model, VARIANTS[peer][name]) as theirs:
            theirs.ready()
            ours.times.clear()
            gemm, steps = [], [1, 1]
            for _ in range(a.rounds):
                gemm.append(gemm_gflops(torch.bfloat16))
                for number, trainer in enumerate((ours, theirs)):
                    seconds = trainer.turn(steps[number])
                    steps[number] = max(1, round(a.seconds / seconds))
            pair = paired(model, f"{peer}, {name}", PEERS[peer]["target"], ours, theirs, statistics.median(gemm))
        print(f"  {_line(pair)}, {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
        yield pair


def paired(model: str, peer: str, target: float, ours: Trainer, theirs: Trainer, gemm: float) -> Pair:
    """Figures of one pair."""
    mine = ours.rate * position_flops(model) / 1e9
    other = theirs.rate * theirs.facts.get("position_flops", position_flops(model)) / 1e9
    same = ours.facts["parameters"] == theirs.facts["parameters"]
    assert same or "position_flops" in theirs.facts, f"{peer} has {theirs.facts['parameters']:,} parameters"
    return Pair(
        model=model,
        peer=peer,
        parameters=theirs.facts["parameters"],
        our_parameters=ours.facts["parameters"],
        rate=theirs.rate,
        our_rate=ours.rate,
        ratio=mine / other,
        target=target,
        gflops=other,
        our_gflops=mine,
        gemm_gflops=gemm,
        peak_bytes=theirs.facts["peak_bytes"],
        our_peak_bytes=ours.facts["peak_bytes"],
    )


def shape_of(model: str) -> dict[str, Any]:
    """The config.json that all build."""
    from wuxing.model.architecture import Architecture, resolve

    asked = MODELS[model]
    return resolve(Architecture(size=asked["size"], max_positions=asked["length"]), asked["vocab"])


def position_flops(model: str) -> float:
    """Arithmetic of one position, forward and backward."""
    from wuxing.compute.memory import plan_compute
    from wuxing.model.architecture import count_parameters

    shape = shape_of(model)
    return plan_compute(shape, count_parameters(shape), 1, MODELS[model]["length"], 1.0).flops


@contextmanager
def started(a: argparse.Namespace, trainer: str, model: str, options: dict[str, Any]) -> Iterator[Trainer]:
    """The trainer's process; it ends with the block."""
    asked = {**PLAIN, **MODELS[model], **options, "trainer": trainer, "model": shape_of(model)}
    if trainer == "wuxing":
        python, script = Path(sys.executable), "train_gated.py"
    else:
        python, script = install(a.cache, PEERS[trainer]["environment"]), PEERS[trainer]["script"]
    if trainer == "nanochat":
        asked["source"] = str(nanochat_source(a.cache))
    log = a.cache / f"train-{trainer}.log"
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": str(len(os.sched_getaffinity(0))),
        "TORCHINDUCTOR_CACHE_DIR": str(a.cache / "inductor"),
        "TORCHINDUCTOR_COMPILE_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
        "WANDB_MODE": "disabled",
        "PYTHONWARNINGS": "ignore",
        **({} if asked["compile"] else {"TORCHDYNAMO_DISABLE": "1"}),
    }
    with log.open("w") as errors:
        process = subprocess.Popen(
            [str(python), str(HERE / "peers" / script), json.dumps(asked)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=environment,
        )
        try:
            yield Trainer(trainer, process, log, asked["rows"] * asked["length"])
        finally:
            assert process.stdin is not None and process.stdout is not None
            process.stdin.close()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            process.stdout.close()


def report(pairs: list[Pair]) -> None:
    """The tables, in Markdown."""
    print(f"\nmachine: {machine()}\n")
    print(
        "| model | peer | tokens/s | Wuxing | ratio | asked for | peak GB | Wuxing |\n|---|---|--:|--:|--:|--:|--:|--:|"
    )
    for p in pairs:
        unit = " per FLOP" if p.parameters != p.our_parameters else ""
        print(
            f"| {p.model} | {p.peer} | {p.rate:,.0f} | {p.our_rate:,.0f} | {p.ratio:.2f}{unit} | {p.target:g} "
            f"| {p.peak_bytes / 1e9:.1f} | {p.our_peak_bytes / 1e9:.1f} |"
        )
    print("\n| model | trainer | GFLOP/s | of bf16 products |\n|---|---|--:|--:|")
    for p in pairs:
        print(f"| {p.model} | {p.peer} | {p.gflops:.0f} | {p.gflops / p.gemm_gflops:.0%} of {p.gemm_gflops:.0f} |")
        print(f"| {p.model} | Wuxing beside it | {p.our_gflops:.0f} | {p.our_gflops / p.gemm_gflops:.0%} |")
    print(f"\nasked for at 100m: {GEMM_TARGET:.0%}")


def _line(p: Pair) -> str:
    return (
        f"{p.model} {p.peer}: {p.rate:,.0f} tokens/s, Wuxing {p.our_rate:,.0f}, ratio {p.ratio:.2f}; "
        f"{p.gflops / p.gemm_gflops:.0%} and {p.our_gflops / p.gemm_gflops:.0%} of {p.gemm_gflops:.0f} GFLOP/s"
    )


if __name__ == "__main__":
    raise SystemExit(main())
