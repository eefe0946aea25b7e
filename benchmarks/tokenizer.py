"""Byte-level BPE: training and encoding, beside Hugging Face's `tokenizers`, on English and Chinese text.

    python benchmarks/tokenizer.py [--megabytes 100] [--encode-megabytes 20] [--vocab-size 32768]

Each run is a process of its own on one core; the figure is megabytes of text per second of CPU time, the best of
`--rounds`.  Both train with the same settings, and the two files must be equal; both encode with the same tokenizer
("cold": nothing has been encoded before), and every id must be equal.  `tokenizers` is slow, so it encodes less.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "peers"))
TARGETS = {"train": 3.0, "en": 4.0, "zh": 4.0}
ONE_THREAD = {"TOKENIZERS_PARALLELISM": "false", "RAYON_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=float, default=100)
    parser.add_argument("--encode-megabytes", type=float, default=20)
    parser.add_argument("--vocab-size", type=int, default=32768)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--core", type=int, default=0, help="the processor core that every run is bound to")
    default = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "wuxing-bench"
    parser.add_argument("--cache", type=Path, default=default)
    parser.add_argument("--job", nargs="*", help=argparse.SUPPRESS)
    a = parser.parse_args()
    if a.job:
        print(json.dumps(JOBS[a.job[0]](a, *a.job[1:])))
        return 0
    from corpus import build

    build(a.cache, a.megabytes)
    build(a.cache, a.encode_megabytes)
    print(f"| {a.megabytes:g} MB, {a.vocab_size} ids | MB/s | tokenizers | ratio | equal |\n|---|---|---|---|---|")
    failed = _compare(a, "train", "train", [])
    for language in ("en", "zh"):
        failed += _compare(a, f"encode {language}, cold", "encode", [language])
    return failed


def _compare(a: argparse.Namespace, title: str, job: str, words: list[str]) -> int:
    ours = min((_run(a, job, "wuxing", *words) for _ in range(a.rounds)), key=lambda one: one["seconds"])
    theirs = min((_run(a, job, "tokenizers", *words) for _ in range(a.rounds)), key=lambda one: one["seconds"])
    rates = [one["megabytes"] / one["seconds"] for one in (ours, theirs)]
    equal = ours["digest"] == theirs["digest"]
    ratio, target = rates[0] / rates[1], TARGETS[words[0] if words else job]
    verdict = "yes" if equal else "NO"
    print(f"| {title} | {rates[0]:.1f} | {rates[1]:.2f} | {ratio:.1f} × (target {target:g}) | {verdict} |", flush=True)
    if "warm_seconds" in ours:
        print(f"| {title[:9]}, warm | {ours['megabytes'] / ours['warm_seconds']:.1f} | | | |", flush=True)
    return int(not equal or ratio < target)


def _run(a: argparse.Namespace, *job: str) -> dict[str, Any]:
    """One job in a process of its own on one core."""
    words = [f"--{name}={getattr(a, name.replace('-', '_'))}" for name in ("megabytes", "encode-megabytes", "cache")]
    command = [sys.executable, __file__, *words, f"--vocab-size={a.vocab_size}", "--job", *job]
    done = subprocess.run(
        command,
        check=True,
        stdout=subprocess.PIPE,
        env={**os.environ, **ONE_THREAD},
        preexec_fn=lambda: os.sched_setaffinity(0, {a.core}),
    )
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def _texts(a: argparse.Namespace, megabytes: float, languages: tuple[str, ...] = ("en", "zh")) -> list[str]:
    from corpus import build

    found = build(a.cache, megabytes)
    return [json.loads(line)["text"] for language in languages for line in found[language].open(encoding="utf-8")]


def train(a: argparse.Namespace, who: str) -> dict[str, Any]:
    """Learn the merges; what is compared is tokenizer.json."""
    from wuxing.text import bpe
    from wuxing.text import train as ours

    texts = _texts(a, a.megabytes)
    size = sum(len(text.encode()) for text in texts) / 1e6
    bpe.classes()
    assert not isinstance(bpe.native(), str)
    started = time.process_time()
    if who == "wuxing":
        made = ours.train_tokenizer(texts, a.vocab_size)
    else:
        made = _theirs(texts, a.vocab_size)
    seconds = time.process_time() - started
    made.save(_kept(a))
    return {"seconds": seconds, "megabytes": size, "digest": made.digest}


def _theirs(texts: list[str], vocab_size: int) -> Any:
    """Trained by the library as anybody would."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, trainers

    from wuxing.text import tokenizer, train

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = train._pre_tokenizer()
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        special_tokens=[AddedToken(token, special=True, normalized=False) for token in train.SPECIAL_TOKENS],
        initial_alphabet=tokenizer.byte_alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer=trainer)
    return tokenizer.Tokenizer(backend, train.tokenizer_config(), train.CHATML)


def encode(a: argparse.Namespace, who: str, language: str) -> dict[str, Any]:
    """Encode with the tokenizer that was trained last."""
    import hashlib

    import numpy as np
    import pyarrow as pa

    from wuxing.text.tokenizer import Tokenizer

    texts = _texts(a, a.encode_megabytes, (language,))
    size = sum(len(text.encode()) for text in texts) / 1e6
    tokenizer = Tokenizer.load(_kept(a))
    if who == "wuxing":
        assert not isinstance(tokenizer.fast, str), tokenizer.fast
        array = pa.array(texts)
        started = time.process_time()
        ids, ends = tokenizer.encode_arrow(array)
        seconds = time.process_time() - started
        started = time.process_time()
        tokenizer.encode_arrow(array)
        more = {"warm_seconds": time.process_time() - started}
    else:
        started = time.process_time()
        encodings = tokenizer.backend.encode_batch_fast(texts, add_special_tokens=False)
        seconds = time.process_time() - started
        parts = [np.array(encoding.ids, np.uint32) for encoding in encodings]
        ids, ends = np.concatenate(parts), np.cumsum([len(part) for part in parts], dtype=np.int64)
        more = {}
    digest = hashlib.sha256(ids.tobytes() + ends.tobytes()).hexdigest()
    return {"seconds": seconds, "megabytes": size, "digest": digest, **more}


def _kept(a: argparse.Namespace) -> Path:
    """Where the trained tokenizer lies between the runs."""
    folder: Path = a.cache / f"tokenizer-{a.megabytes:g}mb-{a.vocab_size}"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


JOBS = {"train": train, "encode": encode}

if __name__ == "__main__":
    raise SystemExit(main())
