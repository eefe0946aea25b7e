"""Wall time to the validation bits per byte that nanochat reaches: its own base training beside our default recipe.

    python benchmarks/race.py [--minutes 3] [--settings d4] [--first 0.5] [--runs 4] [--cache DIR]

Both read the same train and validation texts, the Wikipedia leads as recipes/first-model.yaml prepares them, with an
8,192-id vocabulary that each learns itself, on the same cores.  nanochat runs its own scripts: as many iterations as
fit into the minutes.  Its time is that of its steps alone, without start, compilation and tokenizer.  Ours is the whole
command `wuxing run` for the recipe's step `base`, start, encoding, trial, measurements and evidence included, with the
prepared texts and vocabulary at hand.  The budget of ours falls until it no longer reaches nanochat's bits per byte.

Bits per byte are computed independently of both trainers on the same bytes: each text from its start, every byte
predicted once, in rows of the model's own length.  For a cheap try-out: `--minutes 0.3 --runs 1`.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import re
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "peers"))
from environment import WUXING, cache_directory, install, machine, nanochat_source  # noqa: E402

RECIPE = HERE.parent / "recipes" / "first-model.yaml"
TARGET = 0.5
"""Our wall time over nanochat's."""
ALWAYS = "--head-dim=64 --window-pattern=L --eval-every=-1 --core-metric-every=-1 --sample-every=-1"
_RATES = "--matrix-lr=0.16 --embedding-lr=2.4 --unembedding-lr=0.064"
"""Eight times its defaults, which it lowers with the root of the batch: far too much for batches as small as these."""
SETTINGS = {
    "d4": f"--depth=4 --max-seq-len=256 --device-batch-size=8 --total-batch-size=2048 {_RATES}",
    "d4-4096": f"--depth=4 --max-seq-len=256 --device-batch-size=16 --total-batch-size=4096 {_RATES}",
    "d5": f"--depth=5 --max-seq-len=256 --device-batch-size=8 --total-batch-size=2048 {_RATES}",
    "d6": f"--depth=6 --max-seq-len=256 --device-batch-size=8 --total-batch-size=2048 {_RATES}",
    "defaults": "--depth=4 --max-seq-len=256 --device-batch-size=16 --total-batch-size=4096",
    "cpu": "--depth=6 --max-seq-len=512 --device-batch-size=32 --total-batch-size=16384",
}
"""nanochat's options; `d4` was the best of a search, `cpu` is the run that it documents for machines without a GPU."""
PROBE_STEPS = 24
FALL, RISE = 0.8, 1.1
_STEP = re.compile(r"step (\d+)/\d+ .*? dt: ([0-9.]+)ms \| tok/sec: ([0-9,]+)")


@dataclass(frozen=True)
class Result:
    """One finished training."""

    name: str
    bits_per_byte: float
    seconds: float
    """What counts: nanochat's steps, or our whole command."""
    steps: int
    tokens: int
    parameters: int
    whole_seconds: float
    own_bits_per_byte: float | None
    """As the trainer itself measures."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=3.0, help="of nanochat's steps")
    parser.add_argument("--settings", nargs="*", default=["d4"], help=f"of nanochat: {', '.join(SETTINGS)}, or options")
    parser.add_argument("--steps", type=int, help="of nanochat, in place of minutes: for trying on a busy machine")
    parser.add_argument("--first", type=float, default=0.5, help="our first budget, as a share of nanochat's time")
    parser.add_argument("--runs", type=int, default=4, help="of ours, at most")
    parser.add_argument("--cache", type=Path, default=cache_directory())
    parser.add_argument("--json", type=Path, help="also write every result there")
    a = parser.parse_args()
    folder = a.cache / "race"
    home = prepare(folder)
    texts = write_texts(home, folder)
    peers = [nanochat(a, folder, texts, name) for name in a.settings]
    best = min(peers, key=lambda one: one.bits_per_byte)
    mine = ours(a, folder, home, texts, best) if a.runs else []
    report(peers, mine, best)
    if a.json:
        found = {"machine": machine(), "peers": [asdict(one) for one in peers], "wuxing": [asdict(o) for o in mine]}
        a.json.write_text(json.dumps(found, indent=2) + "\n")
    return 0


def prepare(folder: Path) -> Path:
    """The recipe's texts and vocabulary, made by its own steps; returns their home."""
    home = folder / "home"
    run = [*WUXING, "run", str(RECIPE), "vocabulary", "--home", str(home)]
    done = subprocess.run(run, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)
    return home


