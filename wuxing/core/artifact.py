"""Artifacts: signed directories of plain files, with a name, a version, a fingerprint, parents and evidence."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from wuxing.core.error import UsageError, WuxingError
from wuxing.core.evidence import Evidence

_REFERENCE = re.compile(
    r"(?:(?P<kind>[a-z][a-z0-9_-]*)/)?(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)?(?:@(?:v(?P<version>[0-9]+)|(?P<alias>[a-z][a-z0-9_-]*)))?"
)


@dataclass(frozen=True)
class Reference:
    """`[kind/]name[@vN|@alias]` or `@alias`: how people and recipes point at an artifact."""

    kind: str | None
    name: str | None
    version: int | None
    alias: str | None

    @classmethod
    def parse(cls, text: str) -> Reference:
        """Raises UsageError when `text` is no reference."""
        match = _REFERENCE.fullmatch(text)
        if not match or not (match["name"] or match["alias"]):
            raise UsageError(f'"{text}" does not name an artifact', "Write name, kind/name, name@v3 or name@production")
        version = int(match["version"]) if match["version"] else None
        return cls(match["kind"], match["name"], version, match["alias"])


@dataclass(frozen=True)
class Artifact:
    """A signed version in the store.  `path` holds its files; `record` is its `record.json`."""

    path: Path
    record: dict[str, Any]

    @property
    def kind(self) -> str:
        return str(self.record["kind"])

    @property
    def name(self) -> str:
        return str(self.record["name"])

    @property
    def version(self) -> int:
        return int(self.record["version"])

    @property
    def fingerprint(self) -> str:
        return str(self.record["fingerprint"])

    @property
    def content(self) -> str:
        """Digest of the files that decide what a child sees (logs and timings left out)."""
        return str(self.record["content"])

    @property
    def config(self) -> dict[str, Any]:
        return dict(self.record["config"])

    @property
    def parents(self) -> dict[str, str]:
        """Role → id of each parent."""
        return {role: parent["id"] for role, parent in self.record["parents"].items()}

    @property
    def id(self) -> str:
        """`model/chat@v3`."""
        return f"{self.kind}/{self.name}@v{self.version}"

    @cached_property
    def evidence(self) -> Evidence:
        return Evidence.load(self.path / "evidence.json")

    @property
    def failures(self) -> list[str]:
        """Why the next stage must refuse this artifact; empty when it may go on, or when a person accepted it."""
        return [] if self.record.get("accepted") else list(self.record["failures"])

    def file(self, name: str) -> Path:
        """The path of one of its files; WuxingError when the record does not list it."""
        if name not in self.record["files"]:
            raise WuxingError(
                f"{self.id} has no file {name}", f"It holds {', '.join(sorted(self.record['files'])[:12])}"
            )
        return self.path / name
