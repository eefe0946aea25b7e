"""Files of object stores: s3, gs and abfs through Arrow, which is here anyway; other protocols through fsspec.

Logins come from where each store's own tools look for them (AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL, a profile, ...).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from wuxing.core.error import UsageError, WuxingError
from wuxing.source.download import Changed, Known, Passing
from wuxing.source.row import NotThere, short
from wuxing.source.secret import filled, shown
from wuxing.source.web import fits

BLOCK_BYTES = 8 << 20
QUESTIONS_AT_ONCE = 8
ARROW = {"s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs", "abfs": "abfs", "abfss": "abfss", "az": "abfs"}


@dataclass(frozen=True)
class StoreFile:
    """One object."""

    url: str

    def known(self) -> Known:
        """Length, and version or ETag or date."""
        store = _store(self.url)
        try:
            return store.known(store.path)
        except FileNotFoundError as error:
            raise NotThere(f"{shown(self.url)} is not there", "Check the address") from error
        except OSError as error:
            raise Passing(short(error)) from error

    def read(self, start: int, known: Known) -> Iterator[bytes]:
        """The bytes from `start` on, block by block."""
        store = _store(self.url)
        try:
            if known.tag and start and store.known(store.path) != known:
                raise Changed("it changed while it was downloaded")
            yield from store.blocks(store.path, start)
        except FileNotFoundError as error:
            raise WuxingError(f"{shown(self.url)} is gone", "Run again, to list it anew") from error
        except OSError as error:
            raise Passing(short(error)) from error

    def at(self, url: str) -> StoreFile:
        """Another object."""
        return StoreFile(url)


class _Arrow:
    """A store that Arrow speaks to."""

    def __init__(self, url: str):
        import pyarrow as pa
        import pyarrow.fs

        protocol, _, rest = url.partition("://")
        try:
            if ARROW[protocol] == "s3":
                self.files, self.path = _s3(rest), rest.partition("?")[0]
            else:
                self.files, self.path = pyarrow.fs.FileSystem.from_uri(f"{ARROW[protocol]}://{rest}")
        except (pa.ArrowException, ValueError) as error:
            raise UsageError(f"{shown(url)} is no address of a store: {shown(short(error))}", "Check it") from error

    def known(self, path: str) -> Known:
        with self.files.open_input_stream(path) as stream:
            facts = {str(k, "utf-8") if isinstance(k, bytes) else k: v for k, v in (stream.metadata() or {}).items()}
        info = self.files.get_file_info(path)
        tag = facts.get("ETag") or facts.get("etag") or b""
        return Known(info.size, tag.decode() if isinstance(tag, bytes) else str(tag) or str(info.mtime_ns or ""))

    def below(self, path: str) -> list[str]:
        """The paths of all files in a directory, at any depth."""
        import pyarrow.fs as fs

        found = self.files.get_file_info(fs.FileSelector(path, recursive=True, allow_not_found=True))
        return [info.path for info in found if info.type == fs.FileType.File]

    def is_file(self, path: str) -> bool:
        import pyarrow.fs as fs

        return bool(self.files.get_file_info(path).type == fs.FileType.File)

    def blocks(self, path: str, start: int) -> Iterator[bytes]:
        with self.files.open_input_file(path) as file:
            file.seek(start)
            while block := file.read(BLOCK_BYTES):
                yield block


def _s3(rest: str) -> Any:
    """Arrow's S3, with the options that stand in the address; without a login where there is none."""
    import os
    from urllib.parse import parse_qsl

    import pyarrow.fs

    options: dict[str, Any] = dict(parse_qsl(rest.partition("?")[2]))
    unknown = set(options) - {"region", "endpoint_override", "scheme", "anonymous"}
    if unknown:
        raise ValueError(f"an S3 address has region, endpoint_override, scheme and anonymous, not {min(unknown)}")
    if "anonymous" in options:
        options["anonymous"] = options["anonymous"].lower() == "true"
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if endpoint and "endpoint_override" not in options:
        scheme, _, host = endpoint.rpartition("://")
        options |= {"endpoint_override": host.rstrip("/"), "scheme": scheme or "https"}
    return pyarrow.fs.S3FileSystem(connect_timeout=20, request_timeout=60, **options)


class _Fsspec:
    """A store that fsspec speaks to."""

    def __init__(self, url: str):
        import fsspec

        protocol = url.partition("://")[0]
        try:
            self.files, self.path = fsspec.core.url_to_fs(filled(url))
        except ImportError as error:
            needs = f"{protocol}:// needs another library: {short(error)}"
            raise UsageError(needs, "Install it beside wuxing") from error
        except ValueError as error:
            raise UsageError(f"{shown(url)} cannot be read: {shown(short(error))}", "Check the protocol") from error

    def known(self, path: str) -> Known:
        return _fsspec_known(self.files.info(path))

    def below(self, path: str) -> list[str]:
        return list(self.files.find(path))

    def is_file(self, path: str) -> bool:
        return bool(self.files.isfile(path))

    def blocks(self, path: str, start: int) -> Iterator[bytes]:
        with self.files.open(path, "rb") as file:
            file.seek(start)
            while block := file.read(BLOCK_BYTES):
                yield block


def _fsspec_known(info: dict[str, Any]) -> Known:
    names = (
        "ETag",
        "etag",
        "md5Hash",
        "content_md5",
        "generation",
        "last_modified",
        "LastModified",
        "mtime",
        "created",
    )
    tag = next((str(info[name]) for name in names if info.get(name)), "")
    return Known(info.get("size"), tag)


def _store(url: str) -> Any:
    return _Arrow(filled(url)) if url.partition("://")[0] in ARROW else _Fsspec(url)


def listed_store(url: str) -> list[tuple[str, str, Known]]:
    """(name, URL, what is known) of the objects that an address or pattern names, by name."""
    protocol, _, rest = url.partition("://")
    options = "?" + rest.partition("?")[2] if "?" in rest and protocol in ARROW else ""
    store = _store(url)
    whole = store.path.rstrip("/") if not re.search(r"[*\[]", store.path) else store.path
    try:
        if not re.search(r"[*\[]", whole) and store.is_file(whole):
            return [(whole.rsplit("/", 1)[-1], url, store.known(whole))]
        fixed = re.split(r"[*\[]", whole, maxsplit=1)[0]
        root = fixed.rsplit("/", 1)[0] if re.search(r"[*\[]", whole) else whole
        pattern = whole[len(root) :].lstrip("/") or "**"
        found = []
        for path in store.below(root):
            name = path[len(root) :].lstrip("/")
            if name and fits(name, pattern) and not any(part.startswith(".") for part in name.split("/")):
                found.append((name, path))
        with ThreadPoolExecutor(QUESTIONS_AT_ONCE) as pool:
            known = list(pool.map(lambda one: store.known(one[1]), found))
    except FileNotFoundError as error:
        raise WuxingError(f"{shown(url)} is not there", "Check the address") from error
    except PermissionError as error:
        raise WuxingError(f"{shown(url)} may not be read: {shown(short(error))}", "Check the login") from error
    except OSError as error:
        raise WuxingError(f"{shown(url)} cannot be listed: {shown(short(error))}", "Check address and login") from error
    urls = [f"{protocol}://{path.lstrip('/')}{options}" for _, path in found]
    return sorted(zip((name for name, _ in found), urls, known, strict=True), key=lambda one: one[0])
