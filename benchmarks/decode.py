"""Decoding speed: our engine against `transformers` generate, same weights, same run.

    python benchmarks/decode.py [--sizes 5m 10m] [--rows 1 16] [--threads 1]

Prints tokens per second of each, and the ratio ours / transformers.  Both sample at temperature 1; transformers runs in
fp32 and in bf16 and its better figure counts.  The best of three rounds, taken in turns, is reported.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from typing import Any

import torch
import transformers

from wuxing.generate.engine import Engine, Request
from wuxing.model.architecture import Architecture, describe, resolve
from wuxing.model.files import save_network
from wuxing.model.network import Network

VOCABULARY, PROMPT, NEW = 8192, 64, 96


def main() -> None:
    """Print one line per size and number of rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", nargs="+", default=["5m", "10m"])
    parser.add_argument("--rows", nargs="+", type=int, default=[1, 16])
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    transformers.utils.logging.disable_progress_bar()
    for size in arguments.sizes:
        network = Network(resolve(Architecture(size=size), VOCABULARY)).initialise(seed=7)
        print(describe(network.config))
        with tempfile.TemporaryDirectory() as directory:
            save_network(network, directory)
            theirs = {d: _transformers(directory, d) for d in (torch.float32, torch.bfloat16)}
        for rows in arguments.rows:
            _compare(network, theirs, rows)


def _compare(network: Network, theirs: dict[torch.dtype, Any], rows: int) -> None:
    prompts = torch.randint(0, VOCABULARY, (rows, PROMPT), generator=torch.Generator().manual_seed(1))
    runs: dict[str, Callable[[], None]] = {
        "wuxing fp32": _ours(Engine(network, max_rows=rows, precision="fp32"), prompts),
        "wuxing bf16": _ours(Engine(network, max_rows=rows, precision="bf16"), prompts),
        **{f"transformers {str(d)[6:]}": _theirs(model, prompts) for d, model in theirs.items()},
    }
    for run in runs.values():
        run()
    seconds = dict.fromkeys(runs, float("inf"))
    for _ in range(3):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            seconds[name] = min(seconds[name], time.perf_counter() - start)
    rates = {name: rows * NEW / value for name, value in seconds.items()}
    best = max(rate for name, rate in rates.items() if name.startswith("transformers"))
    figures = "  ".join(f"{name} {rate:,.0f}" for name, rate in rates.items())
    print(f"  rows {rows:2d}: tokens/s {figures}")
    for name in ("wuxing fp32", "wuxing bf16"):
        print(f"           {name} / best transformers = {rates[name] / best:.2f}")


def _transformers(directory: str, dtype: torch.dtype) -> Any:
    return transformers.AutoModelForCausalLM.from_pretrained(directory, dtype=dtype).eval()


def _theirs(model: Any, prompts: torch.Tensor) -> Callable[[], None]:
    def run() -> None:
        with torch.inference_mode():
            model.generate(
                prompts,
                attention_mask=torch.ones_like(prompts),
                max_new_tokens=NEW,
                min_new_tokens=NEW,
                do_sample=True,
                top_k=0,
                pad_token_id=0,
                eos_token_id=None,
            )

    return run


def _ours(engine: Engine, prompts: torch.Tensor) -> Callable[[], None]:
    def run() -> None:
        requests = [Request(str(i), prompt, NEW, seed=i) for i, prompt in enumerate(prompts.tolist())]
        assert sum(len(reply.tokens) for reply in engine.generate(requests)) == prompts.shape[0] * NEW

    return run


if __name__ == "__main__":
    main()
