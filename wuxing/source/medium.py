"""Pictures and sounds in rows: which field holds one, where its bytes are when the row only names a file, its label."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from wuxing.core.digest import digest_of, digest_of_file
from wuxing.core.error import WuxingError
from wuxing.core.record import Drop
from wuxing.source.blob import FileBlob, TarBlob, ZipBlob
from wuxing.source.config import Fields, SourceConfig
from wuxing.source.format import SUFFIXES, read_part
from wuxing.source.format.image import MAX_FILE_BYTES
from wuxing.source.row import NotThere, Part, Row, short
from wuxing.source.segment import cut_sound

_KEYS = {
    "image": ("image", "img", "image_path", "file_name", "filename", "path"),
    "audio": ("audio", "audio_filepath", "audio_path", "wav", "file_name", "filename", "path"),
}
_NAMES = frozenset(name for names in _KEYS.values() for name in names)
_LABELS = ("label", "labels", "class", "category", "intent")
_WORDS = ("text", "sentence", "transcript", "transcription", "caption", "duration", "speaker")
TABLES = ("jsonl", "json", "csv", "tsv", "yaml")
"""Formats whose rows can only name a file, or hold it as base64."""
PATH = "<path>"
"""The key under which a row keeps the name of the file that was put into it."""
_FIELD = re.compile(r"\{([^{}]+)\}")


def usual_media(row: Mapping[str, Any]) -> Fields | None:
    """The reading of a row in which a usual name holds a picture or a sound; None when none does."""
    if _NAMES.isdisjoint(row):
        return None
    for kind, keys in _KEYS.items():
        if "text" in row:
            keys = keys[:-1]
        key = next((key for key in keys if _is_medium(row.get(key), kind)), None)
        if key is None:
            continue
        label = next((name for name in _LABELS if isinstance(row.get(name), str | int)), None)
        words = tuple(name for name in _WORDS if isinstance(row.get(name), str | int | float) and row[name] != "")
        return Fields.model_validate({kind: key, "label": label, "meta": words})
    return None


def _is_medium(value: Any, kind: str) -> bool:
    if isinstance(value, Mapping):
        inner, path = value.get("bytes"), value.get("path")
        return isinstance(inner, bytes) and (_kind_of(inner) in (kind, None) or _ends_as(path, kind))
    if isinstance(value, bytes):
        return _kind_of(value) == kind
    return _ends_as(value, kind)


def _ends_as(value: Any, kind: str) -> bool:
    return isinstance(value, str) and SUFFIXES.get(PurePosixPath(value.lower()).suffix) == kind


def _kind_of(data: bytes) -> str | None:
    """Image or audio by the first bytes; None when they are neither's."""
    if data[:4] == b"RIFF":
        return {b"WAVE": "audio", b"WEBP": "image"}.get(data[8:12])
    if data[:4] in (b"fLaC", b"OggS") or data[:3] == b"ID3" or (data[:1] == b"\xff" and data[1:2] >= b"\xe0"):
        return "image" if data[:3] == b"\xff\xd8\xff" else "audio"
    starts = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"BM", b"II*\x00", b"MM\x00*")
    return "image" if data.startswith(starts) else None


def bytes_of(value: Any, name: str) -> bytes | Drop:
    """The encoded file that a field holds: bytes, {bytes, path}, base64 (also as a data URL)."""
    if isinstance(value, Mapping):
        value = value.get("bytes") if value.get("bytes") is not None else value.get("path")
    if isinstance(value, Drop):
        return value
    if isinstance(value, bytes):
        return value if value else Drop("empty", f"{name} holds 0 bytes")
    if isinstance(value, str):
        text = value.partition(",")[2] if value.startswith("data:") else value
        try:
            return base64.b64decode(text, validate=True) or Drop("empty", f"{name} holds 0 bytes")
        except (binascii.Error, ValueError):
            return Drop("missing_file", f"{name} names {value[:100]}, which cannot be reached from its table")
    return Drop("no_bytes_in_field", f"{name} holds a {type(value).__name__}")


def label_of(row: Row, source: SourceConfig) -> str | Drop | None:
    """The label that a file's path says: by `label_pattern`, else the name of its directory."""
    path = row.value.get(PATH) or row.place.rpartition("#")[0] or row.place
    if source.label_pattern is not None:
        found = re.search(source.label_pattern, path)
        return Drop("no_label", "the path does not fit label_pattern") if found is None else found[1]
    parts = PurePosixPath(path).parts
    return parts[-2] if len(parts) > 1 and SUFFIXES.get(PurePosixPath(path.lower()).suffix) in _KEYS else None


def attached(rows: Iterator[Row], part: Part, source: SourceConfig) -> Iterator[Row]:
    """Rows in which a field that names a file beside the table holds the file's bytes."""
    if part.format not in (*TABLES, "parquet", "arrow") or (source.fields and not _asked(source.fields)):
        yield from rows
        return
    shelf = Shelf(part.blob.table if isinstance(part.blob, Manifest) else part.blob)
    for row in rows:
        fields = _fields(row, source)
        path = named_path(row.value, _asked(fields)) if fields else None
        if fields is None or path is None:
            yield row
            continue
        asked = _asked(fields)
        found = shelf.read(path)
        if fields.audio and isinstance(found, bytes) and "offset" in row.value and "duration" in row.value:
            found = cut_sound(found, row.value["offset"], row.value["duration"])
        yield Row(row.place, found if isinstance(found, Drop) else {**row.value, asked: found, PATH: path})


