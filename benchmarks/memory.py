"""Peak memory of a corpus against one ten times larger: real sentences, English and Chinese, in ever new documents.

    python benchmarks/memory.py [--megabytes 30] [--workers 1] [--data DIRECTORY]

Each size runs in a process of its own; its peak is what the kernel counted (`ru_maxrss`).  Exit code 1 when the larger
one takes a fifth more than the smaller one.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

MOST_GROWTH = 0.2
CLEAN = ["repair", "normalise", "quality", "repetition", "privacy"]


def sentences(data: Path) -> tuple[list[str], list[str]]:
    """English and Chinese sentences of the test data."""
    english: list[str] = []
    with gzip.open(data / "text" / "wikipedia-leads-en.jsonl.gz", "rt", encoding="utf-8") as lines:
        for line in lines:
            english += re.split(r"(?<=[.!?])\s+", json.loads(line)["text"])
    with gzip.open(data / "text" / "austen.txt.gz", "rt", encoding="utf-8") as file:
        english += re.split(r"(?<=[.!?])\s+", " ".join(file.read().split()))
    with gzip.open(data / "text" / "tang-poems-zh.jsonl.gz", "rt", encoding="utf-8") as lines:
        chinese = [part for line in lines for part in re.findall("[^。！？]+[。！？]", str(json.loads(line)["text"]))]
    return [s for s in english if len(s) > 20], chinese


def documents(data: Path, size: int, seed: int = 1) -> Iterator[str]:
    """Documents of `size` bytes in all, a third of the bytes Chinese; one in fifty nearly repeats an earlier one."""
    english, chinese = sentences(data)
    draw = random.Random(seed)
    done, recent = 0, [""]
    while done < size:
        if draw.random() < 0.02 and recent[-1]:
            text = draw.choice(recent) + " " + draw.choice(english)
        else:
            pool, low, high = (chinese, 8, 60) if draw.random() < 0.4 else (english, 4, 20)
            text = ("" if pool is chinese else " ").join(draw.choices(pool, k=draw.randrange(low, high)))
            recent = [*recent[-500:], text]
        done += len(text.encode())
        yield text


def write(folder: Path, data: Path, size: int, file_bytes: int = 64 << 20) -> int:
    """JSON lines in `folder`; returns the bytes of text."""
    folder.mkdir(parents=True, exist_ok=True)
    total, file, number = 0, None, 0
    for row, text in enumerate(documents(data, size)):
        if file is None or file.tell() > file_bytes:
            if file:
                file.close()
            file = open(folder / f"{number:03}.jsonl", "wb")  # noqa: SIM115
            number += 1
        file.write(json.dumps({"text": text, "number": row}, ensure_ascii=False).encode() + b"\n")
        total += len(text.encode())
    if file:
        file.close()
    return total


PROGRAM = """
import json, resource, sys, time
from pathlib import Path
from wuxing.core.context import Context
from wuxing.core.step import Draft
from wuxing.corpus.kind import CorpusKind
config = CorpusKind.Config.model_validate(json.loads(sys.argv[1]))
place = Path(sys.argv[2])
place.mkdir(parents=True, exist_ok=True)
draft = Draft(place, "corpus", "x", "0" * 64, 7)
CorpusKind().make(config, {}, draft, Context(home=place, cache=Path(sys.argv[3])))
own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps({"peak": max(own.ru_maxrss, children.ru_maxrss) * 1024,
                  "seconds": sum((own.ru_utime, own.ru_stime, children.ru_utime, children.ru_stime)),
                  "failures": draft.evidence.failures(CorpusKind.required), "summary": draft.summary}))
"""


def measure(source: Path, place: Path, workers: int = 1, **changes: object) -> dict[str, object]:
    """One corpus in a process of its own: peak memory in bytes, processor seconds, what its evidence says."""
    config = {
        "make": "corpus",
        "sources": [{"files": str(source), "fields": {"text": "text"}}],
        "clean": CLEAN,
        "duplicates": {"near_jaccard": 0.8},
        "split": {"validation": 0.01, "test": 0.01},
        "workers": workers,
        **changes,
    }
    command = [sys.executable, "-c", PROGRAM, json.dumps(config), str(place / "out"), str(place / "cache")]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    if done.returncode:
        raise SystemExit(done.stderr)
    found: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--megabytes", type=float, default=30)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("WUXING_TEST_DATA", "../shared/data")))
    options = parser.parse_args()
    peaks = []
    with tempfile.TemporaryDirectory(prefix="wuxing-memory-") as folder:
        for times in (1, 10):
            place = Path(folder) / str(times)
            size = write(place / "source", options.data, int(times * options.megabytes * 1e6))
            started = time.monotonic()
            found = measure(place / "source", place, options.workers)
            peaks.append(float(str(found["peak"])))
            rate = size / 1e6 / float(str(found["seconds"]))
            print(
                f"{size / 1e6:8.1f} MB  peak {peaks[-1] / 1e6:6.0f} MB  {rate:5.1f} MB per core-second  "
                f"{time.monotonic() - started:5.1f} s  failures {found['failures']}",
                flush=True,
            )
    growth = peaks[1] / peaks[0] - 1
    print(f"ten times the text takes {growth:+.1%} memory (bound {MOST_GROWTH:+.0%})")
    return 1 if growth >= MOST_GROWTH else 0


if __name__ == "__main__":
    raise SystemExit(main())
