"""DOCX, ODT and EPUB: XML inside a ZIP, walked as a stream.  No entity is resolved, nothing outside is opened."""

from __future__ import annotations

import io
import posixpath
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO
from urllib.parse import unquote
from xml.parsers import expat

from wuxing.core.record import Drop
from wuxing.source.config import SourceConfig
from wuxing.source.format.archive import BROKEN
from wuxing.source.format.html import page
from wuxing.source.format_config import HtmlOptions, Limits
from wuxing.source.row import Document, Value, short
from wuxing.source.stream import UNREADABLE, Budget, Counted, TooLarge, whole

_FACTS = {"title": "title", "creator": "author", "language": "language_stated", "created": "date", "date": "date"}
"""Dublin Core elements, and the names under which they become meta."""


class _Unsafe(Exception):
    """XML that declares entities, or nests too deep: the reason."""


class _Walk:
    """A walk through one XML document: local names of elements, bounded depth, no entities."""

    def __init__(self, limits: Limits):
        self._limits = limits
        self._parser = expat.ParserCreate(namespace_separator=" ")
        self._parser.buffer_text = True
        self._parser.StartElementHandler = self._start
        self._parser.EndElementHandler = self._end
        self._parser.CharacterDataHandler = self.characters
        self._parser.EntityDeclHandler = self._entity
        self.depth = 0

    def walk(self, stream: BinaryIO) -> None:
        """Read it all.  Raises _Unsafe, expat.ExpatError."""
        while piece := stream.read(1 << 16):
            self._parser.Parse(piece, False)
        self._parser.Parse(b"", True)

    def _entity(self, *declared: Any) -> None:
        raise _Unsafe("it declares entities")

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        self.depth += 1
        if self.depth > self._limits.depth:
            raise _Unsafe(f"more than {self._limits.depth} elements inside each other (limits.depth)")
        self.start(name.rpartition(" ")[2], {key.rpartition(" ")[2]: value for key, value in attributes.items()})

    def _end(self, name: str) -> None:
        self.depth -= 1
        self.end(name.rpartition(" ")[2])

    def start(self, name: str, attributes: dict[str, str]) -> None: ...

    def end(self, name: str) -> None: ...

    def characters(self, text: str) -> None: ...


class _Prose(_Walk):
    """The paragraphs of a word processor's document; cells of a table's row stand on one line, between tabs."""

    paragraphs = frozenset({"p", "h"})
    left_out = frozenset(
        {"del", "moveFrom", "instrText", "delText", "Fallback", "annotation", "tracked-changes", "tabs"}
    )
    """Deleted text, field codes, second versions of drawings, comments."""

    def __init__(self, limits: Limits, text: frozenset[str] | None):
        super().__init__(limits)
        self._text = text  # the elements that hold text; None: the paragraphs themselves
        self.pieces: list[str] = []
        self._size, self._open, self._skip, self._row, self._cells = 0, 0, 0, 0, 0

    def start(self, name: str, attributes: dict[str, str]) -> None:
        if self._skip or name in self.left_out:
            self._skip += 1
        elif name in ("tr", "table-row"):
            self._row, self._cells = self._row + 1, 0
        elif name in ("tc", "table-cell"):
            self._cells += 1
            if self._cells > 1:
                self._put("\t")
        elif name in (self._text or self.paragraphs):
            self._open += 1
        elif name == "tab":
            self._put("\t")
        elif name in ("br", "cr", "line-break"):
            self._put("\n")
        elif name == "s":
            self._put(" " * min(80, int(attributes["c"]) if attributes.get("c", "").isdigit() else 1))

    def end(self, name: str) -> None:
        if self._skip:
            self._skip -= 1
            return
        if name in ("tr", "table-row"):
            self._row -= 1
            self._put("\n")
        elif name in self.paragraphs:
            self._put(" " if self._row else "\n")
        if name in (self._text or self.paragraphs):
            self._open -= 1

    def characters(self, text: str) -> None:
        if self._open and not self._skip:
            self._put(text)

    def _put(self, text: str) -> None:
        self._size += len(text)
        if self._size > self._limits.document_bytes:
            raise TooLarge(f"more than {self._limits.document_bytes} characters (limits.document_bytes)")
        self.pieces.append(text)

    def text(self) -> str:
        """The paragraphs, one on each line."""
        return re.sub(r"[ \t]+\n", "\n", re.sub(r" *\t *", "\t", "".join(self.pieces))).strip("\n")


class _Facts(_Walk):
    """Title, author, language and date of a document."""

    def __init__(self, limits: Limits):
        super().__init__(limits)
        self.facts: dict[str, str] = {}
        self._name: str | None = None

    def start(self, name: str, attributes: dict[str, str]) -> None:
        self._name = _FACTS.get(name)

    def end(self, name: str) -> None:
        self._name = None

    def characters(self, text: str) -> None:
        if self._name and len(self.facts.get(self._name, "")) < 1000:
            self.facts[self._name] = (self.facts.get(self._name, "") + text).strip()


