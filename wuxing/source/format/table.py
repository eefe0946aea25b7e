"""Formats of plain rows: text, JSON lines, JSON, YAML, CSV, TSV, Parquet."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

from wuxing.core.record import Drop
from wuxing.source.config import SourceConfig
from wuxing.source.encoding import decode
from wuxing.source.format.image import class_names, named
from wuxing.source.row import Value, short

LONGEST_FIELD_CHARACTERS = 1 << 30
ROWS_PER_BATCH = 1024


def read_text(stream: BinaryIO, source: SourceConfig) -> Iterator[Value]:
    text = decode(stream.read(), source.encoding)
    if isinstance(text, Drop):
        yield 0, text
    elif source.per == "file":
        yield 0, {"text": text}
    else:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
        pieces = text.split("\n\n") if source.per == "paragraph" else text.split("\n")
        yield from ((number, {"text": piece}) for number, piece in enumerate(p for p in pieces if p.strip()))


def read_jsonl(stream: BinaryIO, source: SourceConfig) -> Iterator[Value]:
    for number, line in enumerate(stream):
        if not line.strip():
            continue
        text = decode(line.rstrip(b"\r\n"), source.encoding)
        yield number, text if isinstance(text, Drop) else _parsed_json(text)


def _parsed_json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        return Drop("broken_json", short(error))


def read_json(stream: BinaryIO, source: SourceConfig) -> Iterator[Value]:
    text = decode(stream.read(), source.encoding)
    yield from _document(text if isinstance(text, Drop) else _parsed_json(text), source)


def read_yaml(stream: BinaryIO, source: SourceConfig) -> Iterator[Value]:
    import yaml

    text = decode(stream.read(), source.encoding)
    if isinstance(text, Drop):
        yield 0, text
        return
    loader = getattr(yaml, "CBaseLoader", yaml.BaseLoader)  # scalars stay texts: "Yes" must not turn into True
    try:
        document = yaml.load(text, Loader=loader)
    except (yaml.YAMLError, ValueError, RecursionError, AttributeError) as error:
        document = Drop("broken_yaml", short(error))
    yield from _document(document, source)


def _document(document: Any, source: SourceConfig) -> Iterator[Value]:
    """A list of rows, a mapping key → row, or one row."""
    if isinstance(document, Drop):
        yield 0, document
        return
    if source.rows is not None:
        inner = document.get(source.rows) if isinstance(document, dict) else None
        if inner is None:
            yield 0, Drop("no_rows", f"the document has no key {source.rows}")
            return
        document = inner
    if isinstance(document, list):
        yield from enumerate(document)
    elif isinstance(document, dict) and document and all(isinstance(value, dict) for value in document.values()):
        yield from enumerate({"key": key, **value} for key, value in document.items())
    else:
        yield 0, document


def read_separated(delimiter: str) -> Callable[[BinaryIO, SourceConfig], Iterator[Value]]:
    def parse(stream: BinaryIO, source: SourceConfig) -> Iterator[Value]:
        text = decode(stream.read(), source.encoding)
        if isinstance(text, Drop):
            yield 0, text
            return
        csv.field_size_limit(LONGEST_FIELD_CHARACTERS)
        lines = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
        number, names = 0, None
        try:
            for line in lines:
                if not line:
                    continue
                if names is None:
                    names = line
                    if len(set(names)) < len(names):
                        yield number, Drop("broken_csv", f"two columns have one name: {', '.join(names)[:100]}")
                        return
                    continue
                fits = len(line) == len(names)
                detail = f"{len(line)} columns, the first line names {len(names)}"
                yield number, dict(zip(names, line, strict=True)) if fits else Drop("wrong_columns", detail)
                number += 1
        except csv.Error as error:
            yield number, Drop("broken_csv", short(error))

    return parse


def read_parquet(stream: BinaryIO, source: SourceConfig) -> Iterator[Value]:
    yield from read_row_groups(stream, 0, None)


def read_row_groups(stream: BinaryIO, start: int, stop: int | None) -> Iterator[Value]:
    """The rows of the row groups from `start` to `stop`, numbered from 0."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        file = pq.ParquetFile(stream if stream.seekable() else io.BytesIO(stream.read()))
        groups = list(range(start, file.num_row_groups if stop is None else stop))
        names = class_names(file.schema_arrow)
        for batch in file.iter_batches(batch_size=ROWS_PER_BATCH, row_groups=groups):
            for row in batch.to_pylist():
                yield number, named(row, names) if names else row
                number += 1
    except (pa.ArrowException, ValueError) as error:
        yield number, Drop("broken_parquet", short(error))


read_csv = read_separated(",")
read_tsv = read_separated("\t")
