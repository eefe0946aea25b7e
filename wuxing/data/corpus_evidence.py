"""The checks of a finished corpus, made on the files that the next stage will read."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wuxing.core.evidence import Evidence
from wuxing.core.record import Record
from wuxing.data.corpus import SPLITS, read_records
from wuxing.data.corpus_config import CorpusConfig
from wuxing.data.fingerprint import content_key, split_key
from wuxing.data.residue import near_twins, private_findings, script_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SAMPLED_DOCUMENTS = 1000
MAX_TWIN_SHARE = 0.002
"""At the threshold itself half of the pairs fall on either side of the estimate; a tenth above it hardly one does."""
MARGIN = 0.1


def examine(directory: Path, config: CorpusConfig, evidence: Evidence) -> None:
    """Read the splits again and judge what they hold."""
    seen = _Seen()
    for split in SPLITS:
        for record in read_records(directory, split):
            seen.look(split, record)
    evidence.judge("not_empty", seen.records["train"] > 0, seen.records["train"], "> 0", "records to train on")
    crossing = seen.crossing()
    evidence.judge("splits_disjoint", not crossing, len(crossing), 0, _some(crossing, "contents in two splits"))
    _judge_duplicates(directory, config, seen, evidence)
    _judge_privacy(config, seen, evidence)
    evidence.measure("languages", dict(seen.languages.most_common(30)), "records per language, or script where unknown")
    evidence.measure("sizes", {split: seen.size(split) for split in SPLITS})


class _Seen:
    """What one pass over the splits notes."""

    def __init__(self) -> None:
        self.records: Counter[str] = Counter()
        self.characters: Counter[str] = Counter()
        self.bytes: Counter[str] = Counter()
        self.languages: Counter[str] = Counter()
        self.private: Counter[str] = Counter()
        self.equal = 0
        self._places: dict[bytes, tuple[str, str]] = {}
        self._crossing: list[str] = []
        self._contents: set[bytes] = set()

    def look(self, split: str, record: Record) -> None:
        texts = list(texts_of(record))
        self.records[split] += 1
        self.characters[split] += sum(map(len, texts))
        self.bytes[split] += sum(len(text.encode()) for text in texts)
        self.languages[str(record.meta.get("language") or script_of(" ".join(texts)))] += 1
        for text in [*texts, *(str(value) for value in record.meta.values() if isinstance(value, str))]:
            self.private += private_findings(text)
        content = content_key(record)
        self.equal += content in self._contents
        self._contents.add(content)
        for key in {content, split_key(record)}:
            other, id = self._places.setdefault(key, (split, record.id))
            if other != split:
                self._crossing.append(f"{record.id} in {split} and {id} in {other}")

    def crossing(self) -> list[str]:
        return self._crossing

    def size(self, split: str) -> dict[str, int]:
        return {"records": self.records[split], "characters": self.characters[split], "bytes": self.bytes[split]}


def texts_of(record: Record) -> Iterator[str]:
    """The text of a document, or each turn of a dialogue."""
    if record.messages is not None:
        yield from (message["content"] for message in record.messages)
    elif record.text is not None:
        yield record.text


def _judge_duplicates(directory: Path, config: CorpusConfig, seen: _Seen, evidence: Evidence) -> None:
    settings = config.duplicates
    value: dict[str, Any] = {"equal": seen.equal}
    if settings.near_jaccard is None:
        if settings.exact:
            evidence.judge("duplicate_residue", not seen.equal, value, {"equal": 0}, "records equal to another")
        else:
            evidence.measure("duplicate_residue", value, "equal records were asked to stay")
        return
    bound = min(1.0, settings.near_jaccard + MARGIN)
    best = _twins(directory, settings.shingle_words)
    share = float((best >= bound).mean()) if len(best) else 0.0
    value |= {"sampled": len(best), f"near ({bound:.2g})": share}
    value[f"near ({settings.near_jaccard:.2g})"] = float((best >= settings.near_jaccard).mean()) if len(best) else 0.0
    passed = share <= MAX_TWIN_SHARE and not (settings.exact and seen.equal)
    threshold = {"equal": 0 if settings.exact else None, f"near ({bound:.2g})": MAX_TWIN_SHARE}
    evidence.judge(
        "duplicate_residue", passed, value, threshold, "share of sampled documents that have a twin, exactly"
    )


def _twins(directory: Path, width: int) -> NDArray[np.float64]:
    """The similarity of a sample's nearest neighbours: the held-out documents first, for they must not leak."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    from wuxing.data.corpus import read_table

    columns = [read_table(directory, split, ["text"]).column("text") for split in ("test", "validation", "train")]
    held_out = sum(len(column) - column.null_count for column in columns[:2])
    chunks = [pc.drop_null(chunk).cast(pa.large_string()) for column in columns for chunk in column.chunks]
    texts = pa.concat_arrays(chunks) if chunks else pa.array([], pa.large_string())
    front = np.arange(min(held_out, SAMPLED_DOCUMENTS // 2))
    rest = np.linspace(len(front), len(texts) - 1, SAMPLED_DOCUMENTS - len(front)).astype(np.int64)
    sampled = np.unique(np.concatenate([front, rest[rest >= 0]])) if len(texts) else front
    return near_twins(texts, sampled[sampled < len(texts)], width)


def _judge_privacy(config: CorpusConfig, seen: _Seen, evidence: Evidence) -> None:
    kinds = {kind for step in config.clean if step.privacy for kind in step.privacy.kinds}
    found = dict(sorted(seen.private.items()))
    left = {kind: count for kind, count in found.items() if kind in kinds}
    if kinds:
        evidence.judge("privacy_residue", not left, found, {}, "private data that are still there, by kind")
    else:
        evidence.measure("privacy_residue", found, "private data were asked to stay")


def _some(items: list[str], what: str) -> str:
    return f"{what}: {json.dumps(items[:3], ensure_ascii=False)}" if items else what
