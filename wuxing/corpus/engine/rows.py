"""The rows of a part as chunks of columns.

The common case – JSON lines or Parquet with a plain text – goes around `Row`, `Mapper` and `Record`, which cost ten
times as much as all the rest of reading; whatever is unusual about a row sends it through them, so that the result
is theirs in every case.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from wuxing.core.record import Drop, Record
from wuxing.corpus.clean.column import Columns
from wuxing.source.blob import MemoryBlob
from wuxing.source.config import Fields, SourceConfig
from wuxing.source.fields import Mapper, usual_fields
from wuxing.source.format import read_part
from wuxing.source.row import Part, Row

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

CHUNK_ROWS = 1024
CHUNK_BYTES = 8 << 20
_PIECE = re.compile(r"\{([^{}]+)\}")
_NOT_PLAIN = (b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"BZh", b"\xfd7zXZ", b"\xff\xfe", b"\xfe\xff", b"\xef\xbb\xbf")
_SEEN = r"[^\s\x{1c}-\x{1f}\x{85}\p{Z}]"
"""A character that Python does not call space either."""

Plain = tuple[str, dict[str, Any]]
"""The text and the facts of a plain document."""
Made = Plain | Record | tuple[Drop, bool]
"""What a row became; of a row that is none, the reason and whether it could not be read at all."""


@dataclass
class Chunk:
    """Some rows of one or more parts."""

    ids: list[str]
    """One for each row."""
    columns: Columns
    """The records among them."""
    rows: NDArray[np.int64]
    """The row of each record."""
    drops: dict[int, tuple[Drop, bool]]
    """Rows that are no record."""
    parts: list[tuple[int, int]]
    """(number of the part in its task, how many rows of it)."""


class Reader:
    """Reads the parts of one source."""

    def __init__(self, source: SourceConfig):
        self.source = source
        self.mapper = Mapper(source)
        self._given = plain_reader(source.fields) if source.fields else None
        self._shapes: dict[int, tuple[Fields, Callable[[Mapping[str, Any]], Plain | None] | None]] = {}

    def rows(self, part: Part) -> Iterator[tuple[str, Made]]:
        """Each row's id and what it became, in order."""
        from wuxing.source import rows_of

        for row in rows_of(part, self.source):
            yield self._id(row), self._made(row)

    def _id(self, row: Row) -> str:
        return row.value.id if isinstance(row.value, Record) else f"{self.source.label}/{row.place}"

    def _made(self, row: Row) -> Made:
        value = row.value
        if isinstance(value, Record):
            return value
        if isinstance(value, Drop):
            return value, not self.source.exchanges
        if type(value) is dict and (plain := self._plain(value)) is not None and _whole(plain):
            return plain
        made = self.mapper.record(row)
        return (made, False) if isinstance(made, Drop) else made

    def _plain(self, value: Mapping[str, Any]) -> Plain | None:
        """The document of a row that has nothing unusual; None where `Mapper` has to look at it."""
        if self.source.fields is not None:
            return self._given(value) if self._given else None
        fields = usual_fields(value)
        if fields is None:
            return None
        known = self._shapes.get(id(fields))
        if known is None:
            if len(self._shapes) > 100:
                self._shapes.clear()
            known = self._shapes[id(fields)] = fields, plain_reader(fields)  # it keeps `fields`, and so their id
        read = known[1]
        return read(value) if read else None

    # ------------------------------------------------------------------------------------------------ JSON lines
    def _lines(self, part: Part) -> bytes | None:
        """The bytes of a part that is plain lines of UTF-8, as far as its beginning says."""
        if getattr(part.blob, "path", None) is None or self.source.encoding not in ("auto", "utf-8"):
            return None
        if part.stop is None and part.blob.bytes > 4 * CHUNK_BYTES:
            return None
        try:
            with part.blob.open() as stream:
                stream.seek(part.start)
                raw: bytes = stream.read() if part.stop is None else stream.read(part.stop - part.start)
        except OSError:
            return None
        return None if not raw or raw.startswith(_NOT_PLAIN) else raw

    def _json(self, part: Part, raw: bytes, builder: _Builder) -> Iterator[Chunk]:
        import orjson

        before = f"{self.source.label}/{part.blob.name}#"
        loads, plain, limit = orjson.loads, self._plain, self.source.limits.line_bytes
        for number, line in enumerate(io.BytesIO(raw), part.first_row):
            made: Plain | None = None
            try:
                value = loads(line) if len(line) <= limit else None
                if type(value) is dict and (made := plain(value)) is not None and _repeats(line, value):
                    made = None
            except orjson.JSONDecodeError:
                pass  # the reader of the format says what is wrong with it, or reads what is only unusual
            if made is not None:
                builder.add_plain(f"{before}{number}", made)
            else:
                alone = Part(MemoryBlob(part.blob.name, line), part.format, first_row=number)
                for row in read_part(alone, self.source):
                    builder.add(self._id(row), self._made(row))
            if builder.full:
                yield builder.take()

    # ------------------------------------------------------------------------------------------------ chunks
    def chunks(self, parts: list[Part]) -> Iterator[Chunk]:
        """All rows of the parts, in chunks that bound the memory."""
        builder = _Builder(self.source.label)
        for number, part in enumerate(parts):
            direct = self._table(part)
            if direct is not None:
                if builder.ids:
                    yield builder.take()
                yield from self._texts(number, part, *direct)
                continue
            builder.begin(number)
            raw = self._lines(part) if part.format == "jsonl" else None
            if raw is not None:
                yield from self._json(part, raw, builder)
                continue
            for id, made in self.rows(part):
                builder.add(id, made)
                if builder.full:
                    yield builder.take()
        if builder.ids:
            yield builder.take()

    # ------------------------------------------------------------------------------------------------ Parquet
    def _table(self, part: Part) -> tuple[Any, str] | None:
        """The open file and its column, for Parquet of which one column of text is all that a record needs."""
        if part.format != "parquet" or getattr(part.blob, "path", None) is None:
            return None
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            file = pq.ParquetFile(part.blob.path, pre_buffer=False)
        except (pa.ArrowException, ValueError, OSError):
            return None
        names = file.schema_arrow.names
        fields = self.source.fields or usual_fields(dict.fromkeys(names, ""))
        if fields is None or fields.text not in names or fields != Fields(text=fields.text):
            return None
        assert fields.text is not None
        kind = file.schema_arrow.field(fields.text).type
        return (file, fields.text) if pa.types.is_string(kind) or pa.types.is_large_string(kind) else None

    def _texts(self, number: int, part: Part, file: Any, name: str) -> Iterator[Chunk]:
        import numpy as np
        import pyarrow as pa
        import pyarrow.compute as pc

        groups = list(range(part.start, file.num_row_groups if part.stop is None else part.stop))
        before, first, whole = f"{self.source.label}/{part.blob.name}#", part.first_row, _Again(self, part)
        try:
            for batch in file.iter_batches(CHUNK_ROWS, row_groups=groups, columns=[name], use_threads=False):
                texts = batch.column(0)
                if pa.types.is_large_string(texts.type):
                    texts = texts.cast(pa.string())
                if texts.null_count or not pc.all(pc.match_substring_regex(texts, _SEEN)).as_py():
                    yield whole.chunk(number, first - part.first_row, len(texts))
                else:
                    ids = [f"{before}{row}" for row in range(first, first + len(texts))]
                    columns = Columns.of_texts(self.source.label, ids, texts, None)
                    yield Chunk(ids, columns, np.arange(len(texts)), {}, [(number, len(texts))])
                first += len(texts)
        except (pa.ArrowException, ValueError, OSError):
            yield whole.chunk(number, first - part.first_row, None)  # its reader says what is broken


