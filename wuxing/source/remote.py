"""Files that are not on this machine: HTTP, object stores, whatever else fsspec knows, and ZIP archives there.

`files: zip://*.csv::https://host/x.zip` reads members of an archive, as fsspec writes it.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote, unquote

from wuxing.core.context import Context
from wuxing.core.digest import digest_of, digest_of_file
from wuxing.core.error import WuxingError
from wuxing.source.blob import ZipBlob
from wuxing.source.config import SourceConfig
from wuxing.source.download import Known, Transfer, fetched, persistent
from wuxing.source.format import parts_of
from wuxing.source.package import zip_listing
from wuxing.source.row import Blob, Origin
from wuxing.source.secret import shown
from wuxing.source.store import StoreFile, listed_store
from wuxing.source.web import WebFile, fits, listed

QUESTIONS_AT_ONCE = 8
WEB = ("http", "https")


@dataclass(frozen=True)
class RemoteBlob:
    """One file elsewhere; it is downloaded when it is first opened."""

    name: str
    transfer: Transfer
    said: Known
    cache: Path

    @property
    def bytes(self) -> int:
        """As the server says; 0 when it does not."""
        return self.said.bytes or 0

    def local(self) -> Path:
        """The downloaded file."""
        return fetched(self.transfer, self.said, self.cache)

    def open(self) -> BinaryIO:
        """The downloaded file's content."""
        return open(self.local(), "rb")

    def digest(self) -> str:
        """ETag (or date) and size; the content's own digest where the server says neither."""
        return digest_of(["remote", self.name, self.said.identity])

    def beside(self, path: str) -> RemoteBlob:
        """A file of the same directory, for tables that name files."""
        place, mark, options = self.transfer.url.partition("?")
        root = place.rsplit("/", self.name.count("/") + 1)[0]
        inside = quote(path) if place.startswith(WEB) else path
        transfer = self.transfer.at(f"{root}/{inside}{mark}{options}")
        return RemoteBlob(path, transfer, persistent(transfer.known, transfer.url), self.cache)


def read(source: SourceConfig, context: Context) -> Origin:
    """The files that the URL names, in the order of their names: listed and asked for, not downloaded."""
    blobs = _blobs(source, context)
    card = {
        "url": shown(source.files or ""),
        "files": {blob.name: blob.bytes for blob in blobs},
        "versions": {blob.name: blob.said.tag for blob in blobs[:1000] if isinstance(blob, RemoteBlob)},
    }
    return Origin(parts_of(blobs, source), card)


def digest(source: SourceConfig, context: Context) -> str:
    """Digest of the files' names, ETags and sizes."""
    return digest_of([[blob.name, blob.digest()] for blob in _blobs(source, context)])


def _blobs(source: SourceConfig, context: Context) -> list[Blob]:
    assert source.files is not None
    *layers, place = source.files.split("::")
    found = _files(place, source, context)
    if not found:
        raise WuxingError(f"{shown(place)} holds no file", "Give a file, a directory that ends in /, or a pattern")
    if not layers:
        return list(found)
    if len(layers) > 1 or not layers[0].startswith("zip://"):
        raise WuxingError(
            f"{shown(source.files)} chains what is not read through a chain",
            "Write zip://PATTERN::URL; tar archives and packed files (.gz, .zst) need no chain",
        )
    pattern = layers[0].removeprefix("zip://")
    return [member for outer in found for member in _members(outer, pattern or "**")]


def _members(outer: RemoteBlob, pattern: str) -> list[ZipBlob]:
    """The members of an archive that fit; it is downloaded for its table of contents."""
    archive = outer.local()
    if not zipfile.is_zipfile(archive):
        raise WuxingError(f"{outer.name} is no ZIP archive", "Leave the chain away: its format is found by itself")
    every = list(zip_listing(archive))
    chosen = [blob for blob in every if fits(blob.name, pattern)]
    if not chosen:
        names = ", ".join(blob.name for blob in every[:3])
        raise WuxingError(f"{outer.name} has no member {pattern}", f"It holds {len(every)}, such as {names}")
    return sorted(chosen, key=lambda blob: blob.name)


def _files(place: str, source: SourceConfig, context: Context) -> list[RemoteBlob]:
    protocol = place.partition("://")[0]
    seconds = source.timeout_seconds
    pairs: list[tuple[str, Transfer]]
    if protocol in WEB:
        pairs = [(name, WebFile(url, seconds)) for name, url in listed(place, seconds)]
        with ThreadPoolExecutor(QUESTIONS_AT_ONCE) as pool:
            known = list(pool.map(lambda pair: persistent(pair[1].known, pair[1].url), pairs))
        told = [(name, transfer, said) for (name, transfer), said in zip(pairs, known, strict=True)]
    else:
        told = [(name, StoreFile(url), said) for name, url, said in listed_store(place)]
    return [_blob(unquote(name), transfer, said, context.cache_directory) for name, transfer, said in told]


def _blob(name: str, transfer: Transfer, said: Known, cache: Path) -> RemoteBlob:
    """A blob; where only the content can tell what it is, it is downloaded now."""
    if said.identity:
        return RemoteBlob(name, transfer, said, cache)
    path = fetched(transfer, said, cache)
    return RemoteBlob(name, Here(transfer.url, path), Known(path.stat().st_size, digest_of_file(path)), cache)


@dataclass(frozen=True)
class Here:
    """A file whose server does not say which version it sends: the one that was downloaded when it was listed."""

    url: str
    path: Path

    def known(self) -> Known:
        return Known(self.path.stat().st_size, "")

    def read(self, start: int, known: Known) -> Iterator[bytes]:
        with open(self.path, "rb") as file:
            file.seek(start)
            while block := file.read(1 << 20):
                yield block

    def at(self, url: str) -> Transfer:
        return WebFile(url)
