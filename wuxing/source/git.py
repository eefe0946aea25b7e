"""Files of a git repository at one commit.  Objects are read by the `git` command; nothing is checked out or executed.

A commit is fetched shallowly into a bare repository of the cache; a directory of this machine is read where it is.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from wuxing.core.context import Context
from wuxing.core.digest import digest_of
from wuxing.core.error import UsageError, WuxingError
from wuxing.core.record import Drop
from wuxing.source.blob import MemoryBlob
from wuxing.source.config import SourceConfig
from wuxing.source.encoding import decode
from wuxing.source.format import read_part
from wuxing.source.programming import language_of, license_of
from wuxing.source.remote_config import GitSource
from wuxing.source.row import Origin, Part, Row
from wuxing.source.secret import filled, shown

FILES_PER_PART = 500
LFS_MARK = b"version https://git-lfs.github.com/spec/"
_LICENSE_FILE = re.compile(r"(licen[cs]e|copying|notice|unlicense)([._-].*)?", re.IGNORECASE)
_SAFE = ("-c", "core.hooksPath=/dev/null", "-c", "core.fsmonitor=false", "-c", "protocol.ext.allow=never")


@dataclass(frozen=True)
class Entry:
    """One file of a tree."""

    path: str
    mode: str
    object: str
    bytes: int


@dataclass(frozen=True)
class TreeBlob:
    """Some files of one commit, read together: one `git` process for all of them."""

    repository: Path
    entries: tuple[Entry, ...]
    max_file_bytes: int

    @property
    def name(self) -> str:
        """The first file's path."""
        return self.entries[0].path

    @property
    def bytes(self) -> int:
        """Of all its files."""
        return sum(entry.bytes for entry in self.entries)

    def digest(self) -> str:
        """Of paths, modes and object ids, which git itself derives from the contents."""
        return digest_of([[e.path, e.mode, e.object] for e in self.entries])


def read(source: SourceConfig, context: Context) -> Origin:
    """The files of the commit that the patterns choose, in git's order."""
    asked = _asked(source)
    repository, commit = _opened(asked, context)
    listing = _listing(repository, commit)
    entries = [entry for entry in listing if chosen(entry.path, asked.paths)]
    if not entries:
        raise WuxingError(
            f"no file of {shown(asked.repository)} at {commit[:12]} fits {', '.join(asked.paths)}",
            f"It holds {len(listing)} files, such as {', '.join(entry.path for entry in listing[:3])}",
        )
    groups = [tuple(entries[start : start + FILES_PER_PART]) for start in range(0, len(entries), FILES_PER_PART)]
    parts = [Part(TreeBlob(repository, group, asked.max_file_bytes), "git") for group in groups]
    card = {
        "git": shown(asked.repository),
        "revision": asked.revision,
        "commit": commit,
        "files": {entry.path: entry.bytes for entry in entries},
        "licenses": _licenses(repository, listing),
    }
    return Origin(parts, card)


def digest(source: SourceConfig, context: Context) -> str | None:
    """The commit; None when the recipe names it itself."""
    asked = _asked(source)
    if re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", asked.revision):
        return None
    return _opened(asked, context)[1]


def _asked(source: SourceConfig) -> GitSource:
    assert source.git is not None
    return source.git


def _opened(asked: GitSource, context: Context) -> tuple[Path, str]:
    """A repository of this machine that holds the revision, and the commit that it is."""
    if "://" not in asked.repository:
        place = Path(asked.repository).expanduser().absolute()
        if not place.is_dir():
            raise UsageError(f"There is no directory {asked.repository}", "Give a repository's directory or https URL")
        return place, _commit(place, asked.revision, asked)
    place = context.cache_directory / "git" / digest_of(asked.repository)[:16]
    if not (place / "HEAD").is_file():
        place.mkdir(parents=True, exist_ok=True)
        _git(None, "init", "--quiet", "--bare", str(place))
    if re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", asked.revision) and _holds(place, asked.revision):
        return place, asked.revision
    context.progress.say(f"  fetching {shown(asked.repository)} at {asked.revision}")
    kept = f"refs/wuxing/{digest_of(asked.revision)[:16]}"
    url = filled(asked.repository)
    fetch = ("fetch", "--quiet", "--depth=1", "--no-tags", "--no-recurse-submodules", "--force", "--", url)
    _git(place, *fetch, f"{asked.revision}:{kept}", asked=asked)
    return place, _commit(place, kept, asked)


def _holds(place: Path, commit: str) -> bool:
    """Whether the commit and all its objects are there."""
    command = ("rev-list", "--objects", "--quiet", "--max-count=1", "--missing=error", commit, "--")
    return _run(place, *command).returncode == 0


