"""Does augmentation earn its cost?  The same model with and without it, on held-out records nobody touched.

python benchmarks/augmentation.py --data DIRECTORY [--small] [--only images|network|sounds|texts]

DIRECTORY holds images/fashion-mnist-{train,test}.parquet, audio/spoken-digits.tar.gz and
classify/sentiment-movieReviewSnippets.jsonl.gz.  For each task and each of several seeds a small train split is drawn,
augmented by the step `augmentation`, turned into features by the step `features`, and a linear model learns from it;
for `network`, a small convolutional network learns from the pixels, with the same number of updates in both cases.
Reported: held-out accuracy without and with, and the paired difference with its 95 % interval (bootstrap over the
held-out items, each item's score averaged over the seeds).
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import os
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from wuxing.augment.kind import AugmentationKind
from wuxing.core.artifact import Artifact
from wuxing.core.context import Context
from wuxing.core.digest import digest_of_file
from wuxing.core.record import Record
from wuxing.core.splits import SPLITS, read_records, write_records
from wuxing.core.statistic import ratio_difference
from wuxing.core.step import Draft
from wuxing.feature.kind import FeaturesKind
from wuxing.feature.matrix import Features
from wuxing.feature.probe import linear_model


@dataclass(frozen=True)
class Trial:
    """One task with one set of operations."""

    name: str
    records: Callable[[Path, Random], tuple[list[Record], list[Record]]]
    """Train split drawn by a seed, and the held-out records, which are always the same."""
    transform: dict[str, Any]
    steps: list[Any]
    copies: int
    soft: bool = True
    """Whether a mixed record counts for both its classes, by its soft label, or for the larger one alone."""
    network: bool = False
    """A small convolutional network on the pixels in place of a linear model on features."""


def fashion(size: int, held_out: int) -> Callable[[Path, Random], tuple[list[Record], list[Record]]]:
    """Pictures of clothes."""

    def read(data: Path, random: Random) -> tuple[list[Record], list[Record]]:
        splits = []
        for split in ("train", "test"):
            rows = pq.read_table(data / "images" / f"fashion-mnist-{split}.parquet").to_pylist()
            splits.append(
                [Record(f"{split}/{i}", "f", image=r["image"]["bytes"], label=r["label"]) for i, r in enumerate(rows)]
            )
        return random.sample(splits[0], size), splits[1][:held_out]

    return read


def digits(size: int, loud: bool) -> Callable[[Path, Random], tuple[list[Record], list[Record]]]:
    """Spoken digits: learnt from three speakers, tried on the fourth; `loud`: in a noisy room."""

    def read(data: Path, random: Random) -> tuple[list[Record], list[Record]]:
        from wuxing.augment.augmentation import Augmentation
        from wuxing.augment.config import OperationsConfig

        found = []
        with tarfile.open(data / "audio" / "spoken-digits.tar.gz") as archive:
            for entry in archive:
                stream = archive.extractfile(entry) if entry.name.endswith(".wav") else None
                if stream is not None:
                    stem = Path(entry.name).stem
                    found.append(
                        Record(stem, "d", audio=stream.read(), label=stem[0], meta={"speaker": stem.split("_")[1]})
                    )
        found.sort(key=lambda record: record.id)
        speakers = sorted({record.meta["speaker"] for record in found})
        train = [record for record in found if record.meta["speaker"] != speakers[-1]]
        tried = [record for record in found if record.meta["speaker"] == speakers[-1]]
        if loud:
            room = Augmentation(
                OperationsConfig(steps=[{"noise": {"min_snr_db": 10, "max_snr_db": 10, "colour": "pink"}}]), 99
            )
            tried = [copy for copy in (room.apply(record, 1) for record in tried) if isinstance(copy, Record)]
        return random.sample(train, min(size, len(train))), tried

    return read


def reviews(size: int, held_out: int, noisy: bool) -> Callable[[Path, Random], tuple[list[Record], list[Record]]]:
    """Opinions on films; `noisy`: typed in haste."""

    def read(data: Path, random: Random) -> tuple[list[Record], list[Record]]:
        from wuxing.augment.augmentation import Augmentation
        from wuxing.augment.config import OperationsConfig

        found = []
        with gzip.open(data / "classify" / "sentiment-movieReviewSnippets.jsonl.gz", "rt", encoding="utf-8") as lines:
            for number, line in enumerate(lines):
                row = json.loads(line)
                if abs(row["score"]) >= 1:
                    found.append(
                        Record(str(number), "s", text=row["text"], label="good" if row["score"] > 0 else "bad")
                    )
        Random(0).shuffle(found)
        tried, rest = found[:held_out], found[held_out:]
        if noisy:
            haste = Augmentation(OperationsConfig(steps=[{"typos": {"rate": 0.08}}]), 99)
            tried = [copy for copy in (haste.apply(record, 1) for record in tried) if isinstance(copy, Record)]
        return random.sample(rest, size), tried

    return read


def trials(small: bool) -> dict[str, list[Trial]]:
    """What is tried, with sizes; the operations were chosen before any result was seen."""
    few, held = (200, 500) if small else (500, 2000)
    hog = {"hog": {"width": 28, "height": 28, "cell": 4}}
    mfcc = {"mfcc": {"rate": 8000, "deltas": 1}}
    characters = {"tf_idf": {"words": "characters", "ngrams": 4}}
    gentle = ["flip", {"rotate": {"max_degrees": 8}}, {"crop": {"min_area": 0.8}}]
    spoken = [{"time_shift": {"max_seconds": 0.05}}, {"noise": {"min_snr_db": 5, "max_snr_db": 25}}, "speed"]
    return {
        "images": [
            Trial("flip, rotate, crop", fashion(few, held), hog, gentle, 3),
            Trial("colour_jitter", fashion(few, held), hog, ["colour_jitter"], 3),
            Trial("mixup, soft labels", fashion(few, held), hog, [{"mixup": {"share": 1}}], 3),
            Trial("cutmix, soft labels", fashion(few, held), hog, [{"cutmix": {"share": 1}}], 3),
            Trial("cutmix, label of the larger part", fashion(few, held), hog, [{"cutmix": {"share": 1}}], 3, False),
        ],
        "network": [
            Trial(name, fashion(few, held), {}, steps, 10, network=True)
            for name, steps in (
                ("flip, rotate, crop", gentle),
                ("colour_jitter", ["colour_jitter"]),
                ("mixup, soft labels", [{"mixup": {"share": 1}}]),
                ("cutmix, soft labels", [{"cutmix": {"share": 1}}]),
            )
        ],
        "sounds": [
            Trial("shift, noise, speed; a new speaker", digits(few, False), mfcc, spoken, 3),
            Trial("shift, noise, speed; a new speaker in noise", digits(few, True), mfcc, spoken, 3),
            Trial(
                "time and frequency masks; a new speaker", digits(few, False), mfcc, ["time_mask", "frequency_mask"], 3
            ),
        ],
        "texts": [
            Trial("deletion, swap", reviews(few, held, False), {"tf_idf": {"ngrams": 2}}, ["deletion", "swap"], 3),
            Trial("typos; clean reviews", reviews(few, held, False), characters, [{"typos": {"rate": 0.06}}], 3),
            Trial(
                "typos; reviews typed in haste", reviews(few, held, True), characters, [{"typos": {"rate": 0.06}}], 3
            ),
        ],
    }


def corpus(directory: Path, train: Sequence[Record], test: Sequence[Record]) -> Artifact:
    """Records as a corpus."""
    directory.mkdir(parents=True)
    for split, records in zip(SPLITS, (train, [], test), strict=True):
        write_records(directory, split, records)
    return Artifact(
        directory, {"kind": "corpus", "name": "c", "version": 1, "content": "", "files": {}, "failures": []}
    )


def make(kind: Any, config: dict[str, Any], data: Artifact, directory: Path, seed: int) -> Artifact:
    """One step outside a store; its evidence must hold."""
    directory.mkdir(parents=True)
    draft = Draft(directory, kind.kind, "x", "", seed)
    values = kind.Config.model_validate({"make": kind.kind, "data": "c", **config})
    kind.make(values, {"data": data}, draft, Context(home=directory, workers=1))
    failures = draft.evidence.failures(kind.required)
    assert not failures, failures
    return Artifact(
        directory, {"kind": kind.kind, "name": "x", "version": 1, "content": "", "files": {}, "failures": []}
    )


def right(features: Path, data: Path, soft: bool) -> np.ndarray:
    """Which held-out records a linear model on the train split gets right.

    A record with a soft label stands once for each of its classes, weighted by its share.
    """
    found = Features(features)
    shares = {record.id: record.meta.get("soft_label") for record in read_records(data, "train")} if soft else {}
    places, labels, weights = [], [], []
    for place, (id, label) in enumerate(zip(found.ids("train"), found.classes("train"), strict=True)):
        for name, share in (shares.get(id) or {str(label): 1.0}).items():
            places.append(place)
            labels.append(name)
            weights.append(share)
    scale, model = linear_model(found.matrix("train")[np.array(places)], labels, np.array(weights))
    return np.array(model.predict(scale.apply(found.matrix("test"))) == np.array(found.classes("test")))


def network_right(data: Path, soft: bool, seed: int, steps: int) -> np.ndarray:
    """Which held-out pictures a network of two convolutions gets right after a fixed number of updates."""
    import torch
    from torch import nn

    from wuxing.media.image import decode, grey

    def pixels(records: list[Record]) -> torch.Tensor:
        return torch.tensor(np.array([grey(decode(record.image or b"")) for record in records]))[:, None] / 255

    train, test = (list(read_records(data, split)) for split in ("train", "test"))
    classes = sorted({str(record.label) for record in train + test})
    wanted = torch.zeros(len(train), len(classes))
    for row, record in zip(wanted, train, strict=True):
        for name, share in ((record.meta.get("soft_label") if soft else None) or {str(record.label): 1.0}).items():
            row[classes.index(name)] = share
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    layers = [nn.Conv2d(1, 16, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 32, 5, padding=2), nn.ReLU()]
    model = nn.Sequential(*layers, nn.MaxPool2d(2), nn.Flatten(), nn.Linear(32 * 49, len(classes)))
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    seen, random = pixels(train), np.random.default_rng(seed)
    for _ in range(steps):
        rows = torch.from_numpy(random.integers(0, len(train), 64))
        nn.functional.cross_entropy(model(seen[rows]), wanted[rows]).backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    with torch.inference_mode():
        said = [classes[place] for place in model(pixels(test)).argmax(1).tolist()]
    return np.array([a == record.label for a, record in zip(said, test, strict=True)])


def judged(trial: Trial, data: Artifact, directory: Path, seed: int, steps: int) -> np.ndarray:
    """Which held-out records the trial's model gets right after learning from `data`."""
    if trial.network:
        return network_right(data.path, trial.soft, seed, steps)
    made = make(FeaturesKind(), {"transforms": [trial.transform]}, data, directory, seed)
    return right(made.path, data.path, trial.soft)