def newest(home: Path, kind: str, name: str) -> Path:
    """The last signed version of an artifact."""
    found = [path.parent for path in (home / kind / name).glob("v*/record.json")]
    return max(found, key=lambda path: int(path.name[1:]))


def write_texts(home: Path, folder: Path) -> dict[str, Path]:
    """The splits as nanochat reads them: files of texts, the last one for validation; train in a seeded order."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    corpus = newest(home, "corpus", "articles")
    target = folder / "nanochat" / "base_data_climbmix"
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    written = {}
    for number, split in enumerate(("train", "validation")):
        texts = [text for path in sorted(corpus.glob(f"{split}*.parquet")) for text in _texts(path)]
        if split == "train":
            random.Random("race").shuffle(texts)
        written[split] = target / f"shard_{number:05d}.parquet"
        pq.write_table(pa.table({"text": texts}), written[split], row_group_size=1024)
        print(f"{split}: {len(texts):,} texts, {sum(len(text.encode()) for text in texts):,} bytes", flush=True)
    return written


def _texts(path: Path) -> list[str]:
    import pyarrow.parquet as pq

    return list(pq.read_table(path, columns=["text"])["text"].to_pylist())


# ------------------------------------------------------------------------------------------------------- nanochat
def nanochat(a: argparse.Namespace, folder: Path, texts: dict[str, Path], settings: str) -> Result:
    """nanochat's own tokenizer and base training, in the time that is given."""
    python, source = install(a.cache, "nanochat"), nanochat_source(a.cache)
    base = folder / "nanochat"
    environment = {**os.environ, "NANOCHAT_BASE_DIR": str(base), "NANOCHAT_DTYPE": "bfloat16", "WANDB_MODE": "disabled"}
    tokenizer = base / "tokenizer" / "token_bytes.pt"
    if not tokenizer.is_file() or tokenizer.stat().st_mtime < texts["train"].stat().st_mtime:
        learn = [python, "-m", "scripts.tok_train", "--vocab-size=8192", "--max-chars=2000000000"]
        _checked(learn, source, environment)
    tag = re.sub(r"[^a-z0-9.]+", "-", settings.lower()).strip("-")
    options = [*ALWAYS.split(), *SETTINGS.get(settings, settings).split(), f"--model-tag={tag}", "--device-type=cpu"]
    train = [python, "-m", "scripts.base_train", *options]
    steps = a.steps
    if steps is None:
        times, *_ = _steps(_checked([*train, f"--num-iterations={PROBE_STEPS}"], source, environment))
        steps = max(2, round(a.minutes * 60 / statistics.median(times[3:])))
    shutil.rmtree(base / "base_checkpoints" / tag, ignore_errors=True)
    began = time.monotonic()
    said = _checked([*train, f"--num-iterations={steps}"], source, environment)
    whole = time.monotonic() - began
    times, tokens = _steps(said)
    seconds = statistics.median(times) + sum(times[1:])
    measure = [python, HERE / "peers" / "race_nanochat.py", source, texts["validation"], tag]
    found = json.loads(_checked(measure, source, environment).splitlines()[-1])
    own = found["its_bits_per_byte"]
    result = Result(
        f"nanochat {settings}",
        found["bits_per_byte"],
        seconds,
        steps,
        steps * tokens,
        found["parameters"],
        whole,
        own,
    )
    print(_line(result), flush=True)
    return result


def _steps(said: str) -> tuple[list[float], int]:
    """Seconds of each step, and the tokens of a step."""
    found = [(float(m[2]) / 1e3, int(m[3].replace(",", ""))) for m in _STEP.finditer(said)]
    match = re.search(r"Total batch size ([0-9,]+)", said)
    assert found and match, said[-2000:]
    return [seconds for seconds, _ in found], int(match[1].replace(",", ""))


def _checked(command: Sequence[object], directory: Path, environment: dict[str, str]) -> str:
    done = subprocess.run(
        [str(word) for word in command], cwd=directory, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))} failed:\n{done.stdout[-2000:]}{done.stderr[-3000:]}")
    return done.stdout


# ----------------------------------------------------------------------------------------------------------- ours
def ours(a: argparse.Namespace, folder: Path, home: Path, texts: dict[str, Path], peer: Result) -> list[Result]:
    """Our recipe with less and less time, until it no longer reaches the peer; or with more, until it does."""
    minutes, found = a.first * peer.seconds / 60, []
    while len(found) < a.runs:
        found.append(our_run(folder, home, texts, minutes))
        wins = found[-1].bits_per_byte <= peer.bits_per_byte
        if wins != (found[0].bits_per_byte <= peer.bits_per_byte):
            break
        minutes *= FALL if wins else RISE
    return found


