"""Environments of the training peers, each of its own, and what they share with the benchmarks."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

PACKAGES = {
    "trl": ["trl==1.16.0", "transformers==5.23.0", "accelerate", "datasets", "numpy"],
    "litgpt": ["litgpt==0.5.13", "numpy"],
    "nanochat": ["numpy", "filelock", "kernels", "psutil", "pyarrow", "rustbpe", "tiktoken", "wandb", "setuptools"],
}
TORCH = "torch==2.13.0"
WUXING = [sys.executable, "-m", "wuxing"]
"""The command `wuxing` of this environment."""
NANOCHAT = "https://github.com/karpathy/nanochat"
NANOCHAT_COMMIT = "92d63d4e8bb4df75c3b71618f31ddde2378b2bcd"


def cache_directory() -> Path:
    """Where peers, their data and their results lie between runs."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "wuxing-bench"


def install(cache: Path, peer: str) -> Path:
    """The peer's own environment; returns its interpreter."""
    python = cache / "environments" / peer / "bin" / "python"
    done = cache / "environments" / f"{peer}.installed"
    wanted = "\n".join([TORCH, *PACKAGES[peer]])
    if not done.is_file() or done.read_text() != wanted:
        print(f"  installing {peer} ...", file=sys.stderr, flush=True)
        subprocess.run([sys.executable, "-m", "venv", python.parent.parent], check=True)
        constraints = cache / "constraints-train.txt"
        constraints.write_text(f"{TORCH}\n")
        subprocess.run([python, "-m", "pip", "install", "-q", "-c", constraints, TORCH, *PACKAGES[peer]], check=True)
        done.write_text(wanted)
    return python


def nanochat_source(cache: Path) -> Path:
    """nanochat's own files: $WUXING_BENCH_NANOCHAT, or a clone at the pinned commit."""
    given = os.environ.get("WUXING_BENCH_NANOCHAT")
    source = Path(given).expanduser() if given else cache / "nanochat"
    if not (source / "scripts" / "base_train.py").is_file():
        if given:
            raise SystemExit(f"WUXING_BENCH_NANOCHAT={given} holds no scripts/base_train.py")
        subprocess.run(["git", "clone", "-q", NANOCHAT, source], check=True)
        subprocess.run(["git", "-C", source, "checkout", "-q", NANOCHAT_COMMIT], check=True)
    return source


def machine() -> str:
    """The processor, its cores, and the versions that decide speed."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    name = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    return f"{name}, {len(os.sched_getaffinity(0))} cores; Python {platform.python_version()}, {TORCH}"
