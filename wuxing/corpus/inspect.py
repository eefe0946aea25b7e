"""A look at data before a recipe is written: formats, fields, lengths, languages, duplicates, private data, quality.

Rows are looked at in chunks; of each record only keys and figures stay in memory, and the few that will be shown.
"""

from __future__ import annotations

import hashlib
import heapq
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from wuxing.core.context import Context
from wuxing.core.error import UsageError
from wuxing.core.record import Drop, Record
from wuxing.corpus.examine import Examined
from wuxing.corpus.suggest import suggest
from wuxing.page.text import cut
from wuxing.source.config import SourceConfig

READ_ROWS = 20_000
READ_BYTES = 512 << 20
"""Of records; pictures and sounds are counted as they are encoded."""
CHUNK_ROWS = 512
CHUNK_BYTES = 32 << 20
SHOWN_CHARACTERS = 300
SHOWN_SAMPLES = 3
NOT_READ_SHOWN = 3
COLUMNS_SHOWN = 100


@dataclass
class Inspection:
    """What a look at a source found.  `to_json` is what the command prints with `--json`."""

    source: str
    formats: dict[str, int]
    """Format → number of files; `unknown` for files that are like no format that is read."""
    files: int
    bytes: int
    rows: int
    """Rows that were read."""
    whole: bool
    """Whether these are all rows; otherwise reading stopped at a bound."""
    reading: dict[str, str]
    """How a row becomes a record: `fields` as given, or as recognised."""
    columns: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Field → share of rows that have it, the types of its values, how many hold nothing."""
    records: dict[str, int] = field(default_factory=dict)
    """Documents, dialogues, preferences, pictures, sounds, and rows that give none, by reason."""
    not_read: dict[str, list[dict[str, str]]] = field(default_factory=dict)
    """Reason → some of the places that give no record, with what is wrong."""
    characters: dict[str, int] = field(default_factory=dict)
    """Length of records with text: min, 5 %, median, 95 %, max, total."""
    lengths: dict[str, Any] = field(default_factory=dict)
    """The same as a histogram, as in `statistics.json`; bytes of pictures and sounds."""
    measures: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Step → statistic → histogram, of steps with their defaults."""
    languages: dict[str, int] = field(default_factory=dict)
    """Records per language; per script where the language model is not at hand."""
    labels: dict[str, int] = field(default_factory=dict)
    """Records per label: the 50 most frequent."""
    duplicates: dict[str, float] = field(default_factory=dict)
    """Share of records that equal an earlier one; share of documents that nearly equal one (Jaccard ≥ 0.8)."""
    private: dict[str, int] = field(default_factory=dict)
    """Private data that a `privacy` step would replace, by kind."""
    would_drop: dict[str, int] = field(default_factory=dict)
    """Records that the usual steps would drop with their defaults, by rule."""
    would_drop_examples: dict[str, dict[str, str]] = field(default_factory=dict)
    """Rule → one of them: id, detail, text; private data replaced."""
    samples: list[dict[str, Any]] = field(default_factory=list)
    """Some records as they would be read, private data replaced."""
    suggestion: str = ""
    """Keys of a corpus step to paste into a recipe."""
    notes: list[str] = field(default_factory=list)
    """What could not be looked at, and why."""

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


def source_of(data: str, **given: Any) -> SourceConfig:
    """The source that a person means: a path, a pattern, an address, or a source as a recipe writes it (`{sql: ...}`).

    Raises UsageError when it is none.
    """
    from pydantic import ValidationError

    from wuxing.core.yaml import parse

    written: dict[str, Any] = {"files": data}
    if data.lstrip().startswith("{"):
        value = parse(data, "DATA")[0]
        written = value if isinstance(value, dict) else {}
    try:
        return SourceConfig.model_validate({**written, **{name: value for name, value in given.items() if value}})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        said = str(first["msg"]).removeprefix("Value error, ")
        raise UsageError(f"DATA is no source: {where + ': ' if where else ''}{said}", "See the readers page") from error


def inspect(source: SourceConfig | Path | str, context: Context | None = None, max_rows: int = READ_ROWS) -> Inspection:
    """Look at up to `max_rows` rows of a path or of a recipe's source.

    Languages are identified by the model that the `language` step uses, which is downloaded at the first use; where
    it cannot be had, scripts are counted and `notes` says so.  Raises WuxingError when the source cannot be reached.
    """
    from wuxing.source import open_source, rows_of
    from wuxing.source.fill import settled
    from wuxing.source.format import formats_of

    context = context or Context()
    settings = source if isinstance(source, SourceConfig) else source_of(str(source))
    settings, _ = settled(settings, context)
    origin = open_source(settings, context)
    seen, examined = _Seen(settings), Examined(context)
    rows = (row for part in origin.parts for row in rows_of(part, settings))
    whole = True
    for chunk in _chunks(seen, rows, max_rows):
        examined.add(chunk)
    if seen.rows >= max_rows or seen.bytes >= READ_BYTES:
        whole = next(rows, None) is None
    files = origin.card.get("files", {})
    found = Inspection(
        source=settings.label,
        formats=formats_of(origin.parts),
        files=len(files) or len(origin.parts),
        bytes=sum(files.values()) if isinstance(files, dict) else 0,
        rows=seen.rows,
        whole=whole,
        reading=seen.reading(),
        columns=seen.columns(),
        records=dict(seen.kinds.most_common()),
        not_read=seen.not_read,
        labels=dict(seen.labels.most_common(50)),
        samples=[_sample(record) for record in examined.redact(seen.samples())],
        **examined.found(),
    )
    found.suggestion = suggest(settings, found.reading, found.records, found.languages, found.private)
    return found