class _Again:
    """The rows of a part read once more by its format's reader, from one row to another."""

    def __init__(self, reader: Reader, part: Part):
        self._reader, self._part, self._at = reader, part, 0
        self._rows: Iterator[tuple[str, Made]] | None = None

    def chunk(self, number: int, start: int, count: int | None) -> Chunk:
        self._rows = self._rows or self._reader.rows(self._part)
        builder = _Builder(self._reader.source.label)
        builder.begin(number)
        for id, made in self._rows:
            self._at += 1
            if self._at > start:
                builder.add(id, made)
            if count is not None and self._at == start + count:
                break
        return builder.take()


class _Builder:
    """Gathers rows into chunks."""

    def __init__(self, label: str):
        self.label = label
        self._part = 0
        self._clear()

    def _clear(self) -> None:
        self.ids: list[str] = []
        self.bytes = 0
        self.texts: list[str] = []
        self.meta: list[dict[str, Any]] = []
        self.rows: list[int] = []
        self.records: dict[int, Record] = {}
        self.drops: dict[int, tuple[Drop, bool]] = {}
        self._begun: list[tuple[int, int]] = [(self._part, 0)]

    @property
    def full(self) -> bool:
        return len(self.ids) >= CHUNK_ROWS or self.bytes >= CHUNK_BYTES

    def begin(self, part: int) -> None:
        """The rows that come now are those of this part."""
        self._part = part
        self._begun.append((part, len(self.ids)))

    def add_plain(self, id: str, plain: Plain) -> None:
        self.rows.append(len(self.ids))
        self.ids.append(id)
        self.texts.append(plain[0])
        self.meta.append(plain[1])
        self.bytes += len(plain[0])

    def add(self, id: str, made: Made) -> None:
        if isinstance(made, Record):
            self.records[len(self.rows)] = made
            self.bytes += _bytes(made)
            self.rows.append(len(self.ids))
            self.ids.append(id)
            self.texts.append("")
            self.meta.append({})
        elif isinstance(made[0], str):
            self.add_plain(id, made)
        else:
            self.drops[len(self.ids)] = made
            self.ids.append(printable(id))

    def take(self) -> Chunk:
        import numpy as np
        import pyarrow as pa

        ids = self.ids if len(self.rows) == len(self.ids) else [self.ids[row] for row in self.rows]
        if not self.records:
            texts = pa.array(self.texts, pa.string())
            columns = Columns.of_texts(self.label, ids, texts, self.meta if any(self.meta) else None)
        else:
            plain = zip(ids, self.texts, self.meta, strict=True)
            columns = Columns.of(
                [
                    self.records[place] if place in self.records else Record(id, self.label, text=text, meta=meta)
                    for place, (id, text, meta) in enumerate(plain)
                ]
            )
        ends = [*(start for _, start in self._begun[1:]), len(self.ids)]
        spans = [(part, end - start) for (part, start), end in zip(self._begun, ends, strict=True) if end > start]
        chunk = Chunk(self.ids, columns, np.array(self.rows, np.int64), self.drops, spans)
        self._clear()
        return chunk


