"""Duplicates of every kind in one corpus: documents that share long stretches, lookalike pictures, pairs of replies."""

from __future__ import annotations

import gzip
import io
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from wuxing.core.artifact import Artifact
from wuxing.core.evidence import Evidence
from wuxing.core.record import Record
from wuxing.core.splits import SPLITS, read_records, write_records
from wuxing.corpus.duplicate import bands_for, near_clusters
from wuxing.corpus.engine.equal import NearKeys, Partitions, exact_firsts
from wuxing.corpus.evidence import examine
from wuxing.corpus.kind import CorpusKind
from wuxing.text.kernel import minhash
from wuxing.text.shingle import tokens_of

Maker = Callable[..., Artifact]
SPLIT = {"validation": 0.1, "test": 0.1}


def fates_of(made: Artifact) -> dict[str, tuple[str, str]]:
    rows = pq.read_table(made.path / "fates.parquet").to_pylist()
    return {row["id"].split("#")[-1]: (row["fate"], row["detail"]) for row in rows}


def test_stretches_that_stood_before_are_cut(make_step: Maker, data_directory: Path, tmp_path: Path) -> None:
    with gzip.open(data_directory / "text" / "wikipedia-leads-en.jsonl.gz", "rt", encoding="utf-8") as lines:
        leads = [json.loads(line)["text"] for line, _ in zip(lines, range(300), strict=False)]
    notice = " ".join(leads[0].split()[:80])
    texts = [*leads, *(f"{lead} {notice}" for lead in leads[100:110]), notice.upper(), f"Hm. {notice}"]
    own = [f"{number} is a word of its own, and so is {number * 7}. {notice}" for number in (3, 3)]
    (tmp_path / "x.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in [*texts, *own]))
    source = {"files": str(tmp_path / "x.jsonl"), "fields": {"text": "text"}}
    config = {"sources": [source], "split": SPLIT, "duplicates": {"substring_tokens": 50}}
    made = make_step(CorpusKind(), config)
    assert made.record["failures"] == []
    fates = fates_of(made)
    assert fates["0"] == ("kept", "")
    assert fates["310"][0] == fates["311"][0] == "substring_duplicate"
    assert [fates[str(n)][0] for n in (312, 313)] == ["kept", "duplicate"]
    kept = [r.text or "" for split in SPLITS for r in read_records(made.path, split)]
    runs: Counter[tuple[str, ...]] = Counter()
    for text in kept:
        words = tokens_of(text)
        runs.update({tuple(words[start : start + 50]) for start in range(len(words) - 49)})
    assert max(runs.values()) == 1  # by plain counting: no run of 50 tokens is left in two documents
    found = json.loads((made.path / "statistics.json").read_text())
    assert found["duplicates"]["substring"]["records"] >= 1
    assert sum(found["fates"].values()) == len(texts) + 2
    assert made.evidence.value("substring_residue") == 0
    planted = tmp_path / "planted"  # a fault: somebody put a notice back
    for split in SPLITS:
        records = list(read_records(made.path, split))
        changed = [replace(r, text=f"{r.text} {notice}") for r in records[:5]] if split == "train" else []
        planted.mkdir(exist_ok=True)
        write_records(planted, split, [*changed, *records[len(changed) :]])
    evidence = Evidence()
    examine(planted, CorpusKind.Config.model_validate({"make": "corpus", **config}), evidence)
    assert any(line.startswith("substring_residue") for line in evidence.failures(()))


def picture(seed: int, size: int = 96) -> Image.Image:
    small = np.random.default_rng(seed).integers(0, 255, (6, 6, 3)).astype(np.uint8)
    return Image.fromarray(small).resize((size, size), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, format: str = "PNG", **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, format, **options)
    return out.getvalue()


def test_lookalike_pictures_leave(make_step: Maker, tmp_path: Path) -> None:
    """Pictures that were encoded anew, made smaller, or are the same: the first stays; others are strangers."""
    originals = [picture(seed) for seed in range(30)]
    contents = [encoded(image) for image in originals]
    contents += [encoded(image, "JPEG", quality=60) for image in originals[:8]]
    contents += [encoded(image.resize((64, 64))) for image in originals[8:12]]
    contents.append(contents[20])
    (tmp_path / "in").mkdir()
    write_records(tmp_path / "in", "train", [Record(f"p{n}", "s", image=data) for n, data in enumerate(contents)])
    fields = {"image": "image"}
    source = {"files": str(tmp_path / "in" / "train.parquet"), "fields": fields}
    config = {"sources": [source], "split": SPLIT, "duplicates": {"near_image_bits": 8}}
    made = make_step(CorpusKind(), config)
    fates = fates_of(made)
    assert [fates[str(n)][0] for n in range(30)] == ["kept"] * 30
    assert [fates[str(n)][0] for n in range(30, 42)] == ["near_duplicate"] * 12
    assert fates["42"][0] == "duplicate"
    assert fates["35"][1].endswith("#5") and fates["40"][1].endswith("#10")
    dropped = pq.read_table(made.path / "dropped.parquet").to_pylist()
    assert all(row["image"] for row in dropped if row["fate"] == "near_duplicate")
    whole = make_step(CorpusKind(), config | {"duplicates": {}}, name="whole")
    assert Counter(fate for fate, _ in fates_of(whole).values()) == {"kept": 42, "duplicate": 1}


def test_partitions_on_disk_find_the_clusters_of_memory(
    data_directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Real near-duplicate pages; hundreds of partitions against one array."""
    import pyarrow as pa

    from wuxing.corpus.engine import equal

    monkeypatch.setattr(equal, "PARTITION_ENTRIES", 20)
    with gzip.open(data_directory / "messy" / "near-duplicate-api-pages.jsonl.gz", "rt", encoding="utf-8") as lines:
        texts = [json.loads(line)["text"] for line, _ in zip(lines, range(2000), strict=False)]
    signatures = minhash(pa.array(texts), 5, 128)
    usable = (signatures != 0xFFFFFFFF).any(axis=1)
    truth = near_clusters(signatures, 0.6, usable)
    assert (truth != np.arange(len(texts))).sum() > 20
    bands = bands_for(0.6, 128)
    with NearKeys(tmp_path, bands, len(texts)) as near:
        for start in range(0, len(texts), 37):
            rows = np.arange(start, min(start + 37, len(texts)))
            near.add(signatures[rows][usable[rows]], rows[usable[rows]])
    done: list[int] = []
    found = near.roots(np.arange(len(texts)), signatures.__getitem__, 0.6, lambda: done.append(1))
    assert found.tolist() == truth.tolist() and len(done) == bands.count
    with Partitions(tmp_path, "k", 16, 0) as none:
        pass
    assert exact_firsts(none, 0).tolist() == []


def test_two_judgements_of_one_prompt_are_two_records(make_step: Maker, tmp_path: Path) -> None:
    prompt = [{"role": "user", "content": "Which?"}]
    pairs = [("a", "b"), ("a", "b"), ("b", "a"), ("a", "c"), ("A ", " B")]
    records = [Record(f"r{n}", "s", messages=prompt, chosen=a, rejected=b) for n, (a, b) in enumerate(pairs)]
    answered = [*prompt, {"role": "assistant", "content": "This."}]
    records += [Record(f"l{n}", "s", messages=answered, liked=liked) for n, liked in enumerate((True, False, True))]
    (tmp_path / "in").mkdir()
    write_records(tmp_path / "in", "train", records)
    rows = pq.read_table(tmp_path / "in" / "train.parquet").to_pylist()
    pairs_file, liked_file = tmp_path / "pairs.jsonl", tmp_path / "liked.jsonl"
    pairs_file.write_text(
        "".join(json.dumps({k: r[k] for k in ("messages", "chosen", "rejected")}) + "\n" for r in rows[:5])
    )
    liked_file.write_text("".join(json.dumps({k: r[k] for k in ("messages", "liked")}) + "\n" for r in rows[5:]))
    sources = [
        {"files": str(pairs_file), "fields": {"messages": "messages", "chosen": "chosen", "rejected": "rejected"}},
        {"files": str(liked_file), "fields": {"messages": "messages", "liked": "liked"}},
    ]
    made = make_step(CorpusKind(), {"sources": sources, "split": {"validation": 0, "test": 0}})
    fates = [row["fate"] for row in pq.read_table(made.path / "fates.parquet").to_pylist()]
    assert fates == ["kept", "duplicate", "kept", "kept", "duplicate", "kept", "kept", "duplicate"]