def _chunks(seen: _Seen, rows: Iterator[Any], max_rows: int) -> Iterator[list[Record]]:
    """Records, some at a time; rows that give none are only noted."""
    chunk: list[Record] = []
    size = 0
    for row in islice(rows, max_rows):
        made = seen.look(row)
        if isinstance(made, Record):
            chunk.append(made)
            size += _size(made)
        if len(chunk) >= CHUNK_ROWS or size >= CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
        if seen.bytes >= READ_BYTES:
            break
    if chunk:
        yield chunk


class _Seen:
    """What is noted row by row."""

    def __init__(self, settings: SourceConfig) -> None:
        from wuxing.source.fields import Mapper

        self.rows = self.bytes = 0
        self.kinds: Counter[str] = Counter()
        self.labels: Counter[str] = Counter()
        self.not_read: dict[str, list[dict[str, str]]] = {}
        self._settings, self._mapper = settings, Mapper(settings)
        self._first: dict[str, Any] | None = None
        self._present: Counter[str] = Counter()
        self._types: dict[str, Counter[str]] = {}
        self._sampled: list[tuple[int, int, Record]] = []

    def look(self, row: Any) -> Record | Drop:
        """Note a row; its record."""
        self.rows += 1
        made = row.value if isinstance(row.value, Record) else self._mapper.record(row)
        if isinstance(row.value, dict):
            self._first = self._first or row.value
            for name, item in row.value.items():
                if item not in (None, "", b""):
                    self._present[str(name)] += 1
                self._types.setdefault(str(name), Counter())[type(item).__name__] += 1
        if isinstance(made, Drop):
            self.kinds[f"not read: {made.reason}"] += 1
            places = self.not_read.setdefault(made.reason, [])
            if len(places) < NOT_READ_SHOWN:
                places.append({"place": cut(row.place, 200), "detail": cut(made.detail, 200)})
            return made
        self.kinds[kind_of(made)] += 1
        self.bytes += _size(made)
        if made.label is not None and (made.label in self.labels or len(self.labels) < 10_000):
            self.labels[made.label] += 1
        if made.liked is not None:
            self.labels["liked" if made.liked else "not liked"] += 1
        order = int.from_bytes(hashlib.sha256(made.id.encode("utf-8", "replace")).digest()[:8], "big")
        heapq.heappush(self._sampled, (-order, -self.rows, made))
        if len(self._sampled) > SHOWN_SAMPLES:
            heapq.heappop(self._sampled)
        return made

    def samples(self) -> list[Record]:
        """A uniform sample of the records, in the order in which they were read."""
        return [record for _, _, record in sorted(self._sampled, key=lambda item: -item[1])]

    def columns(self) -> dict[str, dict[str, Any]]:
        names = list(self._types)[:COLUMNS_SHOWN]
        return {
            name: {
                "present": round(self._present[name] / self.rows, 4),
                "missing": self.rows - self._present[name],
                "types": dict(self._types[name].most_common()),
            }
            for name in names
        }

    def reading(self) -> dict[str, str]:
        """The fields that were given, or those that were recognised in the first row."""
        from wuxing.source.fields import usual_fields
        from wuxing.source.medium import usual_media

        fields = self._settings.fields
        if fields is None and self._first is not None:
            fields = usual_media(self._first) or usual_fields(self._first)
        if fields is None:
            return {}
        return {name: value for name, value in fields.model_dump().items() if isinstance(value, str)}


def kind_of(record: Record) -> str:
    """`documents`, `dialogues`, `preferences`, `judged dialogues`, `pictures` or `sounds`."""
    if record.chosen is not None:
        return "preferences"
    if record.messages is not None:
        return "judged dialogues" if record.liked is not None else "dialogues"
    return "pictures" if record.image is not None else "sounds" if record.audio is not None else "documents"


def _size(record: Record) -> int:
    media = len(record.image or b"") + len(record.audio or b"")
    return media + len(record.text or "") + sum(len(m["content"]) for m in record.messages or ())


def _sample(record: Record) -> dict[str, Any]:
    facts = {"id": record.id, **({"label": record.label} if record.label else {})}
    if record.messages is not None:
        turns = [{**m, "content": cut(m["content"], SHOWN_CHARACTERS)} for m in record.messages[:6]]
        replies = {name: cut(v, SHOWN_CHARACTERS) for name in ("chosen", "rejected") if (v := getattr(record, name))}
        return {**facts, "messages": turns, **replies}
    for name in ("image", "audio"):
        if data := getattr(record, name):
            return {**facts, name: f"{len(data)} bytes"}
    return {**facts, "text": cut(record.text or "", SHOWN_CHARACTERS)}
