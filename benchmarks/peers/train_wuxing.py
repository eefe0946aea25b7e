"""Train a few steps on random tokens and print one line of JSON: tokens/s, peak memory, share of the GEMM rate.

    python benchmarks/peers/train_wuxing.py --size 10m --vocab 8192 --length 512 --batch-tokens 8192 --steps 6

The same network, objective, optimizer and loop that `wuxing run` uses; only the tokens are drawn.  `tokens_per_second`
is that of the median step after the first two.  `gemm_share` divides the model's arithmetic (6 per parameter of a
matrix and token, attention's causal half) by the rate of square matrix products, measured in the same process.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from wuxing.compute.device import pick_device, pick_precision
from wuxing.compute.measure import gemm_gflops
from wuxing.compute.memory import plan_compute
from wuxing.data.batch import Batch
from wuxing.model.architecture import Architecture, count_parameters, resolve
from wuxing.model.float8 import refuse_without_float8
from wuxing.model.network import Network
from wuxing.objective.next_token import NextToken
from wuxing.train.config import OptimizerConfig
from wuxing.train.trainer import Trainer
from wuxing.train.update.optimizer import Optimizer
from wuxing.train.update.schedule import Schedule

WARM_STEPS = 2
PIECE_TOKENS = 16_384


@dataclass
class RandomTokens:
    """Steps of random tokens in rows of `length`, cut into documents of about `document` tokens (0: one a row)."""

    vocabulary: int
    length: int
    rows: int
    piece_rows: int
    document: int = 0
    position: int = 0
    figures: dict[str, float] = field(default_factory=dict)
    digest: str = "random"

    def __iter__(self) -> Iterator[list[Batch]]:
        return self

    def __next__(self) -> list[Batch]:
        draw = np.random.default_rng(self.position)
        self.position += self.rows
        tokens = torch.from_numpy(draw.integers(0, self.vocabulary, (self.rows, self.length + 1)))
        starts = np.zeros((self.rows, self.length), bool)
        if self.document:
            starts = draw.random(starts.shape) < 1 / self.document
        starts[:, 0] = True
        place = np.arange(self.length)
        begin = np.maximum.accumulate(np.where(starts, place, 0), 1)
        batch = Batch(
            tokens_BT=tokens[:, :-1].contiguous(),
            labels_BT=tokens[:, 1:].contiguous(),
            positions_BT=torch.from_numpy(place - begin),
            documents_BT=torch.from_numpy(starts.cumsum(1) - 1).to(torch.int32),
            sample_ids=list(range(self.rows)),
        )
        return batch.pieces(self.piece_rows)

    def state_dict(self) -> dict[str, Any]:
        return {"position": self.position}

    def load_state_dict(self, state: Any) -> None:
        self.position = state["position"]

    def describe(self, sample_id: int) -> list[str]:
        return [f"random row {sample_id}"]


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--family", default="qwen3", choices=["qwen3", "llama"])
    parser.add_argument("--size", default="10m")
    for name in ("width", "layers", "heads", "kv-heads", "ffn"):
        parser.add_argument(f"--{name}", type=int)
    parser.add_argument("--untied", action="store_true", help="a table of its own for the output")
    parser.add_argument("--vocab", type=int, default=8192)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--document", type=int, default=0, help="mean tokens of a packed document; 0: one a row")
    parser.add_argument("--batch-tokens", type=int, default=8192)
    parser.add_argument("--piece-tokens", type=int, default=PIECE_TOKENS)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=120.0, help="stop before, once four steps are done")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto", choices=["auto", "fp32", "bf16", "float8"])
    parser.add_argument("--dense-mask", action="store_true", help="on a GPU: a mask of T x T in place of FlexAttention")
    parser.add_argument("--recompute", action="store_true", help="compute blocks again in the backward pass")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--optimizer", default="adamw")
    parser.add_argument("--table", action="store_true", help="also print where the time of one step goes")
    return parser.parse_args()


def build(asked: argparse.Namespace, device: torch.device) -> tuple[dict[str, Any], Trainer]:
    architecture = Architecture(
        family=asked.family,
        size=asked.size,
        max_positions=asked.length,
        tie_embeddings=not asked.untied,
        width=asked.width,
        layers=asked.layers,
        heads=asked.heads,
        kv_heads=asked.kv_heads,
        ffn_width=asked.ffn,
    )
    shape = resolve(architecture, asked.vocab)
    network = Network(shape).initialise(1).to(device)
    network.flex, network.recompute = not asked.dense_mask, asked.recompute
    if asked.precision == "float8":
        refuse_without_float8(device)
        network.use_float8()
    if asked.compile:
        network.model.compile()
    known = {"fp32": torch.float32, "bf16": torch.bfloat16, "float8": torch.bfloat16}
    precision = known.get(asked.precision) or pick_precision(device)
    rows = max(1, asked.batch_tokens // asked.length)
    source = RandomTokens(asked.vocab, asked.length, rows, max(1, asked.piece_tokens // asked.length), asked.document)
    optimizer = Optimizer(network, OptimizerConfig.model_validate({"kind": asked.optimizer}), 1e-3)
    return shape, Trainer(network, source, NextToken(), optimizer, Schedule(), 10**6, precision)


def main() -> None:
    asked = options()
    if asked.threads:
        torch.set_num_threads(asked.threads)
    device = pick_device(asked.device)
    shape, trainer = build(asked, device)
    began, times, positions = time.monotonic(), [], 0
    while len(times) < asked.steps and (time.monotonic() - began < asked.seconds or len(times) < WARM_STEPS + 2):
        report = trainer.step()
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(report.seconds)
        positions = report.positions
    seconds = statistics.median(times[WARM_STEPS:] or times)
    gflops = gemm_gflops(trainer.precision)
    flops = plan_compute(shape, count_parameters(shape), positions, asked.length, 1.0).flops
    peak = torch.cuda.max_memory_allocated() if device.type == "cuda" else 1024 * _peak_kibibytes()
    print(
        json.dumps(
            {
                "trainer": "wuxing",
                "parameters": count_parameters(shape),
                "width": shape["hidden_size"],
                "layers": shape["num_hidden_layers"],
                "vocab": asked.vocab,
                "length": asked.length,
                "document": asked.document,
                "batch_tokens": positions,
                "precision": "float8" if asked.precision == "float8" else str(trainer.precision).removeprefix("torch."),
                "compiled": asked.compile,
                "optimizer": asked.optimizer,
                "threads": torch.get_num_threads(),
                "device": device.type,
                "steps": len(times),
                "loss": round(report.loss, 4),
                "first_seconds": round(times[0], 3),
                "step_seconds": round(seconds, 4),
                "tokens_per_second": round(positions / seconds, 1),
                "gflops": round(flops / seconds / 1e9, 1),
                "gemm_gflops": round(gflops, 1),
                "gemm_share": round(flops / seconds / 1e9 / gflops, 3),
                "peak_bytes": peak,
            }
        )
    )
    if asked.table:
        _table(trainer)


def _peak_kibibytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _table(trainer: Trainer) -> None:
    with torch.profiler.profile() as profile:
        trainer.step()
    print(profile.key_averages().table(sort_by="self_cpu_time_total", row_limit=30, max_name_column_width=60))


if __name__ == "__main__":
    main()
