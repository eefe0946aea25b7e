"""The store: signed versions under `<home>/<kind>/<name>/v<N>/`, written once, found by name or fingerprint."""

from __future__ import annotations

import fnmatch
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from wuxing.core.alias import AliasLog
from wuxing.core.artifact import Artifact, Reference
from wuxing.core.digest import digest_of_file, digest_of_files
from wuxing.core.error import UsageError, WuxingError, nearest
from wuxing.core.exchange import now
from wuxing.core.file import append_line, read_json, read_lines, remove_temporaries, sync, write_json
from wuxing.core.lease import lease, lock
from wuxing.core.step import Draft

RESERVED = {"cache", "deployments", "exchanges", "runs"}
"""Directories of a home that hold no artifacts."""
SLICE = ".slice.json"
"""In a draft: what decides its content, so that one which is left unfinished can be told from another."""
_ALWAYS_VOLATILE = ("evidence.json", "summary.json")
_VERSION = re.compile(r"v[1-9][0-9]*")


class Store:
    """One home.  Reading needs no lock: a directory without a record does not exist, and a signed one never changes."""

    def __init__(self, home: Path):
        self.home = home
        self.aliases = AliasLog(home / "aliases.jsonl")

    # ------------------------------------------------------------------------------------------------ finding
    def names(self) -> Iterator[tuple[str, str]]:
        """Every (kind, name) that has a directory."""
        if not self.home.is_dir():
            return
        for kind in sorted(self.home.iterdir()):
            if kind.is_dir() and kind.name not in RESERVED and not kind.name.startswith("."):
                yield from ((kind.name, name.name) for name in sorted(kind.iterdir()) if name.is_dir())

    def versions(self, kind: str, name: str) -> list[Artifact]:
        """All signed versions of a name, oldest first."""
        directory = self.home / kind / name
        if not directory.is_dir():
            return []
        signed = [p for p in directory.iterdir() if _VERSION.fullmatch(p.name) and (p / "record.json").exists()]
        return [self.load(path) for path in sorted(signed, key=lambda path: int(path.name[1:]))]

    def load(self, path: Path) -> Artifact:
        """Read a signed directory's record, with the acceptances that people gave it since."""
        try:
            record = read_json(path / "record.json")
            artifact = Artifact(path, record)
            identity = artifact.id
        except (ValueError, KeyError, TypeError) as error:
            raise WuxingError(
                f"the record of {path} is damaged ({error})", f"Remove that directory, then run again: rm -r {path}"
            ) from None
        accepted = [line for line in read_lines(self.home / "accepted.jsonl") if line["artifact"] == identity]
        if accepted:
            record["accepted"] = accepted[-1]
        return artifact

    def all(self) -> list[Artifact]:
        """Every signed version in the home."""
        return [artifact for kind, name in self.names() for artifact in self.versions(kind, name)]

    def find(self, text: str, kinds: Sequence[str] = ()) -> Artifact:
        """The artifact that a reference means; the newest version where it names none.

        Raises UsageError, with the nearest known name, when nothing or more than one thing fits.
        """
        reference = Reference.parse(text)
        if reference.alias:
            return self.find(self.aliases.resolve(reference.alias, reference.name))
        wanted = [reference.kind] if reference.kind else list(kinds)
        known = [(kind, name) for kind, name in self.names() if not wanted or kind in wanted]
        fitting = [(kind, name) for kind, name in known if name == reference.name and self.versions(kind, name)]
        if not fitting:
            names = {name for kind, name in known if self.versions(kind, name)}
            raise UsageError(f'nothing in {self.home} is called "{text}"', nearest(str(reference.name), names))
        if len(fitting) > 1:
            ids = " or ".join(f"{kind}/{name}" for kind, name in fitting)
            raise UsageError(f'"{text}" can mean {ids}', "Write the kind in front of the name")
        versions = self.versions(*fitting[0])
        if reference.version is None:
            return versions[-1]
        for artifact in versions:
            if artifact.version == reference.version:
                return artifact
        raise UsageError(f"{fitting[0][0]}/{fitting[0][1]} has no v{reference.version}", f"It has {_list(versions)}")

    def with_fingerprint(self, kind: str, name: str, fingerprint: str) -> Artifact | None:
        """The newest version of this name that was made from exactly this."""
        fitting = [artifact for artifact in self.versions(kind, name) if artifact.fingerprint == fingerprint]
        return fitting[-1] if fitting else None

    def drafts(self, kind: str, name: str) -> list[Path]:
        """What is being made under a name, or was when it was killed; the newest last."""
        return sorted((self.home / kind / name).glob(".partial-*"), key=lambda path: path.stat().st_mtime)

    # ------------------------------------------------------------------------------------------------ making
    @contextmanager
    def making(self, kind: str, name: str, fingerprint: str, seed: int, keep: bool) -> Iterator[Draft]:
        """The draft of a version, under the name's lease.  `keep`: what a killed attempt left is still in it."""
        directory = self.home / kind / name
        with lease(directory / ".lease", f"{kind}/{name}"):
            path = directory / f".partial-{fingerprint[:16]}"
            if path.exists() and not keep:
                shutil.rmtree(path)
            path.mkdir(exist_ok=True)
            remove_temporaries(path)
            yield Draft(path, kind, name, fingerprint, seed)

    def sign(self, draft: Draft, record: dict[str, Any], volatile: Sequence[str] = ()) -> Artifact:
        """Digest every file, write the record last, give the draft its version number.  All or nothing."""
        write_json(draft.path / "evidence.json", draft.evidence.to_json())
        write_json(draft.path / "summary.json", draft.summary)
        for name in ("record.json", SLICE):
            (draft.path / name).unlink(missing_ok=True)
        files = {}
        for path in sorted(p for p in draft.path.rglob("*") if p.is_file()):
            sync(path)
            files[path.relative_to(draft.path).as_posix()] = {
                "sha256": digest_of_file(path),
                "bytes": path.stat().st_size,
            }
        directory = draft.path.parent
        with lock(directory / ".lock"):
            signed = [int(p.name[1:]) for p in directory.iterdir() if _VERSION.fullmatch(p.name)]
            version = max([*signed, self._highest_pruned(directory)], default=0) + 1
            whole = {
                "kind": draft.kind,
                "name": draft.name,
                "version": version,
                "fingerprint": draft.fingerprint,
                "content": content_digest(files, volatile),
                **record,
                "summary": draft.summary,
                "files": files,
            }
            write_json(draft.path / "record.json", whole)
            final = directory / f"v{version}"
            os.replace(draft.path, final)
            sync(directory)
        return self.load(final)

    @staticmethod
    def _highest_pruned(directory: Path) -> int:
        pruned = read_lines(directory / ".pruned.jsonl")
        return max((int(line["version"]) for line in pruned), default=0)

    def accept(self, artifact: Artifact, reason: str, who: str) -> Artifact:
        """Record that a person lets an artifact go on although its evidence failed."""
        line = {"artifact": artifact.id, "reason": reason, "who": who, "time": now(), "failures": artifact.failures}
        append_line(self.home / "accepted.jsonl", line, sync=True)
        return self.load(artifact.path)

    # ------------------------------------------------------------------------------------------------ checking
    def damage(self, artifact: Artifact) -> list[str]:
        """What of a signed artifact is no longer as it was signed: missing, altered or added files; one line each."""
        found = {p.relative_to(artifact.path).as_posix() for p in artifact.path.rglob("*") if p.is_file()}
        lines = [f"{name} was added" for name in sorted(found - set(artifact.record["files"]) - {"record.json"})]
        for name, signed in artifact.record["files"].items():
            path = artifact.path / name
            if not path.exists():
                lines.append(f"{name} is missing")
            elif path.stat().st_size != signed["bytes"]:
                lines.append(f"{name} has {path.stat().st_size} bytes instead of {signed['bytes']}")
            elif digest_of_file(path) != signed["sha256"]:
                lines.append(f"{name} has other bytes than were signed")
        return lines

    def require_whole(self, artifact: Artifact) -> None:
        """Raise WuxingError when a byte of the artifact is not as it was signed."""
        damage = self.damage(artifact)
        if damage:
            raise WuxingError(
                f"{artifact.id} is damaged: {'; '.join(damage[:3])}",
                f"Restore {artifact.path} from a copy, or remove it and run again: rm -r {artifact.path}",
            )

    def require_evidence(self, artifact: Artifact, needed_by: str) -> None:
        """Raise the refusal with which the next stage does not start."""
        from wuxing.core.error import RefusedError

        if artifact.failures:
            raise RefusedError(
                f"{needed_by} does not start: {artifact.id} failed its evidence: {'; '.join(artifact.failures)}",
                f'See it with "wuxing show {artifact.id}"; mend the recipe, or go on with --accept "reason"',
            )


def content_digest(files: dict[str, dict[str, Any]], volatile: Sequence[str]) -> str:
    """The digest of the files that a child can see as content."""
    patterns = (*_ALWAYS_VOLATILE, *volatile)
    seen = {
        name: entry["sha256"]
        for name, entry in files.items()
        if not any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
    }
    return digest_of_files(seen)


def member_digest(artifact: Artifact, members: Sequence[str]) -> str:
    """What a child sees of its parent: the whole content, or only the named members."""
    if not members:
        return artifact.content
    files = {
        name: entry["sha256"]
        for name, entry in artifact.record["files"].items()
        if any(fnmatch.fnmatchcase(name, pattern) for pattern in members)
    }
    if not files:
        raise WuxingError(f"{artifact.id} has none of the files {', '.join(members)}")
    return digest_of_files(files)


def _list(versions: Sequence[Artifact]) -> str:
    return ", ".join(f"v{artifact.version}" for artifact in versions)