def our_run(folder: Path, home: Path, texts: dict[str, Path], minutes: float) -> Result:
    """The recipe's step `base` with a budget of so many minutes, in a fresh home that holds texts and vocabulary."""
    import yaml

    recipe = yaml.safe_load(RECIPE.read_text(encoding="utf-8"))
    recipe["steps"] = {name: recipe["steps"][name] for name in ("articles", "vocabulary", "base")}
    recipe["steps"]["base"]["budget"] = {"minutes": round(minutes, 4)}
    fresh = folder / "run"
    shutil.rmtree(fresh, ignore_errors=True)
    shutil.copytree(home, fresh)
    path = folder / "race.yaml"
    path.write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")
    command = [*WUXING, "run", str(path), "base", "--home", str(fresh)]
    command += ["--accept", "a race against time: evidence is no part of it"]
    began = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    seconds = time.monotonic() - began
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)
    model = newest(fresh, "model", "base")
    training = json.loads((model / "training.json").read_text(encoding="utf-8"))
    kept = next(line for line in reversed(training["validation"]) if line["step"] == training["kept_step"])
    bits, parameters = our_bits(model, texts["validation"], training["length_tokens"])
    name = f"Wuxing {minutes:.2f} minutes"
    steps, tokens = training["steps"], training["positions"]
    result = Result(name, bits, seconds, steps, tokens, parameters, seconds, kept["bits_per_byte"])
    print(_line(result), flush=True)
    return result


def our_bits(model: Path, path: Path, length: int) -> tuple[float, int]:
    """Bits per byte of a signed model, computed in fp32 as for nanochat, and its parameters."""
    import torch

    from wuxing.model.files import load_network
    from wuxing.text.tokenizer import Tokenizer

    network, tokenizer, texts = load_network(model).eval(), Tokenizer.load(model), _texts(path)
    nats = torch.zeros((), dtype=torch.float64)
    with torch.no_grad():
        for text in texts:
            ids = [tokenizer.end_of_text_id, *tokenizer.encode(text)]
            assert tokenizer.decode(ids[1:]) == text
            for start in range(0, len(ids) - 1, length):
                row = torch.tensor([ids[start : start + length + 1]])
                logits = network(row[:, :-1])[0].float()
                nats += torch.nn.functional.cross_entropy(logits, row[0, 1:], reduction="none").double().sum()
    size = sum(len(text.encode()) for text in texts)
    return float(nats) / math.log(2) / size, sum(parameter.numel() for parameter in network.parameters())


def report(peers: list[Result], mine: list[Result], best: Result) -> None:
    """The table, in Markdown, and the ratio."""
    print(f"\nmachine: {machine()}\n")
    print("| | bits per byte | seconds | whole command | steps | tokens/s | parameters |")
    print("|---|--:|--:|--:|--:|--:|--:|")
    for one in [*peers, *mine]:
        rate = one.tokens / one.seconds
        print(
            f"| {one.name} | {one.bits_per_byte:.4f} | {one.seconds:.1f} | {one.whole_seconds:.1f} | {one.steps:,} "
            f"| {rate:,.0f} | {one.parameters:,} |"
        )
    reached = [one for one in mine if one.bits_per_byte <= best.bits_per_byte]
    if reached:
        quickest = min(reached, key=lambda one: one.seconds)
        steps, whole = quickest.seconds / best.seconds, quickest.seconds / best.whole_seconds
        print(f"\nwall time to {best.bits_per_byte:.4f} bits per byte, Wuxing / nanochat: {steps:.2f} ", end="")
        print(f"(its whole command: {whole:.2f}); asked for: {TARGET}")
    elif mine:
        print(f"\nWuxing did not reach {best.bits_per_byte:.4f} bits per byte; asked for: {TARGET} of nanochat's time")


def _line(one: Result) -> str:
    own = f" (its own measure: {one.own_bits_per_byte:.4f})" if one.own_bits_per_byte else ""
    return (
        f"  {one.name}: {one.bits_per_byte:.4f} bits per byte{own} in {one.seconds:.1f} s "
        f"({one.whole_seconds:.1f} s in all), {one.steps:,} steps, {one.tokens / one.seconds:,.0f} tokens/s"
    )


if __name__ == "__main__":
    raise SystemExit(main())
