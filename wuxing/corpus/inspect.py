"""A look at data before a recipe is written: format, fields, lengths, languages, duplicates, private data, samples."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from wuxing.core.context import Context
from wuxing.core.error import WuxingError
from wuxing.core.record import Drop, Record
from wuxing.source.config import SourceConfig

READ_ROWS = 20_000
SHOWN_CHARACTERS = 300
SHOWN_SAMPLES = 3


@dataclass
class Inspection:
    """What a look at a source found.  `to_json` is what the command prints with `--json`."""

    source: str
    formats: dict[str, int]
    """Format → number of files; `unknown` for names that end like no format that is read."""
    files: int
    bytes: int
    rows: int
    """Rows that were read."""
    whole: bool
    """Whether these are all rows; otherwise reading stopped at a bound."""
    reading: dict[str, str]
    """How a row becomes a record: `fields` as given, or as recognised."""
    columns: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Field → share of rows that have it, and the types of its values."""
    records: dict[str, int] = field(default_factory=dict)
    """Documents, dialogues, and rows that give neither, by reason."""
    characters: dict[str, int] = field(default_factory=dict)
    """Length of records: min, 5 %, median, 95 %, max, total."""
    languages: dict[str, int] = field(default_factory=dict)
    """Records per language; per script where the language model is not at hand."""
    duplicates: dict[str, float] = field(default_factory=dict)
    """Share of records that equal an earlier one; share of documents that nearly equal one (Jaccard ≥ 0.8)."""
    private: dict[str, int] = field(default_factory=dict)
    """Private data that a `privacy` step would replace, by kind."""
    would_drop: dict[str, int] = field(default_factory=dict)
    """Documents that the `quality` and `repetition` steps would drop with their defaults, by rule."""
    samples: list[dict[str, Any]] = field(default_factory=list)
    """Some records as they would be read, private data replaced."""
    notes: list[str] = field(default_factory=list)
    """What could not be looked at, and why."""

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


def inspect(source: SourceConfig | Path | str, context: Context | None = None, max_rows: int = READ_ROWS) -> Inspection:
    """Look at up to `max_rows` rows of a path or of a recipe's source.

    Languages are identified by the model that the `language` step uses, which is downloaded at the first use; where
    it cannot be had, scripts are counted and `notes` says so.  Raises WuxingError when the source cannot be reached.
    """
    from wuxing.source import open_source, rows_of
    from wuxing.source.fields import Mapper

    context = context or Context()
    settings = source if isinstance(source, SourceConfig) else SourceConfig(files=str(source))
    origin = open_source(settings, context)
    mapper, notes = Mapper(settings), _Notes()
    rows = (row for part in origin.parts for row in rows_of(part, settings))
    for row in islice(rows, max_rows):
        made = row.value if isinstance(row.value, Record) else mapper.record(row)
        notes.row(row.value, made)
    files = origin.card.get("files", {})
    return Inspection(
        source=settings.label,
        formats=_formats(files, settings),
        files=len(files),
        bytes=sum(files.values()),
        rows=notes.rows,
        whole=next(rows, None) is None,
        reading=_reading(settings, notes),
        columns=notes.columns(),
        records=dict(notes.kinds.most_common()),
        characters=_lengths(notes.lengths),
        **_contents(notes.records, context),
    )


class _Notes:
    """What is noted row by row."""

    def __init__(self) -> None:
        self.rows = 0
        self.kinds: Counter[str] = Counter()
        self.lengths: list[int] = []
        self.records: list[Record] = []
        self.first: dict[str, Any] | None = None
        self._present: Counter[str] = Counter()
        self._types: dict[str, Counter[str]] = {}

    def row(self, value: Any, made: Record | Drop) -> None:
        self.rows += 1
        if isinstance(value, dict):
            self.first = self.first or value
            for name, item in value.items():
                if item not in (None, ""):
                    self._present[str(name)] += 1
                self._types.setdefault(str(name), Counter())[type(item).__name__] += 1
        if isinstance(made, Drop):
            self.kinds[f"not read: {made.reason}"] += 1
            return
        self.kinds["documents" if made.messages is None else "dialogues"] += 1
        self.lengths.append(sum(map(len, _texts(made))))
        self.records.append(made)

    def columns(self) -> dict[str, dict[str, Any]]:
        names = list(self._types)[:100]
        return {
            name: {"present": round(self._present[name] / self.rows, 4), "types": dict(self._types[name].most_common())}
            for name in names
        }


