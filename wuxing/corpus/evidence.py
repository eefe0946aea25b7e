"""The checks of a finished corpus, made on the files that the next stage will read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wuxing.core.evidence import Evidence
from wuxing.core.record import Record
from wuxing.core.splits import SPLITS, read_records, split_path
from wuxing.corpus.config import CorpusConfig
from wuxing.corpus.fingerprint import KEY_BYTES, content_key, split_key
from wuxing.corpus.residue import near_twins, private_findings, script_of

if TYPE_CHECKING:
    import numpy as np
    import pyarrow
    from numpy.typing import NDArray

SAMPLED_DOCUMENTS = 1000
MAX_TWIN_SHARE = 0.002
"""At the threshold itself half of the pairs fall on either side of the estimate; a tenth above it hardly one does."""
MARGIN = 0.1
DOCUMENTS_PER_CHUNK = 1024


def examine(directory: Path, config: CorpusConfig, evidence: Evidence) -> None:
    """Read the splits again and judge what they hold."""
    seen = _Seen()
    for split in SPLITS:
        for record in read_records(directory, split):
            seen.look(split, record)
    evidence.judge("not_empty", seen.records["train"] > 0, seen.records["train"], "> 0", "records to train on")
    crossing = seen.crossing()
    note = _named(directory, crossing[:3]) if crossing else "contents in two splits"
    evidence.judge("splits_disjoint", not crossing, len(crossing), 0, note)
    _judge_duplicates(directory, config, seen, evidence)
    _judge_privacy(config, seen, evidence)
    evidence.measure("languages", dict(seen.languages.most_common(30)), "records per language, or script where unknown")
    evidence.measure("sizes", {split: seen.size(split) for split in SPLITS})


class _Seen:
    """What one pass over the splits notes; of each record only its keys stay in memory."""

    def __init__(self) -> None:
        self.records: Counter[str] = Counter()
        self.documents: Counter[str] = Counter()
        self.characters: Counter[str] = Counter()
        self.bytes: Counter[str] = Counter()
        self.languages: Counter[str] = Counter()
        self.private: Counter[str] = Counter()
        self._contents, self._openings, self._splits = bytearray(), bytearray(), bytearray()

    def look(self, split: str, record: Record) -> None:
        texts = list(texts_of(record))
        self.records[split] += 1
        self.documents[split] += record.messages is None
        self.characters[split] += sum(map(len, texts))
        self.bytes[split] += sum(len(text.encode()) for text in texts)
        self.languages[str(record.meta.get("language") or script_of(" ".join(texts)))] += 1
        for text in [*texts, *(str(value) for value in record.meta.values() if isinstance(value, str))]:
            self.private += private_findings(text)
        self._contents += content_key(record)
        self._openings += split_key(record)
        self._splits.append(SPLITS.index(split))

    @property
    def equal(self) -> int:
        """Records whose content stood before."""
        import numpy as np

        keys = np.frombuffer(bytes(self._contents), np.dtype((np.void, KEY_BYTES)))
        return len(keys) - len(np.unique(keys))

    def crossing(self) -> list[tuple[int, int]]:
        """Pairs of records, by their number in the pass, that share a content or a first question across a split."""
        import numpy as np

        splits = np.frombuffer(bytes(self._splits), np.uint8)
        found: dict[tuple[int, int], None] = {}
        for raw in (self._contents, self._openings):
            keys = np.frombuffer(bytes(raw), np.dtype((np.void, KEY_BYTES)))
            order = np.argsort(keys, kind="stable")
            same = keys[order][1:] == keys[order][:-1]
            at = np.flatnonzero(same & (splits[order][1:] != splits[order][:-1]))
            found.update({(int(order[i]), int(order[i + 1])): None for i in at})
        return list(found)

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
    best = _twins(directory, settings.shingle_words, seen)
    share = float((best >= bound).mean()) if len(best) else 0.0
    value |= {"sampled": len(best), f"near ({bound:.2g})": share}
    value[f"near ({settings.near_jaccard:.2g})"] = float((best >= settings.near_jaccard).mean()) if len(best) else 0.0
    passed = share <= MAX_TWIN_SHARE and not (settings.exact and seen.equal)
    threshold = {"equal": 0 if settings.exact else None, f"near ({bound:.2g})": MAX_TWIN_SHARE}
    evidence.judge(
        "duplicate_residue", passed, value, threshold, "share of sampled documents that have a twin, exactly"
    )


def _twins(directory: Path, width: int, seen: _Seen) -> NDArray[np.float64]:
    """The similarity of a sample's nearest neighbours: the held-out documents first, for they must not leak."""
    import numpy as np

    total, train = sum(seen.documents.values()), seen.documents["train"]
    front = np.arange(min(total - train, SAMPLED_DOCUMENTS // 2))
    rest = np.linspace(len(front), total - 1, SAMPLED_DOCUMENTS - len(front)).astype(np.int64)
    sampled = np.unique(np.concatenate([front, rest[(rest >= 0) & (rest < total)]]))
    return near_twins(lambda: _documents(directory), sampled, width)


def _documents(directory: Path) -> Iterator[pyarrow.Array]:
    """The texts of the documents, held-out ones first."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    for split in ("test", "validation", "train"):
        with pq.ParquetFile(split_path(directory, split)) as file:
            for batch in file.iter_batches(DOCUMENTS_PER_CHUNK, columns=["text"]):
                yield pc.drop_null(batch.column(0))


def _judge_privacy(config: CorpusConfig, seen: _Seen, evidence: Evidence) -> None:
    kinds = {kind for step in config.clean if step.privacy for kind in step.privacy.kinds}
    found = dict(sorted(seen.private.items()))
    left = {kind: count for kind, count in found.items() if kind in kinds}
    if kinds:
        evidence.judge("privacy_residue", not left, found, {}, "private data that are still there, by kind")
    else:
        evidence.measure("privacy_residue", found, "private data were asked to stay")


def _named(directory: Path, pairs: list[tuple[int, int]]) -> str:
    """The ids of the records with these numbers: another pass, made only when the check fails."""
    wanted = {number for pair in pairs for number in pair}
    every = ((split, record.id) for split in SPLITS for record in read_records(directory, split))
    names = {number: f"{id} in {split}" for number, (split, id) in enumerate(every) if number in wanted}
    return "contents in two splits: " + "; ".join(f"{names[a]} and {names[b]}" for a, b in pairs)
