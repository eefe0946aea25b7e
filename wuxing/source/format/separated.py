"""CSV and TSV as a stream: the delimiter and the quote are found, values stay texts, a broken row costs that row."""

from __future__ import annotations

import csv
import io
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

from wuxing.core.record import Drop
from wuxing.source.config import SourceConfig
from wuxing.source.row import Value, short
from wuxing.source.stream import Decoder, Lines, flaw_of, head_of, texts

DELIMITERS = (",", "\t", ";", "|")
SNIFFED_RECORDS = 50
MOST_OPEN_QUOTES = 8
"""So often a quote that is never closed is taken for a broken row and the lines behind it are read anew; then no more,
so that a hostile file costs a bounded number of readings."""
_END = "\x1e--end--\x1e\n"
"""Fed behind the last line: it must come out as a record of its own, else a quote is open."""


@dataclass(frozen=True)
class Dialect:
    """How a file separates its columns."""

    delimiter: str
    quote: str

    def reader(self, lines: Iterator[str]) -> Iterator[list[str]]:
        """The records of these lines."""
        if not self.quote:
            return csv.reader(lines, delimiter=self.delimiter, quoting=csv.QUOTE_NONE)
        return csv.reader(lines, delimiter=self.delimiter, quotechar=self.quote)

    def __str__(self) -> str:
        names = {"\t": "tab", ",": "comma", ";": "semicolon", "|": "bar"}
        return f"{names.get(self.delimiter, self.delimiter)}" + (f", quote {self.quote}" if self.quote != '"' else "")


def dialect_of(head: bytes, source: SourceConfig, usual: str, whole: bool = False) -> Dialect:
    """The dialect of a file that begins like this: what the recipe says, else what gives equally long records."""
    quote = '"' if source.quote is None else source.quote
    if source.delimiter:
        return Dialect(source.delimiter, quote)
    text = Decoder(source.encoding).feed(head)
    lines = text.splitlines(keepends=True)
    if len(lines) > 1 and not whole:
        lines.pop()  # it was cut
    if not lines or len(text) > csv.field_size_limit():
        return Dialect(usual, quote)
    delimiters = sorted(DELIMITERS, key=lambda mark: mark != usual)
    quotes = [quote] if source.quote is not None or '"' in text else ['"', "'"]
    tried = [Dialect(delimiter, mark) for mark in quotes for delimiter in delimiters]
    scores = [_evenness(dialect, lines) for dialect in tried]
    best = max(scores)
    return next(d for d, score in zip(tried, scores, strict=True) if score >= min(0.95, best))


def _evenness(dialect: Dialect, lines: list[str]) -> float:
    """The share of records that have as many columns as the first; 0 where that is one."""
    records = []
    try:
        for record in dialect.reader(iter(lines)):
            if record:
                records.append(len(record))
            if len(records) > SNIFFED_RECORDS:
                break
    except csv.Error:
        return 0.0
    if not records or records[0] < 2:
        return 0.0
    return sum(count == records[0] for count in records) / len(records)


class _OpenQuote(Exception):
    """A record that does not end within its limit, or not at all."""


class _TooLong(Exception):
    """A line beyond its limit."""


class _Feed:
    """Hands lines to the parser, and remembers those of the record that is being read."""

    def __init__(self, lines: Iterator[str | None], limit: int):
        self._lines, self._limit = lines, limit
        self._again: deque[str | None] = deque()
        self.taken: list[str] = []
        self.size = 0
        self.done = False

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        if self.done:
            raise StopIteration
        line = self._again.popleft() if self._again else next(self._lines, _END)
        if line is None or (self.taken and self.size + len(line) > self._limit):
            if self.taken:
                self._again.appendleft(line)
                raise _OpenQuote
            raise _TooLong
        self.taken.append(line)
        self.size += len(line)
        self.done = line is _END
        return line

    def next_record(self) -> None:
        """Forget the lines of the record before."""
        self.taken, self.size = [], 0

    def again(self, lines: list[str]) -> None:
        """Hand out these lines once more."""
        self._again.extendleft(reversed(lines))
        self.done = False
        self.next_record()


def _records(lines: Iterator[str | None], dialect: Dialect, limit: int) -> Iterator[list[str] | Drop]:
    """The records, and for each line that belongs to none the reason."""
    csv.field_size_limit(limit)
    feed, opened = _Feed(lines, limit), 0
    reader = dialect.reader(feed)
    while True:
        try:
            record = next(reader, None)
            if record is None or (feed.done and len(feed.taken) == 1):
                return
            if feed.done:
                raise _OpenQuote
        except _TooLong:
            yield Drop("line_too_long", f"more than {limit} characters (limits.line_bytes)")
            reader = dialect.reader(feed)
            continue
        except (_OpenQuote, csv.Error) as error:
            reason = Drop("broken_csv", short(error) if isinstance(error, csv.Error) else "a quote is never closed")
            opened += 1
            # The first line is at fault.  The others are read anew, or given up one by one.
            lost = [line for line in feed.taken if line is not _END]
            kept = 1 if opened <= MOST_OPEN_QUOTES else len(lost)
            feed.again(lost[kept:] + [_END] * feed.done)
            yield from [reason] * kept
            reader = dialect.reader(feed)
            continue
        flaw = next((found for line in feed.taken if (found := flaw_of(line))), None)
        feed.next_record()
        if record:
            yield flaw or record


def _read(stream: BinaryIO, source: SourceConfig, usual: str) -> Iterator[Value]:
    head, stream = head_of(stream)
    dialect = dialect_of(head, source, usual)
    lines = _lines(stream, source, head)
    number, names = 0, list(source.header) if source.header else None
    repeated: Drop | None = None
    for record in _records(lines, dialect, source.limits.line_bytes):
        if names is None:
            if isinstance(record, Drop):
                yield number, record
                number += 1
                continue
            names = record
            if len(set(names)) < len(names):
                repeated = Drop("broken_csv", f"two columns have one name: {', '.join(names)[:100]}")
            continue
        yield number, repeated or _row(record, names)
        number += 1


def _row(record: list[str] | Drop, names: list[str]) -> Any:
    if isinstance(record, Drop):
        return record
    if len(record) != len(names):
        return Drop("wrong_columns", f"{len(record)} columns, {len(names)} have names")
    return dict(zip(names, record, strict=True))


def _lines(stream: BinaryIO, source: SourceConfig, head: bytes) -> Iterator[str | None]:
    """The lines with their ends; a lone carriage return ends one too, as in files of old Macs."""
    newline = "\r" if b"\r" in head and b"\n" not in head else "\n"
    for line in Lines(texts(stream, source.encoding), newline, source.limits.line_bytes):
        if line is None or newline == "\r" or "\r" not in line[:-2]:
            yield line
        else:
            yield from io.StringIO(line, newline="")


def read_csv(stream: BinaryIO, source: SourceConfig) -> Iterator[Value]:
    yield from _read(stream, source, ",")


def read_tsv(stream: BinaryIO, source: SourceConfig) -> Iterator[Value]:
    yield from _read(stream, source, "\t")
