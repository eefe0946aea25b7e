"""Small corpora from real data, in the layout of the store."""

from __future__ import annotations

import csv
import gzip
import json
import tarfile
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from random import Random

from wuxing.core.artifact import Artifact
from wuxing.core.record import Record
from wuxing.core.splits import SPLITS, write_records


def corpus_of(
    directory: Path, train: Sequence[Record], validation: Sequence[Record], test: Sequence[Record] = ()
) -> Artifact:
    """Records as a corpus artifact."""
    directory.mkdir(parents=True, exist_ok=True)
    for split, records in zip(SPLITS, (train, validation, test), strict=True):
        write_records(directory, split, records)
    files = {f"{split}.parquet": {} for split in SPLITS}
    record = {
        "kind": "corpus",
        "name": "small",
        "version": 1,
        "content": directory.name,
        "files": files,
        "failures": [],
    }
    return Artifact(directory, record)


def sentiment(data: Path, domain: str = "movieReviewSnippets", count: int = 3000) -> list[Record]:
    """Reviews with a clear opinion, labelled."""
    found = []
    with gzip.open(data / "classify" / f"sentiment-{domain}.jsonl.gz", "rt", encoding="utf-8") as lines:
        for number, line in enumerate(lines):
            row = json.loads(line)
            if abs(row["score"]) >= 1:
                label = "good" if row["score"] > 0 else "bad"
                found.append(Record(f"{domain}/{number}", domain, text=row["text"], label=label))
    Random(1).shuffle(found)  # the file is sorted by score
    return found[:count]


def banking(data: Path, split: str, count: int = 2000) -> list[Record]:
    """Questions to a bank with their intent."""
    with open(data / "classify" / f"banking77-{split}.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    step = max(1, len(rows) // count)
    return [
        Record(f"{split}/{i}", "bank", text=r["text"], label=r["category"]) for i, r in enumerate(rows) if i % step == 0
    ]


def fashion(data: Path, split: str, count: int = 300) -> list[Record]:
    """Pictures of clothes."""
    import pyarrow.parquet as pq

    rows = pq.read_table(data / "images" / f"fashion-mnist-{split}.parquet").slice(0, count).to_pylist()
    return [Record(f"{split}/{i}", "fashion", image=r["image"]["bytes"], label=r["label"]) for i, r in enumerate(rows)]


def digits(data: Path, count: int = 1200) -> list[Record]:
    """Spoken digits."""
    found = []
    with tarfile.open(data / "audio" / "spoken-digits.tar.gz") as archive:
        for entry in islice((e for e in archive if e.name.endswith(".wav")), count):
            stream = archive.extractfile(entry)
            assert stream is not None
            name = Path(entry.name).stem
            found.append(
                Record(name, "digits", audio=stream.read(), label=name[0], meta={"speaker": name.split("_")[1]})
            )
    return sorted(found, key=lambda record: record.id)


def tang(data: Path, count: int = 3000) -> list[Record]:
    """Poems of two poets against each other."""
    with gzip.open(data / "text" / "tang-poems-zh.jsonl.gz", "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in islice(lines, 20_000)]
    return [Record(f"tang/{i}", "tang", text=row["text"], label=row["author"]) for i, row in enumerate(rows)][:count]
