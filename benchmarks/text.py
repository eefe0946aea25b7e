"""Cleaning and near-deduplication of English and Chinese text: Wuxing beside datatrove, data-juicer and Daft.

    python benchmarks/text.py [--megabytes 100] [--peer-megabytes 23] [--peers datatrove data-juicer daft]

Every system does the same work on the same files in the same run, each in one process on one core: read JSONL,
normalise, quality and repetition statistics, exact and near duplicates, write.  The figure is megabytes of text per
second of CPU time, user and system, with start and imports.  Peers are installed once, each in an environment of its
own under ~/.cache/wuxing-bench (or --cache); those that are slow get a smaller corpus of the same making.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "peers"))
from corpus import build  # noqa: E402

INSTALL = {
    "datatrove": ["datatrove[io,processing]==0.10.1", "spacy", "jieba"],
    "data-juicer": ["py-data-juicer==1.6.1", "aiohttp"],
    "daft": ["daft==0.7.26"],
}
TARGETS = {"datatrove": 30.0, "data-juicer": 20.0, "daft": 1.5}
"""How many times as fast Wuxing must be."""


@dataclass(frozen=True)
class Figures:
    """One run of one system."""

    name: str
    megabytes: float
    cpu_seconds: float
    wall_seconds: float
    peak_mb: float
    said: dict[str, object]

    @property
    def rate(self) -> float:
        return self.megabytes / self.cpu_seconds

    def without_evidence(self) -> Figures:
        """The same work without Wuxing's checks of what it wrote, which no peer makes."""
        seconds = self.cpu_seconds - float(str(self.said["evidence_seconds"]))
        return replace(self, name=f"{self.name}, evidence aside", cpu_seconds=seconds)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=float, default=100)
    parser.add_argument("--peer-megabytes", type=float, default=23)
    parser.add_argument("--peers", nargs="*", default=list(INSTALL), choices=list(INSTALL))
    parser.add_argument("--core", type=int, default=0, help="the processor core that every run is bound to")
    parser.add_argument("--rounds", type=int, default=2, help="runs of Wuxing and Daft; the fastest counts")
    default = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "wuxing-bench"
    parser.add_argument("--cache", type=Path, default=default)
    a = parser.parse_args()
    large, small = build(a.cache, a.megabytes), build(a.cache, a.peer_megabytes)
    wuxing = best(a, "wuxing", Path(sys.executable), large)
    ours = best(a, "wuxing", Path(sys.executable), small)
    found = [wuxing.without_evidence(), wuxing]
    if a.peer_megabytes != a.megabytes:
        found += [ours.without_evidence(), ours]
    ratios = {}
    for peer in a.peers:
        python = install(a.cache, peer)
        same = peer == "daft"
        figures = best(a, peer, python, large if same else small, 1 if not same else a.rounds)
        found.append(figures)
        mine = wuxing if same else ours
        ratios[peer] = (mine.rate / figures.rate, mine.without_evidence().rate / figures.rate)
    report(found, ratios)
    return 0


def best(a: argparse.Namespace, name: str, python: Path, files: dict[str, Path], rounds: int | None = None) -> Figures:
    """The run with the least CPU time."""
    runs = [measure(a, name, python, files) for _ in range(rounds or a.rounds)]
    return min(runs, key=lambda figures: figures.cpu_seconds)


def measure(a: argparse.Namespace, name: str, python: Path, files: dict[str, Path]) -> Figures:
    """One run in a process of its own on one core."""
    texts = sum(len(json.loads(line)["text"].encode()) for path in files.values() for line in path.open("rb"))
    script = HERE / "peers" / f"run_{name.replace('-', '_')}.py"
    threads = dict.fromkeys(
        ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS", "TOKENIZERS_PARALLELISM"), "1"
    )
    with tempfile.TemporaryDirectory(dir=a.cache) as scratch, (Path(scratch) / "log").open("w+") as log:
        command = [str(python), str(script), f"{scratch}/out", *map(str, files.values())]
        start = time.perf_counter()
        child = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=log,
            env={**os.environ, **threads, "HOME": scratch, "WUXING_KERNELS": str(a.cache / "kernels")},
            preexec_fn=lambda: os.sched_setaffinity(0, {a.core}),
        )
        assert child.stdout is not None
        said = child.stdout.read().decode()
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        wall = time.perf_counter() - start
        log.seek(0)
        if child.returncode:
            raise SystemExit(f"{name} failed:\n{log.read()[-3000:]}{said[-1000:]}")
    answer = json.loads([line for line in said.splitlines() if line.startswith("{")][-1])
    cpu = usage.ru_utime + usage.ru_stime
    figures = Figures(name, texts / 1e6, cpu, wall, usage.ru_maxrss / 1e3, answer)
    print(
        f"  {name}: {figures.megabytes:.1f} MB in {cpu:.1f} CPU-s ({wall:.1f} s), kept {answer['kept']:,}", flush=True
    )
    return figures


def install(cache: Path, peer: str) -> Path:
    """The peer's own environment; returns its interpreter."""
    python = cache / "environments" / peer / "bin" / "python"
    done = cache / "environments" / f"{peer}.installed"
    if not done.is_file():
        print(f"  installing {peer} ...", flush=True)
        subprocess.run([sys.executable, "-m", "venv", python.parent.parent], check=True)
        constraints = cache / "constraints.txt"
        constraints.write_text("torch==2.13.0\n")
        subprocess.run([python, "-m", "pip", "install", "-q", "-c", constraints, *INSTALL[peer]], check=True)
        done.touch()
    return python


def report(found: list[Figures], ratios: dict[str, tuple[float, float]]) -> None:
    """The table, in Markdown."""
    print(f"\nmachine: {_processor()}, one core; Python {platform.python_version()}\n")
    print("| system | MB of text | CPU seconds | MB per core-second | peak MB | documents kept |")
    print("|---|---|---|---|---|---|")
    for f in found:
        kept = f"{int(str(f.said['kept'])):,}"
        print(f"| {f.name} | {f.megabytes:.1f} | {f.cpu_seconds:.1f} | {f.rate:.2f} | {f.peak_mb:.0f} | {kept} |")
    print("\n| Wuxing / peer | with evidence | evidence aside | asked for |\n|---|---|---|---|")
    for peer, (whole, bare) in ratios.items():
        print(f"| {peer} | {whole:.1f} | {bare:.1f} | {TARGETS[peer]:g} |")


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())


if __name__ == "__main__":
    raise SystemExit(main())