def _asked(fields: Fields) -> str:
    return fields.image or fields.audio or ""


def _fields(row: Row, source: SourceConfig) -> Fields | None:
    """How a row with a picture or a sound is read; None where it holds neither."""
    if not isinstance(row.value, Mapping):
        return None
    fields = source.fields or usual_media(row.value)
    return fields if fields and _asked(fields) else None


def named_path(row: Mapping[str, Any], asked: str) -> str | None:
    """The path that a row's field, or a template of fields, names; None when the bytes are in the row."""
    if _FIELD.search(asked):
        names = _FIELD.findall(asked)
        whole = all(isinstance(row.get(name), str | int) for name in names)
        return _FIELD.sub(lambda match: str(row[match[1]]), asked) if whole else None
    value = row.get(asked)
    if isinstance(value, Mapping):
        value = value.get("path") if value.get("bytes") is None else None
    if not isinstance(value, str) or value.startswith("data:"):
        return None
    return value if PurePosixPath(value.lower()).suffix in SUFFIXES else None


@dataclass(frozen=True)
class Shelf:
    """The files beside a table: of its directory, archive or server.  Nothing outside a container is reached."""

    table: Any

    def read(self, path: str) -> bytes | Drop:
        """The file's bytes, or why there are none."""
        try:
            stream = self._open(path)
            if stream is None:
                return Drop("missing_file", path[:200])
            with stream:
                data = stream.read(MAX_FILE_BYTES + 1)
        except NotThere:
            return Drop("missing_file", path[:200])
        except WuxingError:
            raise  # a server that cannot be reached says nothing about the file
        except (OSError, KeyError, ValueError) as error:
            return Drop("missing_file", f"{path[:120]}: {short(error)[:80]}")
        if len(data) > MAX_FILE_BYTES:
            return Drop("file_too_large", path[:200])
        return data if data else Drop("empty", f"{path[:200]} has 0 bytes")

    def _open(self, path: str) -> BinaryIO | None:
        """The stream of a file; None when it is not there.  A symbolic link or `..` out of a container is not."""
        table = self.table
        if isinstance(table, FileBlob):
            place = table.path.parent / path
            return open(place, "rb") if place.is_file() else None
        inner = _joined(table.name, path)
        if inner is None:
            return None
        if isinstance(table, ZipBlob):
            prefix = table.member[: -len(table.name)] if table.member.endswith(table.name) else ""
            return ZipBlob(inner, table.archive, prefix + inner, 0, 0).open()
        if isinstance(table, TarBlob):
            prefix = table.member[: -len(table.name)] if table.member.endswith(table.name) else ""
            return TarBlob(inner, table.archive, prefix + inner, 0).open()
        beside = getattr(table, "beside", None)
        return beside(inner).open() if beside is not None else None


def _joined(table: str, path: str) -> str | None:
    """The path of a file beside a table, inside their container; None when it would lead out of it."""
    if path.startswith("/") or "://" in path:
        return None
    parts: list[str] = list(PurePosixPath(table).parts[:-1])
    for piece in PurePosixPath(path).parts:
        if piece == "..":
            if not parts:
                return None
            parts.pop()
        else:
            parts.append(piece)
    return "/".join(parts)


@dataclass(frozen=True)
class Manifest:
    """A table of this machine together with the files that it names: their content is part of its identity."""

    table: FileBlob
    format: str
    source: SourceConfig

    @property
    def name(self) -> str:
        return self.table.name

    @property
    def bytes(self) -> int:
        return self.table.bytes

    def open(self) -> BinaryIO:
        return self.table.open()

    def digest(self) -> str:
        """Digest of the table and of each file that it names."""
        return digest_of([self.table.digest(), files_digest(self.table, self.format, self.source)])


def files_digest(table: FileBlob, format: str, source: SourceConfig) -> str:
    """Digest of the files that a table names, as its rows are read."""
    found: dict[str, str] = {}
    for row in read_part(Part(table, format), source):
        fields = _fields(row, source)
        path = named_path(row.value, _asked(fields)) if fields else None
        if path is not None and path not in found:
            place = Path(table.path.parent / path)
            found[path] = digest_of_file(place) if place.is_file() else "missing"
    return digest_of(found)


def with_media(parts: list[Part], source: SourceConfig) -> list[Part]:
    """The parts of a source on this machine; of tables that name files, with those in their identity."""
    tables = {part.blob.name: is_manifest(part, source) for part in parts if part.start == 0}
    return [
        replace(part, blob=Manifest(part.blob, part.format, source)) if tables.get(part.blob.name) else part
        for part in parts
    ]


def is_manifest(part: Part, source: SourceConfig) -> bool:
    """Whether the first row of a table names a picture or a sound."""
    if part.format not in TABLES or not isinstance(part.blob, FileBlob):
        return False
    if source.fields:
        return bool(_asked(source.fields))
    first = next(read_part(Part(part.blob, part.format, part.start, part.stop), source), None)
    fields = _fields(first, source) if first else None
    return fields is not None and first is not None and named_path(first.value, _asked(fields)) is not None
