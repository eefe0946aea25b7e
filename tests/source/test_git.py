"""Git repositories: the files of one commit, whatever stands in them, and nothing of them executed."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from wuxing.core.context import Context
from wuxing.core.error import UsageError, WuxingError
from wuxing.source import open_source, rows_in, source_digest
from wuxing.source.config import SourceConfig
from wuxing.source.fields import Mapper
from wuxing.source.git import chosen

WHO = {f"GIT_{role}_{what}": "x@example.org" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}


def git(place: Path, *command: str) -> str:
    environment = {**os.environ, **WHO}
    done = subprocess.run(
        ["git", "-C", str(place), *command], capture_output=True, text=True, env=environment, check=True
    )
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    place = tmp_path / "project"
    (place / "src" / "deep").mkdir(parents=True)
    git(place.parent, "init", "-q", "-b", "main", str(place))
    (place / "src" / "a.py").write_text("print('häßlich')\n", encoding="utf-8")
    (place / "src" / "deep" / "b.rs").write_text("fn main() {}\n")
    (place / "src" / "latin.c").write_bytes("/* Grüße aus der alten Zeit, schön und kräftig */\n".encode("latin-1"))
    (place / "picture.png").write_bytes(b"\x89PNG\r\n\x1a\n\0\0")
    (place / "big.txt").write_text("x" * 3000)
    (place / "big.bin").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    (place / "LICENSE").write_text("Permission is hereby granted, free of charge, to any person obtaining a copy\n")
    (place / "link.py").symlink_to("/etc/passwd")
    (place / "odd name\t好.md").write_text("# 好\n", encoding="utf-8")
    git(place, "add", "-A")
    git(place, "commit", "-q", "-m", "one")
    git(place, "tag", "v1")
    return place


def source(repository: Path | str, **more: object) -> SourceConfig:
    return SourceConfig.model_validate({"git": {"repository": str(repository), "max_file_bytes": 2000, **more}})


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_each_file_is_a_row_with_its_language_or_a_reason(repository: Path, tmp_path: Path, scheme: str) -> None:
    asked, context = source(f"{scheme}{repository}"), Context(home=tmp_path)
    rows = {row.place: row for row in rows_in(asked, context)}
    reasons = {place: row.value.reason for place, row in rows.items() if row.unreadable}
    assert reasons == {
        "big.txt": "file_too_large",
        "big.bin": "lfs_pointer",
        "link.py": "symbolic_link",
        "picture.png": "binary",
    }
    mapper = Mapper(asked)
    record = mapper.record(rows["src/a.py"])
    assert record.text == "print('häßlich')\n"  # type: ignore[union-attr]
    assert record.meta == {"path": "src/a.py", "programming_language": "python"}  # type: ignore[union-attr]
    assert "Grüße" in rows["src/latin.c"].value["text"] and "odd name\t好.md" in rows
    assert rows["src/a.py"].value["object"] == git(repository, "rev-parse", "v1:src/a.py")
    card = open_source(asked, context).card
    assert card["commit"] == git(repository, "rev-parse", "v1") and card["licenses"] == {"LICENSE": "MIT"}


def test_patterns() -> None:
    assert chosen("a.py", ["**"]) and chosen("x/y/a.py", ["**/*.py"]) and chosen("a.py", ["**/*.py"])
    assert not chosen("x/a.py", ["*.py"]) and chosen("src/x/a.py", ["src/**"]) and not chosen("srcx/a.py", ["src/**"])
    assert not chosen("tests/a.py", ["**/*.py", "!tests/**"]) and chosen("a+b.py", ["a+b.p?"])
    assert not chosen("tests/a.py", ["!tests/**"]) and chosen("a.py", ["!tests/**"])


def test_a_revision_pins_and_a_branch_moves(repository: Path, tmp_path: Path) -> None:
    context = Context(home=tmp_path)
    first = git(repository, "rev-parse", "HEAD")
    (repository / "src" / "a.py").write_text("print(2)\n")
    assert source_digest(source(repository), context) == first  # what is not committed is not read
    git(repository, "commit", "-q", "-am", "two")
    for place in (repository, f"file://{repository}"):
        assert source_digest(source(place, revision="main"), context) == git(repository, "rev-parse", "HEAD")
        assert source_digest(source(place, revision=first), context) is None
        old = {row.place: row.value for row in rows_in(source(place, revision="v1", paths=["src/*.py"]), context)}
        assert list(old) == ["src/a.py"] and "häßlich" in old["src/a.py"]["text"]


def test_a_pinned_commit_that_was_fetched_needs_no_network(repository: Path, tmp_path: Path) -> None:
    first = git(repository, "rev-parse", "HEAD")
    git(repository, "config", "uploadpack.allowAnySHA1InWant", "true")
    asked, context = source(f"file://{repository}", revision=first, paths=["src/**"]), Context(home=tmp_path)
    before = list(rows_in(asked, context))
    repository.rename(tmp_path / "gone")
    assert list(rows_in(asked, context)) == before and len(before) == 3


def test_nothing_of_a_repository_is_executed(repository: Path, tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    script = tmp_path / "evil.sh"
    script.write_text(f"#!/bin/sh\ntouch {trap}\ncat\n")
    script.chmod(0o755)
    (repository / ".gitattributes").write_text("*.py filter=evil diff=evil\n")
    git(repository, "add", ".gitattributes")
    git(repository, "commit", "-q", "-m", "trap")
    for hook in ("post-checkout", "reference-transaction", "pre-auto-gc", "post-index-change"):
        (repository / ".git" / "hooks" / hook).write_text(script.read_text())
        (repository / ".git" / "hooks" / hook).chmod(0o755)
    for name in ("filter.evil.smudge", "filter.evil.clean", "core.fsmonitor", "diff.evil.textconv", "core.sshCommand"):
        git(repository, "config", name, str(script))
    for place in (repository, f"file://{repository}"):
        assert any("häßlich" in str(row.value) for row in rows_in(source(place), Context(home=tmp_path)))
    assert not trap.exists()


@pytest.mark.parametrize("url", ["ext::sh -c touch% /tmp/x", "ssh://host/x", "git://host/x", "http://host/x", "-x"])
def test_other_protocols_are_refused(url: str, tmp_path: Path) -> None:
    with pytest.raises((ValueError, UsageError)):
        open_source(source(url), Context(home=tmp_path))
    with pytest.raises(ValueError, match=r"revision|pattern"):
        source("/x", revision="--upload-pack=evil")


def test_mistakes_are_named(repository: Path, tmp_path: Path) -> None:
    context = Context(home=tmp_path)
    with pytest.raises(WuxingError, match="no revision nothing"):
        open_source(source(repository, revision="nothing"), context)
    with pytest.raises(WuxingError, match="git fetch failed"):
        open_source(source(f"file://{repository}", revision="nothing"), context)
    with pytest.raises(WuxingError, match="no file of .* fits"):
        open_source(source(repository, paths=["*.java"]), context)
    with pytest.raises(WuxingError, match="cannot be read"):
        open_source(source(tmp_path / "project" / "src" / "deep" / ".."), Context(home=tmp_path)) and open_source(
            source(tmp_path), context
        )
    with pytest.raises(ValueError, match="no password may stand in it"):
        source("https://me:hush@host/x.git")


def test_data_files_of_a_repository_are_read_by_their_format(repository: Path, tmp_path: Path) -> None:
    (repository / "rows.jsonl").write_text('{"text": "a"}\n{"text": "b"}\n{broken\n')
    git(repository, "add", "rows.jsonl")
    git(repository, "commit", "-q", "-m", "rows")
    asked = SourceConfig.model_validate(
        {"git": {"repository": str(repository), "paths": ["*.jsonl"]}, "format": "jsonl"}
    )
    rows = list(rows_in(asked, Context(home=tmp_path)))
    assert [row.place for row in rows] == [f"rows.jsonl#{n}" for n in range(3)]
    assert [row.value["text"] for row in rows[:2]] == ["a", "b"] and rows[2].unreadable is not None