def _commit(place: Path, revision: str, asked: GitSource) -> str:
    done = _run(place, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
    if done.returncode:
        reason = _reason(done.stderr) or f"it has no revision {asked.revision}"
        raise WuxingError(f"{shown(asked.repository)} cannot be read: {reason}", "Give a commit, tag or branch of it")
    return done.stdout.decode().strip()


def _listing(place: Path, commit: str) -> list[Entry]:
    found = []
    for line in _git(place, "ls-tree", "-r", "-l", "-z", "--full-tree", commit).split(b"\0"):
        if line:
            facts, _, path = line.partition(b"\t")
            mode, _, name, size = facts.split()
            number = int(size) if size != b"-" else 0
            found.append(Entry(path.decode("utf-8", errors="backslashreplace"), mode.decode(), name.decode(), number))
    return found


def chosen(path: str, patterns: Sequence[str]) -> bool:
    """Whether a path fits one of the patterns, and none of those that begin with `!`."""
    wanted = [p for p in patterns if not p.startswith("!")] or ["**"]
    unwanted = [p[1:] for p in patterns if p.startswith("!")]
    return any(_pattern(p).fullmatch(path) for p in wanted) and not any(_pattern(p).fullmatch(path) for p in unwanted)


def _pattern(glob: str) -> re.Pattern[str]:
    """A glob as a regular expression: `*` within a directory, `**` over directories."""
    parts, place = [], 0
    while place < len(glob):
        if glob.startswith("**/", place):
            parts.append("(?:.*/)?")
            place += 3
        elif glob.startswith("**", place):
            parts.append(".*")
            place += 2
        else:
            parts.append({"*": "[^/]*", "?": "[^/]"}.get(glob[place], re.escape(glob[place])))
            place += 1
    return re.compile("".join(parts))


def _licenses(place: Path, listing: Sequence[Entry]) -> dict[str, str]:
    """The files that state a licence, and which it is as far as their words tell."""
    found = [entry for entry in listing if _LICENSE_FILE.fullmatch(PurePosixPath(entry.path).name)][:50]
    return {
        entry.path: license_of(_git(place, "cat-file", "blob", entry.object).decode("utf-8", errors="replace"))
        for entry in found
        if entry.bytes < 1 << 20
    }


def read_tree(part: Part, source: SourceConfig) -> Iterator[Row]:
    """The rows of some files: one text each, or with a `format` the rows that each holds."""
    blob: TreeBlob = part.blob
    command = ["git", *_SAFE, "-C", str(blob.repository), "cat-file", "--batch"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=_environment())
    assert process.stdin is not None and process.stdout is not None
    try:
        for entry in blob.entries:
            drop = _unfit(entry, blob.max_file_bytes)
            content = drop or _content(process.stdin, process.stdout, entry)
            yield from _rows(entry, content, source)
    finally:
        process.stdin.close()
        process.stdout.close()
        process.wait()


def _unfit(entry: Entry, most: int) -> Drop | None:
    if entry.mode == "160000":
        return Drop("submodule", f"commit {entry.object[:12]} of another repository")
    if entry.mode == "120000":
        return Drop("symbolic_link", "its target is read under its own name")
    return Drop("file_too_large", f"{entry.bytes} bytes") if entry.bytes > most else None


def _content(said: IO[bytes], told: IO[bytes], entry: Entry) -> bytes | Drop:
    """One object, asked of the running `git cat-file --batch`."""
    try:
        said.write(entry.object.encode() + b"\n")
        said.flush()
        head = told.readline().split()
        if len(head) != 3 or head[1] != b"blob":
            return Drop("missing_object", entry.object)
        size = int(head[2])
        content = told.read(size)
        told.read(1)
    except (BrokenPipeError, ValueError, OSError):
        return Drop("missing_object", entry.object)
    if len(content) != size:
        return Drop("missing_object", entry.object)
    return Drop("lfs_pointer", "its content lies outside the repository") if content.startswith(LFS_MARK) else content


def _rows(entry: Entry, content: bytes | Drop, source: SourceConfig) -> Iterator[Row]:
    if isinstance(content, Drop):
        yield Row(entry.path, content)
    elif source.format != "auto":
        yield from read_part(Part(MemoryBlob(entry.path, content), source.format), source)
    else:
        text = decode(content, source.encoding)
        facts = {
            "text": text,
            "path": entry.path,
            "programming_language": language_of(entry.path),
            "object": entry.object,
        }
        yield Row(entry.path, text if isinstance(text, Drop) else facts)


def _git(place: Path | None, *command: str, asked: GitSource | None = None) -> bytes:
    done = _run(place, *command, seconds=asked.timeout_seconds if asked else 600)
    if done.returncode:
        what = shown(asked.repository) if asked else str(place)
        raise WuxingError(
            f"git {command[0]} failed for {what}: {_reason(done.stderr) or 'no reason given'}",
            "Check the URL, the revision and the network",
        )
    return done.stdout


def _run(place: Path | None, *command: str, seconds: int = 600) -> subprocess.CompletedProcess[bytes]:
    where = ["-C", str(place)] if place else []
    whole = ["git", *_SAFE, *where, *command]
    try:
        return subprocess.run(whole, capture_output=True, timeout=seconds, env=_environment(), check=False)
    except FileNotFoundError as error:
        raise WuxingError("the command git is not installed", "Install git to read repositories") from error
    except subprocess.TimeoutExpired as error:
        raise WuxingError(f"git {command[0]} took more than {seconds} s", "Raise timeout_seconds") from error


def _environment() -> dict[str, str]:
    """No questions, no protocol but files and HTTPS, no variables that point git elsewhere."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    return {
        **kept,
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ALLOW_PROTOCOL": "file:https",
        "LC_ALL": "C",
        "GIT_LFS_SKIP_SMUDGE": "1",
    }


def _reason(stderr: bytes) -> str:
    """Git's own words without logins."""
    lines = [line for line in stderr.decode(errors="replace").splitlines() if line.strip()]
    telling = [line for line in lines if line.startswith(("fatal:", "error:"))] or lines
    return shown("; ".join(line.partition(": ")[2] or line for line in telling[:2]))[:300]
