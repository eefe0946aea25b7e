"""JSON and YAML documents: a list of rows, a mapping key → row, or one row.  A JSON list is read as a stream."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, BinaryIO

from wuxing.core.record import Drop
from wuxing.source.config import SourceConfig
from wuxing.source.format.lines import Twice, doubtful, load_json, parse_json
from wuxing.source.row import Value, short
from wuxing.source.stream import flaw_of, texts, whole_text

_SPACE = re.compile(r"[ \t\r\n]*")
_DECODER = json.JSONDecoder()
NEAR_END_CHARACTERS = 16
"""An error so close to the end of what was read may be no error once more is read (`tru`, `1.5e`, `\\u4e`)."""
DEEPEST_YAML = 500


class _Text:
    """Text in blocks, of which only what is not yet parsed is held."""

    def __init__(self, blocks: Iterator[str], limit: int):
        self._blocks, self._limit = blocks, limit
        self.held, self.at, self.done = "", 0, False

    def more(self) -> bool:
        """Read on: as much again as is held, so that all retries together cost twice the text.  False at its end."""
        self.held, self.at = self.held[self.at :], 0
        wanted, pieces = max(1, len(self.held)), [self.held]
        while wanted > 0 and not self.done:
            block = next(self._blocks, None)
            if block is None:
                self.done = True
            else:
                pieces.append(block)
                wanted -= len(block)
        grown = len(pieces) > 1
        self.held = "".join(pieces)
        return grown

    def next(self) -> str:
        """The next character that is no space; empty at the end."""
        while True:
            match = _SPACE.match(self.held, self.at)
            assert match is not None
            self.at = match.end()
            if self.at < len(self.held):
                return self.held[self.at]
            if not self.more():
                return ""

    def value(self) -> tuple[str, Any]:
        """The next JSON value as it is written, and parsed; a Drop where it is broken or too large."""
        self.next()
        while True:
            try:
                value, end = _DECODER.raw_decode(self.held, self.at)
                if end < len(self.held) or self.done:
                    written, self.at = self.held[self.at : end], end
                    return written, value
                self.more()  # a number may go on
                continue
            except json.JSONDecodeError as error:
                cut = error.msg.startswith("Unterminated string") or error.pos >= len(self.held) - NEAR_END_CHARACTERS
                if not cut or self.done or not self.more():
                    return "", Drop("broken_json", short(error))
            except (ValueError, RecursionError) as error:
                return "", Drop("broken_json", short(error))
            if len(self.held) - self.at > self._limit:
                return "", Drop("too_large", f"one value of more than {self._limit} characters (limits.document_bytes)")


def read_json(stream: BinaryIO, source: SourceConfig) -> Iterator[Value]:
    text = _Text(texts(stream, source.encoding), source.limits.document_bytes)
    if text.next() == "\ufeff":
        text.at += 1
    if text.next() == "[" and source.rows is None:
        yield from _items(text)
        return
    written, value = text.value()
    if isinstance(value, Drop) or text.next() == "":
        flaw = flaw_of(written)
        yield from _document(value if isinstance(value, Drop) else flaw or load_json(written), source)
        return
    number = 0  # values one after the other: JSON lines under another name
    while True:
        yield number, value if isinstance(value, Drop) else flaw_of(written) or _row(written, value)
        if isinstance(value, Drop) or text.next() == "":
            return
        number += 1
        written, value = text.value()


def _items(text: _Text) -> Iterator[Value]:
    """The items of a list, one after the other; where it breaks, what was read stays."""
    text.at += 1
    number = 0
    if text.next() == "]":
        text.at += 1
    else:
        while True:
            written, value = text.value()
            if isinstance(value, Drop):
                rest = "; what follows is not read" if number or not text.done else ""
                yield number, Drop(value.reason, (value.detail + rest)[:200])
                return
            yield number, flaw_of(written) or _row(written, value)
            number += 1
            mark = text.next()
            text.at += 1
            if mark == "]":
                break
            if mark != ",":
                found = f'"{mark}" in place of a comma' if mark else "the list has no end"
                yield number, Drop("broken_json", f"{found}; what follows is not read" if mark else found)
                return
    if text.next():
        yield number, Drop("broken_json", "something follows the list, and is not read")


def _row(written: str, value: Any) -> Any:
    if isinstance(value, dict) and doubtful(written.encode("utf-8", errors="surrogatepass"), value):
        return parse_json(written)
    return value


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
        yield from ((number, _unique(item)) for number, item in enumerate(document))
    elif isinstance(document, dict) and document and all(isinstance(value, dict) for value in document.values()):
        pairs = document.pairs if isinstance(document, Twice) else list(document.items())
        for number, (key, value) in enumerate(pairs):
            row = _unique(value)
            yield number, row if isinstance(row, Drop) else {"key": key, **row}
    else:
        yield 0, _unique(document)


def _unique(value: Any) -> Any:
    return value.drop() if isinstance(value, Twice) else value


def read_yaml(stream: BinaryIO, source: SourceConfig) -> Iterator[Value]:
    """The rows of one document, or of several between `---`, one row each."""
    import yaml

    text = whole_text(stream, source.encoding, source.limits)
    if isinstance(text, Drop):
        yield 0, text
        return
    if _nesting(text) > DEEPEST_YAML:
        yield 0, Drop("too_deep", f"more than {DEEPEST_YAML} levels")
        return
    loader = getattr(yaml, "CBaseLoader", yaml.BaseLoader)  # scalars stay texts: "Yes" must not turn into True
    documents: list[Any] = []
    try:
        for node in yaml.compose_all(text, Loader=loader):
            documents.append(_plain(node, {}))
    except (yaml.YAMLError, ValueError, RecursionError, AttributeError) as error:
        documents.append(Drop("broken_yaml", short(error)))
    if len(documents) == 1:
        yield from _document(documents[0], source)
    else:
        yield from ((number, _unique(document)) for number, document in enumerate(documents))


def _nesting(text: str) -> int:
    """No document nests deeper than this: levels by brackets, and levels by indentation on one line or over many."""
    depth = deepest = 0
    for bracket in re.finditer(r"[\[{]|[\]}]", text):
        depth = depth + 1 if bracket[0] in "[{" else max(0, depth - 1)
        deepest = max(deepest, depth)
    dashes = max((len(run[0]) // 2 for run in re.finditer(r"(?:[-?:] ){50,}", text)), default=0)
    indent = max((len(run[0]) for run in re.finditer(rf"^ {{{DEEPEST_YAML},}}", text, re.MULTILINE)), default=0)
    return max(deepest, dashes, indent)


def _plain(node: Any, made: dict[int, Any]) -> Any:
    """A node's value; what is referred to twice stays one object, so that no reference grows the memory."""
    import yaml

    if node is None or isinstance(node, yaml.ScalarNode):
        return "" if node is None else node.value
    if id(node) in made:
        return made[id(node)]
    if isinstance(node, yaml.SequenceNode):
        items: list[Any] = []
        made[id(node)] = items
        items.extend(_plain(item, made) for item in node.value)
        return items
    pairs: list[tuple[str, Any]] = []
    value: dict[str, Any] = {}
    if not all(isinstance(name, yaml.ScalarNode) for name, _ in node.value):
        raise ValueError("a mapping whose key is no scalar")
    names: list[str] = [name.value for name, _ in node.value]
    if len(set(names)) < len(names):
        value = Twice()
        value.pairs = pairs
    made[id(node)] = value
    for name, (_, item) in zip(names, node.value, strict=True):
        pairs.append((name, _plain(item, made)))
    value.update(pairs)
    return value