def _texts(record: Record) -> Iterator[str]:
    if record.messages is not None:
        yield from (message["content"] for message in record.messages)
    elif record.text is not None:
        yield record.text


def _formats(files: dict[str, int], source: SourceConfig) -> dict[str, int]:
    from wuxing.source.format import format_of

    given = None if source.format == "auto" else source.format
    return dict(Counter(given or format_of(name) or "unknown" for name in files))


def _reading(source: SourceConfig, notes: _Notes) -> dict[str, str]:
    from wuxing.source.fields import usual_fields

    fields = source.fields or (usual_fields(notes.first) if notes.first else None)
    if fields is None:
        return {}
    return {name: value for name, value in fields.model_dump().items() if isinstance(value, str)}


def _lengths(lengths: list[int]) -> dict[str, int]:
    if not lengths:
        return {}
    ordered = sorted(lengths)
    at = {name: ordered[math.floor(share * (len(ordered) - 1))] for name, share in (("5 %", 0.05), ("95 %", 0.95))}
    median = ordered[len(ordered) // 2]
    return {"min": ordered[0], "5 %": at["5 %"], "median": median, "95 %": at["95 %"], "max": ordered[-1]} | {
        "total": sum(ordered)
    }


def _contents(records: list[Record], context: Context) -> dict[str, Any]:
    from wuxing.corpus.clean import apply
    from wuxing.corpus.clean.privacy import Privacy

    privacy = Privacy()
    redacted = apply(privacy, records)
    shown = [record for record in redacted if isinstance(record, Record)]
    step = max(1, len(shown) // SHOWN_SAMPLES)
    languages, said = _languages(records, context)
    return {
        "languages": dict(languages.most_common(20)),
        "notes": said,
        "duplicates": _duplicates(records),
        "private": dict(sorted(privacy.found.items())),
        "would_drop": dict(_would_drop(records).most_common()),
        "samples": [_sample(record) for record in shown[::step][:SHOWN_SAMPLES]],
    }


def _languages(records: list[Record], context: Context) -> tuple[Counter[str], list[str]]:
    from wuxing.corpus.clean.language import Language, model_path
    from wuxing.corpus.residue import script_of

    texts = [" ".join(_texts(record)) for record in records]
    try:
        language = Language(model_path(context))
    except WuxingError as error:
        return Counter(map(script_of, texts)), [f"scripts in place of languages: {error.what}"]
    return Counter(language.identify(text)[0] for text in texts), []


def _duplicates(records: list[Record]) -> dict[str, float]:
    import numpy as np
    import pyarrow as pa

    from wuxing.corpus.duplicate import near_clusters
    from wuxing.corpus.fingerprint import content_key
    from wuxing.text.kernel import minhash

    equal = len(records) - len({content_key(record) for record in records})
    texts = list({content_key(r): r.text for r in records if r.text is not None}.values())
    signatures = minhash(pa.array(texts, pa.large_string()), 5, 128)
    clusters = near_clusters(signatures, 0.8, (signatures != 0xFFFFFFFF).any(axis=1))
    near = int((clusters != np.arange(len(texts))).sum())
    return {
        "equal": round(equal / max(1, len(records)), 4),
        "near": round(near / max(1, len(texts)), 4),
    }


def _would_drop(records: list[Record]) -> Counter[str]:
    from wuxing.corpus.clean import apply
    from wuxing.corpus.clean.config import QualityConfig, RepetitionConfig
    from wuxing.corpus.clean.quality import Quality
    from wuxing.corpus.clean.repetition import Repetition

    left: list[Record | Drop] = list(records)
    for step in (Quality(QualityConfig()), Repetition(RepetitionConfig())):
        left = apply(step, left)
    return Counter(end.reason for end in left if isinstance(end, Drop))


def _sample(record: Record) -> dict[str, Any]:
    if record.messages is not None:
        turns = [{**m, "content": m["content"][:SHOWN_CHARACTERS]} for m in record.messages[:6]]
        return {"id": record.id, "messages": turns}
    return {"id": record.id, "text": (record.text or "")[:SHOWN_CHARACTERS]}
