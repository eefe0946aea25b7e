"""API keys: 256 random bits each, kept as name and salted hash in `<home>/keys.json`, compared in constant time."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wuxing.core.error import UsageError, WuxingError, nearest
from wuxing.core.exchange import now
from wuxing.core.file import read_json, write_json
from wuxing.core.lease import lock

PREFIX = "wx-"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True)
class KeyEntry:
    """What the store knows of a key: never the key itself."""

    name: str
    salt: str
    sha256: str
    """SHA-256 over salt and key.  A fast hash is enough: the key is 256 random bits, not a password."""
    created: str

    def matches(self, key: str) -> bool:
        return hmac.compare_digest(self.sha256, _hash(self.salt, key))


def create_key(home: Path, name: str) -> str:
    """Add a key and return it: the only time that anybody sees it."""
    if not _NAME.fullmatch(name):
        raise UsageError(f'"{name}" is no name for a key', "Use letters, digits, dot, dash and underscore, at most 64")
    with lock(home / ".keys.lock"):
        entries = list_keys(home)
        if any(entry.name == name for entry in entries):
            raise UsageError(f'there is already a key "{name}"', "Choose another name, or revoke that key first")
        return _add(home, entries, name)


def ensure_key(home: Path, name: str = "first") -> str | None:
    """The first key of a home that has none; None when it has some."""
    with lock(home / ".keys.lock"):
        entries = list_keys(home)
        return None if entries else _add(home, entries, name)


def revoke_key(home: Path, name: str) -> None:
    """Take a key away; running servers refuse it from their next request on."""
    with lock(home / ".keys.lock"):
        entries = list_keys(home)
        if not any(entry.name == name for entry in entries):
            raise UsageError(f'there is no key "{name}"', nearest(name, [entry.name for entry in entries]))
        _write(home, [entry for entry in entries if entry.name != name])


def list_keys(home: Path) -> list[KeyEntry]:
    """The keys of a home, oldest first; WuxingError when `keys.json` is damaged."""
    path = home / "keys.json"
    if not path.exists():
        return []
    try:
        return [KeyEntry(**entry) for entry in read_json(path)["keys"]]
    except (ValueError, TypeError, KeyError) as error:
        raise WuxingError(f"{path} is damaged ({error})", "Move it away and create new keys") from error


@dataclass
class KeyRing:
    """The keys as a server sees them: read again whenever the file changes."""

    home: Path
    _entries: list[KeyEntry] = field(default_factory=list)
    _stamp: tuple[int, int, int] | None = None

    def name_of(self, key: str) -> str | None:
        """The name of a valid key, None for any other text.  A damaged or missing file makes every key invalid."""
        found = None
        for entry in self._current():
            if entry.matches(key):
                found = entry.name
        return found

    def holds(self, name: str) -> bool:
        """Whether a key of this name is still valid."""
        return any(entry.name == name for entry in self._current())

    def _current(self) -> list[KeyEntry]:
        try:
            status = (self.home / "keys.json").stat()
        except FileNotFoundError:
            self._entries, self._stamp = [], None
            return self._entries
        stamp = (status.st_mtime_ns, status.st_ino, status.st_size)
        if stamp != self._stamp:
            try:
                self._entries = list_keys(self.home)
            except WuxingError:
                self._entries = []
            self._stamp = stamp
        return self._entries


def _add(home: Path, entries: list[KeyEntry], name: str) -> str:
    key, salt = PREFIX + secrets.token_urlsafe(32), secrets.token_hex(16)
    _write(home, [*entries, KeyEntry(name, salt, _hash(salt, key), now())])
    return key


def _write(home: Path, entries: list[KeyEntry]) -> None:
    path = home / "keys.json"
    value: dict[str, Any] = {"keys": [vars(entry) for entry in entries]}
    write_json(path, value)
    path.chmod(0o600)


def _hash(salt: str, key: str) -> str:
    return hashlib.sha256(f"{salt}{key}".encode("utf-8", "surrogatepass")).hexdigest()