class _Package(_Facts):
    """An EPUB's list of chapters."""

    def __init__(self, limits: Limits):
        super().__init__(limits)
        self.items: dict[str, tuple[str, str]] = {}
        self.spine: list[str] = []

    def start(self, name: str, attributes: dict[str, str]) -> None:
        super().start(name, attributes)
        if name == "item":
            self.items[attributes.get("id", "")] = attributes.get("href", ""), attributes.get("media-type", "")
        elif name == "itemref":
            self.spine.append(attributes.get("idref", ""))


class _Root(_Walk):
    """Where an EPUB keeps its package."""

    path = ""

    def start(self, name: str, attributes: dict[str, str]) -> None:
        if name == "rootfile" and not self.path:
            self.path = attributes.get("full-path", "")


class _Container:
    """The ZIP around a document, with its bounds."""

    def __init__(self, archive: zipfile.ZipFile, packed_bytes: int, limits: Limits):
        self._archive, self._limits = archive, limits
        self._budget = Budget(packed_bytes, limits)
        self.names = set(archive.namelist())

    def open(self, name: str) -> BinaryIO:
        """A member.  Raises KeyError when there is none."""
        return Counted(self._archive.open(name), self._budget)  # type: ignore[return-value]

    def walk(self, name: str, walk: _Walk) -> Any:
        """Walk through a member, where there is one."""
        if name in self.names:
            with self.open(name) as stream:
                walk.walk(stream)
        return walk


Rows = Callable[[_Container, SourceConfig], Iterator[Value]]


def _reader(rows: Rows) -> Callable[[BinaryIO, SourceConfig], Iterator[Value]]:
    def read(stream: BinaryIO, source: SourceConfig) -> Iterator[Value]:
        try:
            raw = whole(stream, source.limits)
            with zipfile.ZipFile(io.BytesIO(raw)) as archive:
                if any(entry.flag_bits & 1 for entry in archive.infolist()):
                    yield 0, Drop("encrypted", "a password is needed")
                    return
                yield from rows(_Container(archive, len(raw), source.limits), source)
        except TooLarge as error:
            yield 0, Drop("too_large", short(error))
        except _Unsafe as error:
            yield 0, Drop("unsafe_xml", short(error))
        except expat.ExpatError as error:
            yield 0, Drop("broken_xml", short(error))
        except (*BROKEN, *UNREADABLE, KeyError, zlib.error) as error:
            yield 0, Drop("broken_file", short(error))

    return read


def _docx(container: _Container, source: SourceConfig) -> Iterator[Value]:
    texts = []
    for part in ("document", "footnotes", "endnotes"):
        name = f"word/{part}.xml"
        if part == "document" and name not in container.names:
            raise KeyError(f"there is no {name} in it")
        texts.append(container.walk(name, _Prose(source.limits, frozenset({"t"}))).text())
    facts = container.walk("docProps/core.xml", _Facts(source.limits)).facts
    yield 0, _row("\n\n".join(text for text in texts if text.strip()), facts)


def _odt(container: _Container, source: SourceConfig) -> Iterator[Value]:
    if "content.xml" not in container.names:
        raise KeyError("there is no content.xml in it")
    facts = container.walk("meta.xml", _Facts(source.limits)).facts
    yield 0, _row(container.walk("content.xml", _Prose(source.limits, None)).text(), facts)


def _epub(container: _Container, source: SourceConfig) -> Iterator[Value]:
    path = container.walk("META-INF/container.xml", _Root(source.limits)).path
    if path not in container.names:
        raise KeyError("its container names no package")
    package = container.walk(path, _Package(source.limits))
    sealed = ""
    if "META-INF/encryption.xml" in container.names:
        sealed = whole(container.open("META-INF/encryption.xml"), source.limits).decode("utf-8", "replace")
    options, chapters = HtmlOptions(main_content=False, links=source.html.links), []
    for number, reference in enumerate(package.spine):
        address, kind = package.items.get(reference, ("", ""))
        name = posixpath.normpath(posixpath.join(posixpath.dirname(path), unquote(address.partition("#")[0])))
        if "html" not in kind:
            continue
        if name and name in sealed:
            yield 0, Drop("encrypted", "its chapters are sealed")
            return
        if name not in container.names:
            made: Document | Drop = Drop("broken_file", f"chapter {address} is not there")
        else:
            with container.open(name) as stream:
                made = page(whole(stream, source.limits), source.encoding, options, source.limits)
        chapters.append((number, made))
    if source.per == "page":
        for number, made in chapters:
            title = {"chapter": made["title"]} if isinstance(made, Document) and "title" in made else {}
            yield number, made if isinstance(made, Drop) else _row(made["text"], {**package.facts, **title})
        return
    lost = next((made for _, made in chapters if isinstance(made, Drop) and made.reason != "no_text"), None)
    texts = [made["text"].strip() for _, made in chapters if isinstance(made, Document)]
    yield 0, lost or _row("\n\n".join(texts), {**package.facts, "chapters": len(texts)})


def _row(text: str, facts: dict[str, Any]) -> Document | Drop:
    return Document({**facts, "text": text}) if text.strip() else Drop("no_text", "pictures, or nothing")


read_docx, read_odt, read_epub = _reader(_docx), _reader(_odt), _reader(_epub)