def plain_reader(fields: Fields) -> Callable[[Mapping[str, Any]], Plain | None] | None:
    """A reader of rows whose record is a text and its facts; it answers None for a row with anything unusual."""
    if fields.text is None or set(fields.model_dump(exclude_defaults=True)) - {"text", "meta"}:
        return None
    pieces = _PIECE.split(fields.text)
    template = len(pieces) > 1
    if not template and not fields.meta:
        return _text_reader(fields.text)
    names = pieces[1::2] if template else [fields.text]

    def read(row: Mapping[str, Any]) -> Plain | None:
        meta: dict[str, Any] = {}
        for name in fields.meta:
            value = row.get(name)
            if type(value) is int or type(value) is bool or (type(value) is str and value and not value.isspace()):
                meta[name] = value
            else:
                return None
        values = []
        for name in names:
            value = row.get(name)
            if type(value) is not str or not value or value.isspace():
                return None
            values.append(value)
        if not template:
            return values[0], meta
        parts = list(pieces)
        parts[1::2] = values
        return "".join(parts).strip(), meta

    return read


def _text_reader(name: str) -> Callable[[Mapping[str, Any]], Plain | None]:
    """The commonest of all: one field, as it is."""
    nothing: dict[str, Any] = {}

    def read(row: Mapping[str, Any]) -> Plain | None:
        value = row.get(name)
        return (value, nothing) if type(value) is str and value and not value.isspace() else None

    return read


def _repeats(line: bytes, value: dict[str, Any]) -> bool:
    """Whether an object may name one key twice, which its parser does not tell: it has more quotes than what it holds.

    Two for each key and text; an escaped one counts besides.  True also where that cannot be told so easily.
    """
    wanted = len(value)
    for inner in value.values():
        if type(inner) is str:
            wanted += 1
        elif type(inner) is dict or type(inner) is list:
            wanted += _texts(inner)
    quotes, wanted = line.count(b'"'), 2 * wanted
    return quotes != wanted and (b'\\\\"' in line or quotes - line.count(b'\\"') != wanted)


def _texts(value: Any) -> int:
    """Keys and texts in a parsed value, at any depth."""
    if type(value) is str:
        return 1
    if type(value) is dict:
        return len(value) + sum(map(_texts, value.values()))
    return sum(map(_texts, value)) if type(value) is list else 0


def _whole(plain: Plain) -> bool:
    """Whether no text holds half of a surrogate pair."""
    try:
        plain[0].encode()
        for value in plain[1].values():
            if isinstance(value, str):
                value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _bytes(record: Record) -> int:
    said = sum(len(turn["content"]) for turn in record.messages or ())
    return said + sum(len(value) for value in (record.text, record.image, record.audio) if value is not None)


def printable(text: str) -> str:
    """Text that a file can keep, whatever the row held."""
    return text.encode("utf-8", errors="backslashreplace").decode("utf-8")