def run(trial: Trial, data: Path, seeds: int, room: Path, steps: int, known: dict[Any, np.ndarray]) -> dict[str, Any]:
    """Accuracy without and with, averaged over the seeds, and the paired difference."""
    plain, more = [], []
    for seed in range(seeds):
        train, test = trial.records(data, Random(seed))
        here = room / f"{seed}"
        base = corpus(here / "corpus", train, test)
        grown = make(AugmentationKind(), {"steps": trial.steps, "copies": trial.copies}, base, here / "grown", seed)
        for artifact, into, name in ((base, plain, "plain"), (grown, more, "more")):
            key = (
                name,
                seed,
                str(trial.transform),
                trial.soft,
                digest_of_file(artifact.path / "train.parquet"),
                len(test),
            )
            if key not in known:
                known[key] = judged(trial, artifact, here / name, seed, steps)
            into.append(known[key])
    a, b = np.mean(plain, axis=0), np.mean(more, axis=0)
    gap = ratio_difference(a.tolist(), b.tolist(), [1.0] * len(a), 7)
    return {"without": float(a.mean()), "with": float(b.mean()), **gap.to_json()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("WUXING_TEST_DATA"))
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--seeds", type=int, help="draws of the train split: 5, with --small 2")
    parser.add_argument("--steps", type=int, help="updates of the network: 800, with --small 100")
    parser.add_argument("--only", choices=["images", "network", "sounds", "texts"])
    arguments = parser.parse_args()
    if arguments.data is None:
        parser.error("real data are missing: give --data, or set WUXING_TEST_DATA")
    seeds = arguments.seeds or (2 if arguments.small else 5)
    steps = arguments.steps or (100 if arguments.small else 800)
    table = csv.writer(sys.stdout, delimiter="|")
    table.writerow(["task", "operations", "without", "with", "difference", "low", "high", "held out", "seconds"])
    for task, several in trials(arguments.small).items():
        if arguments.only not in (None, task):
            continue
        known: dict[Any, np.ndarray] = {}
        for trial in several:
            start = time.time()
            with tempfile.TemporaryDirectory() as room:
                found = run(trial, arguments.data, seeds, Path(room), steps, known)
            points = [f"{100 * found[key]:+.1f}" for key in ("difference", "low", "high")]
            shares = [f"{100 * found[key]:.1f} %" for key in ("without", "with")]
            table.writerow([task, trial.name, *shares, *points, found["n"], f"{time.time() - start:.0f}"])
            sys.stdout.flush()


if __name__ == "__main__":
    main()
