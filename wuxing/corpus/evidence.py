"""The checks of a finished corpus, made on the files that the next stage will read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wuxing.core.evidence import Evidence
from wuxing.core.splits import SPLITS
from wuxing.corpus.config import CorpusConfig
from wuxing.corpus.engine.statistics import ranked
from wuxing.corpus.media_residue import media_twins
from wuxing.corpus.residue import near_twins
from wuxing.corpus.seen import Seen, batches
from wuxing.corpus.substring import residue

if TYPE_CHECKING:
    import numpy as np
    import pyarrow
    from numpy.typing import NDArray

MAX_TWIN_SHARE = 0.002
"""At the threshold itself half of the pairs fall on either side of the estimate; a tenth above it hardly one does."""
MARGIN = 0.1
ONE_IN = 8
"""Where nobody asked for private data to go, a sample says whether somebody should."""
MAX_REPEATED_RUNS = 1e-4
"""Cutting joins what stood on both sides, and such a seam may say by chance what another text says."""


def examine(directory: Path, config: CorpusConfig, evidence: Evidence) -> dict[str, Any]:
    """Read the splits again and judge what they hold; returns what was seen, for `statistics.json`."""
    asked = any(step.privacy for step in config.clean)
    with Seen(directory, 1 if asked else ONE_IN) as seen:
        records = seen.splits["train"].counts["records"]
        evidence.judge("not_empty", records > 0, records, "> 0", "records to train on")
        equal, crossing = seen.equal()
        note = _named(directory, crossing[:3]) if crossing else "contents in two splits"
        evidence.judge("splits_disjoint", not crossing, len(crossing), 0, note)
        _judge_duplicates(directory, config, seen, equal, evidence)
        _judge_substrings(directory, config, evidence)
        _judge_privacy(config, seen, evidence)
        languages: Counter[str] = Counter()
        for split in seen.splits.values():
            languages += split.languages
        top = dict(list(ranked(languages).items())[:30])
        evidence.measure("languages", top, "records per language, or script where unknown")
        sizes = ("records", "characters", "bytes")
        found = {name: {size: split.counts[size] for size in sizes} for name, split in seen.splits.items()}
        evidence.measure("sizes", found)
        return seen.to_json()


def _judge_duplicates(directory: Path, config: CorpusConfig, seen: Seen, equal: int, evidence: Evidence) -> None:
    settings = config.duplicates
    value: dict[str, Any] = {"equal": equal}
    media = {"image": settings.near_image_bits, "audio": settings.near_audio_bits}
    twins = {name: media_twins(directory, name, b, settings.likeness) for name, b in media.items() if b is not None}
    value |= {name: found for name, found in twins.items() if found["sampled"]}
    many = any(t["alike"] or t.get("same_pixels", 0) > MAX_TWIN_SHARE * t["sampled"] for t in twins.values())
    if settings.near_jaccard is None:
        if settings.exact or twins:
            passed = not (settings.exact and equal) and not many
            said = "records equal to another; sampled media with a twin, each compared with all"
            evidence.judge("duplicate_residue", passed, value, {"equal": 0 if settings.exact else None}, said)
        else:
            evidence.measure("duplicate_residue", value, "equal records were asked to stay")
        return
    bound = min(1.0, settings.near_jaccard + MARGIN)
    best = _twins(directory, settings.shingle_words, settings.near_jaccard, seen)
    share = float((best >= bound).mean()) if len(best) else 0.0
    value |= {"sampled": len(best), f"near ({bound:.2g})": share}
    value[f"near ({settings.near_jaccard:.2g})"] = float((best >= settings.near_jaccard).mean()) if len(best) else 0.0
    passed = share <= MAX_TWIN_SHARE and not (settings.exact and equal) and not many
    threshold = {"equal": 0 if settings.exact else None, f"near ({bound:.2g})": MAX_TWIN_SHARE}
    evidence.judge(
        "duplicate_residue", passed, value, threshold, "share of sampled documents that have a twin, exactly"
    )


def _judge_substrings(directory: Path, config: CorpusConfig, evidence: Evidence) -> None:
    """Runs of a sample of documents that still stand somewhere else, by plain strings."""
    tokens = config.duplicates.substring_tokens
    if tokens is None:
        return
    looked, repeated = residue(lambda: _documents(directory), tokens)
    share = repeated / max(1, looked)
    note = f"share of {looked:,} runs of {tokens} tokens that occur more than once"
    evidence.judge("substring_residue", share <= MAX_REPEATED_RUNS, round(share, 6), MAX_REPEATED_RUNS, note)


def _twins(directory: Path, width: int, least: float, seen: Seen) -> NDArray[np.float64]:
    """The similarity of a sample's nearest neighbours: half of it held-out documents, for they must not leak."""
    sampled, texts = seen.sample()
    return near_twins(lambda: _documents(directory), sampled, width, least, texts)


def _documents(directory: Path) -> Iterator[pyarrow.Array]:
    """The texts of all documents, in the order of the splits."""
    for split in SPLITS:
        for batch in batches(directory, split, ["text"]):
            yield batch.column(0).drop_null()


def _judge_privacy(config: CorpusConfig, seen: Seen, evidence: Evidence) -> None:
    kinds = {kind for step in config.clean if step.privacy for kind in step.privacy.kinds}
    found = dict(sorted(seen.private.items()))
    left = {kind: count for kind, count in found.items() if kind in kinds}
    if kinds:
        evidence.judge("privacy_residue", not left, found, {}, "private data that are still there, by kind")
    else:
        note = f"in one of {ONE_IN} of the {seen.may_be_private:,} texts that can hold any: they were asked to stay"
        evidence.measure("privacy_residue", found, note)


def _named(directory: Path, pairs: list[tuple[int, int]]) -> str:
    """The ids of the records with these numbers: another pass, made only when the check fails."""
    wanted = {number for pair in pairs for number in pair}
    names: dict[int, str] = {}
    number = 0
    for split in SPLITS:
        for batch in batches(directory, split, ["id"]):
            mine = [n for n in wanted if number <= n < number + batch.num_rows]
            names |= {n: f"{batch.column(0)[n - number].as_py()} in {split}" for n in mine}
            number += batch.num_rows
    return "contents in two splits: " + "; ".join(f"{names[a]} and {names[b]}" for a, b in pairs)
