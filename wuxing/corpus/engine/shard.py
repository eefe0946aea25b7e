"""A shard: the cleaned records of some parts and the fate of every row, in one file that carries its own digest.

    8 bytes   the format's name
    32 bytes  SHA-256 of all that follows
    8 bytes   length of the header
    header    JSON: the parts in it, what the steps found, where each section lies
    sections  rows (Arrow), records (Arrow), keys, signatures (raw), samples (Arrow)

A file cut short or with a flipped byte does not fit its digest, and is made anew.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import pyarrow
    from numpy.typing import NDArray

MAGIC = b"WXSHARD1"
_HEAD = struct.Struct("<8s32sQ")


def rows_schema() -> pyarrow.Schema:
    """The columns that the rows of every shard have."""
    import pyarrow as pa

    text = [(name, pa.string()) for name in ("id", "fate", "detail")]
    return pa.schema([*text, ("step", pa.int16()), ("kind", pa.int8()), ("changed", pa.uint64())])


@dataclass(frozen=True)
class Held:
    """What a shard holds of one part."""

    key: str
    rows: tuple[int, int]
    """Its first row in the shard, and the one behind its last."""
    records: tuple[int, int]


@dataclass
class Shard:
    """A shard in memory."""

    parts: list[Held]
    rows: pyarrow.Table
    """id, fate ("" for a record that goes on), detail, step (that dropped it; -1 none, -2 it never was a record),
    kind (the view it stood in; -1 none), changed (a bit for each step), and a column `step:name` for each measure."""
    records: pyarrow.Table
    keys: NDArray[np.uint8]
    """Content key and split key of each record: 32 bytes."""
    signatures: NDArray[np.uint32] | None
    looks: NDArray[np.uint8] | None
    """View and signature of each picture and sound (`look.py`)."""
    samples: pyarrow.Table
    found: list[dict[str, int]] = field(default_factory=list)
    """What each step met, by kind."""
    fields: list[str] = field(default_factory=list)
    """Names of the fields of rows that lacked one."""
    lasting: bool = True
    """Whether another run may use it; not when a file could not be read, which may pass."""

    def pieces(self) -> list[bytes | memoryview]:
        """The file, in pieces to be written one after the other."""
        sections: dict[str, bytes | memoryview] = {
            "rows": _ipc(self.rows),
            "records": _ipc(self.records),
            "keys": _raw(self.keys),
            "signatures": _raw(self.signatures),
            "looks": _raw(self.looks),
            "samples": _ipc(self.samples),
        }
        header: dict[str, Any] = {
            "parts": [[held.key, *held.rows, *held.records] for held in self.parts],
            "found": self.found,
            "fields": self.fields,
            "lasting": self.lasting,
            "hashes": 0 if self.signatures is None else self.signatures.shape[1],
            "sections": {name: len(content) for name, content in sections.items()},
        }
        said = json.dumps(header, ensure_ascii=False).encode()
        body: list[bytes | memoryview] = [len(said).to_bytes(8, "little"), said, *sections.values()]
        digest = hashlib.sha256()
        for piece in body:
            digest.update(piece)
        return [MAGIC, digest.digest(), *body]

    def to_bytes(self) -> bytes:
        """The file."""
        return b"".join(self.pieces())


def _raw(values: NDArray[Any] | None) -> bytes | memoryview:
    """The bytes of an array, not copied."""
    import numpy as np

    return b"" if values is None or not values.size else np.ascontiguousarray(values).data.cast("B")


def _ipc(table: pyarrow.Table) -> memoryview:
    import pyarrow as pa

    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression="lz4", use_threads=False)
    with pa.ipc.new_stream(sink, table.schema, options=options) as writer:
        writer.write_table(table)
    return memoryview(sink.getvalue())


@dataclass(frozen=True)
class ShardFile:
    """A shard on disk, its header read."""

    path: Path
    header: dict[str, Any]
    start: int
    """Where the sections begin."""

    @classmethod
    def open(cls, path: Path) -> ShardFile | None:
        """None for what is no whole shard as far as header and length say."""
        try:
            with open(path, "rb") as file:
                head = file.read(_HEAD.size)
                if len(head) < _HEAD.size or not head.startswith(MAGIC):
                    return None
                length = _HEAD.unpack(head)[2]
                size = os.fstat(file.fileno()).st_size
                if length > size:
                    return None
                header = json.loads(file.read(length))
                found = cls(path, header, _HEAD.size + length)
                return found if found.start + sum(header["sections"].values()) == size else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def intact(self) -> bool:
        """Whether every byte is as it was written."""
        digest = hashlib.sha256()
        with open(self.path, "rb") as file:
            said = file.read(len(MAGIC) + 32)[len(MAGIC) :]
            while block := file.read(1 << 20):
                digest.update(block)
        return digest.digest() == said

    @cached_property
    def parts(self) -> list[Held]:
        """What it holds."""
        return [Held(key, (a, b), (c, d)) for key, a, b, c, d in self.header["parts"]]

    def place(self, section: str) -> tuple[int, int]:
        """Where a section begins in the file, and its length."""
        at = self.start
        for name, length in self.header["sections"].items():
            if name == section:
                return at, length
            at += length
        raise KeyError(section)

    def read(self, section: str) -> bytes:
        """A section's bytes.  Read, not mapped: mapped pages would count as this process's memory."""
        at, length = self.place(section)
        with open(self.path, "rb") as file:
            file.seek(at)
            return file.read(length)

    def table(self, section: str, columns: list[str] | None = None) -> pyarrow.Table:
        """An Arrow section, in one chunk; only some columns of it where they are named."""
        import pyarrow as pa

        raw = pa.py_buffer(self.read(section))
        options = pa.ipc.IpcReadOptions(use_threads=False)
        if columns is not None:
            names = pa.ipc.read_schema(raw).names
            options.included_fields = [names.index(name) for name in columns]
        with pa.ipc.open_stream(raw, options=options) as reader:
            return reader.read_all()

    @property
    def hashes(self) -> int:
        """Values in a signature; 0 without signatures."""
        return int(self.header["hashes"])
