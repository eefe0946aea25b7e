"""What training waits for: the next batch, and a checkpoint being saved.

    python benchmarks/loader.py [--sizes 14m 100m] [--steps 20] [--megabytes 20]

Checkpoints: weights and two moments of a network of each size, saved while training goes on and saved at once; the same
bytes are written.  Loader: real steps on packed text (half English, half Chinese), with the batches made ahead by a
thread and without it.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "peers"))
PAUSE_TARGET, WAIT_TARGET = 0.1, 0.01


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=["14m", "100m"])
    parser.add_argument("--saves", type=int, default=5)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--megabytes", type=float, default=20)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    default = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "wuxing-bench"
    parser.add_argument("--cache", type=Path, default=default)
    a = parser.parse_args()
    failed = 0
    print(f"| pause per checkpoint ({a.device}) | asynchronous | synchronous | ratio (target {PAUSE_TARGET:g}) |")
    print("|---|---|---|---|")
    for size in a.sizes:
        beside, at_once = (pause(a, size, asynchronous) for asynchronous in (True, False))
        ratio = beside / at_once
        failed += ratio > PAUSE_TARGET
        print(f"| {size} | {beside * 1000:.0f} ms | {at_once * 1000:.0f} ms | {ratio:.3f} |", flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        tokens = prepare(a, Path(scratch))
        shares = {ahead: wait(a, tokens, ahead) for ahead in (2, 0)}
    failed += shares[2] > WAIT_TARGET
    print(f"\nloader wait, share of the time of {a.steps} steps (target {WAIT_TARGET:g}): ", end="")
    print(f"{shares[2]:.5f} made ahead, {shares[0]:.5f} made when asked for")
    return int(failed > 0)


def pause(a: argparse.Namespace, size: str, asynchronous: bool) -> float:
    """Median seconds that `save` holds the caller up; between saves the caller multiplies matrices."""
    from wuxing.model.architecture import Architecture, resolve
    from wuxing.model.network import Network
    from wuxing.train.save.checkpoint import Checkpoints

    network = Network(resolve(Architecture(size=size), 8192)).initialise(seed=7).to(a.device)
    weights = dict(network.named_parameters())
    moments = {f"{name}|{which}": torch.zeros_like(w) for name, w in weights.items() for which in ("first", "second")}
    tensors = {"model": weights, "optimizer": moments}
    work = torch.randn(512, 512)
    taken = []
    with tempfile.TemporaryDirectory(dir=a.cache if a.cache.is_dir() else None) as directory:
        checkpoints = Checkpoints(Path(directory), asynchronous=asynchronous)
        checkpoints.prepare(tensors)
        for step in range(a.saves):
            end = time.perf_counter() + 0.5
            while checkpoints.busy or time.perf_counter() < end:
                work = torch.tanh(work @ work)
            if a.device == "cuda":
                torch.cuda.synchronize()
            started = time.perf_counter()
            checkpoints.save(step, tensors, {"done": step})
            taken.append(time.perf_counter() - started)
        checkpoints.wait()
    return statistics.median(taken)


def prepare(a: argparse.Namespace, scratch: Path) -> Path:
    """A tokens artifact of the benchmark's corpus."""
    from corpus import build

    from wuxing.core.artifact import Artifact
    from wuxing.core.context import Context
    from wuxing.core.record import Record
    from wuxing.core.splits import write_records
    from wuxing.core.step import Draft
    from wuxing.data.tokens_kind import TokensKind
    from wuxing.text.train import train_tokenizer

    found = build(a.cache, a.megabytes)
    rows = [json.loads(line) for path in found.values() for line in path.open(encoding="utf-8")]
    corpus, words, tokens = (scratch / name for name in ("corpus", "words", "tokens"))
    for directory in (corpus, words, tokens):
        directory.mkdir()
    records = [Record(row["id"], "benchmark", text=row["text"]) for row in rows]
    for split, part in (("train", records), ("validation", records[:1]), ("test", records[:1])):
        write_records(corpus, split, part)
    train_tokenizer((row["text"] for row in rows), 8192).save(words)
    parents = {
        role: Artifact(path, {"kind": kind, "name": role, "version": 1, "content": role, "files": files(path)})
        for role, path, kind in (("tokenizer", words, "tokenizer"), ("data", corpus, "corpus"))
    }
    config = TokensKind.Config(make="tokens", tokenizer="tokenizer", data="data")
    TokensKind().make(config, parents, Draft(tokens, "tokens", "tokens", "0" * 64, 7), Context(home=scratch))
    return tokens


def files(directory: Path) -> dict[str, object]:
    return {path.name: {"sha256": "", "bytes": path.stat().st_size} for path in directory.iterdir()}


def wait(a: argparse.Namespace, tokens: Path, ahead: int) -> float:
    """Time spent waiting for batches over the time of all steps, after three that warm up."""
    from wuxing.data.packing import pack
    from wuxing.data.source import PackedSource
    from wuxing.data.tokens import open_tokens
    from wuxing.model.architecture import Architecture, resolve
    from wuxing.model.network import Network
    from wuxing.objective.next_token import NextToken
    from wuxing.train.config import OptimizerConfig
    from wuxing.train.trainer import Trainer
    from wuxing.train.update.optimizer import Optimizer
    from wuxing.train.update.schedule import Schedule

    network = Network(resolve(Architecture(size="5m"), 8192)).initialise(seed=7).to(a.device)
    packing = pack(open_tokens(tokens, "train"), 512)
    source = PackedSource({"text": packing}, {"text": 1.0}, 7, step_rows=4, ahead=ahead, pin=a.device == "cuda")
    optimizer = Optimizer(network, OptimizerConfig(), 1e-3)
    trainer = Trainer(network, source, NextToken(), optimizer, Schedule(), a.steps + 3, torch.bfloat16)
    waited = seconds = 0.0
    for step in range(a.steps + 3):
        report = trainer.step()
        if step >= 3:
            waited, seconds = waited + report.figures["loader_wait_seconds"], seconds + report.seconds
    return waited / seconds


if __name__ == "__main__":
    raise SystemExit(main())
