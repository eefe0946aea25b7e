"""JSON lines: one row for each line.  A broken line costs that line."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO

from wuxing.core.record import Drop
from wuxing.source.config import SourceConfig
from wuxing.source.encoding import MARKS, decode
from wuxing.source.row import Value, short
from wuxing.source.stream import Lines, blocks, flaw_of, head_of, texts

_WIDE = tuple(mark for mark, name in MARKS if name != "utf-8-sig")
_LARGEST_INTEGER = 2.0**63


def read_jsonl(stream: BinaryIO, source: SourceConfig) -> Iterator[Value]:
    limit = source.limits.line_bytes
    head, stream = head_of(stream, 4)
    lines: Iterable[bytes | str | None] = Lines(blocks(stream), b"\n", limit)
    if head.startswith(_WIDE) or source.encoding not in ("auto", "utf-8", "ascii"):
        lines = Lines(texts(stream, source.encoding), "\n", limit)
    for number, line in enumerate(lines):
        if line is None:
            yield number, Drop("line_too_long", f"more than {limit} bytes (limits.line_bytes)")
        elif line and not line.isspace():
            yield number, parse_line(line, source.encoding)


def parse_line(line: bytes | str, encoding: str = "auto") -> Any:
    """The value of one line of JSON, or a Drop: broken, not text, or with a field that stands twice."""
    import orjson

    if isinstance(line, str):
        if flaw := flaw_of(line):
            return flaw
        line = line.encode("utf-8", errors="surrogatepass")
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError:
        return _parse_slowly(line, encoding)
    return _parse_slowly(line, encoding) if type(value) is dict and doubtful(line, value) else value


def doubtful(line: bytes, value: dict[str, Any]) -> bool:
    """Whether a field may stand twice, or a number may have lost digits: then the slow parser has the last word."""
    for item in value.values():
        if type(item) is float and not -_LARGEST_INTEGER < item < _LARGEST_INTEGER:
            return True
    # Each name is followed by a colon, so as many of them as there are fields leave no room for a second one.
    if line.count(b'":') == len(value) and b'" :' not in line and b'"\t:' not in line:
        return False
    for name in value:
        if line.count(b'"%s"' % name.encode("utf-8", errors="surrogatepass")) != 1:
            return True
    return b"\\u00" in line


def _parse_slowly(line: bytes, encoding: str) -> Any:
    text = decode(line.rstrip(b"\r\n"), encoding)
    return text if isinstance(text, Drop) else parse_json(text)


class Twice(dict[str, Any]):
    """A JSON object in which a name stands twice."""

    pairs: list[tuple[str, Any]]

    def drop(self) -> Drop:
        """The fate of a row that is such an object: nobody can say which value is meant."""
        names = [name for name, _ in self.pairs]
        return Drop("duplicate_keys", ", ".join(sorted({name for name in names if names.count(name) > 1}))[:200])


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) == len(pairs):
        return found
    twice = Twice(found)
    twice.pairs = pairs
    return twice


def load_json(text: str) -> Any:
    """The value of a JSON text, with `Twice` for objects that repeat a name; a Drop when it is broken."""
    try:
        return json.loads(text, object_pairs_hook=_object)
    except (ValueError, RecursionError) as error:
        return Drop("broken_json", short(error))


def parse_json(text: str) -> Any:
    """The row of a JSON text, or a Drop."""
    value = load_json(text)
    return value.drop() if isinstance(value, Twice) else value
