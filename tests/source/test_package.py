"""Packages as sources: archives are read, never run; whatever is wrong is one clear line."""

from __future__ import annotations

import io
import json
import os
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from wuxing.core.artifact import Artifact
from wuxing.core.context import Context
from wuxing.core.digest import digest_of_file
from wuxing.core.error import WuxingError
from wuxing.core.splits import read_records
from wuxing.corpus.kind import CorpusKind
from wuxing.source import open_source, rows_in, rows_of
from wuxing.source.config import PackageSource, SourceConfig
from wuxing.source.package import _reason, fetch

ROWS = {"a": {"text": "first"}, "b": {"text": "second"}}


def wheel(directory: Path) -> Path:
    """A wheel whose code would leave a trace if it ever ran."""
    path = directory / "things-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("things/__init__.py", f"open({str(directory / 'ran')!r}, 'w')")
        archive.writestr("things/data/rows.json", json.dumps(ROWS))
        archive.writestr("things/data/more.yml", "conversations:\n- - How?\n  - So.\n")
        archive.writestr("things-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: things\nVersion: 1.0\n")
        archive.writestr("things-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr("things-1.0.dist-info/RECORD", "")
    return path


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip takes for the registry."""
    (tmp_path / "shelf").mkdir()
    wheel(tmp_path / "shelf")
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "shelf"))
    return tmp_path / "shelf"


def package(**changes: Any) -> PackageSource:
    values = {"registry": "pypi", "name": "things", "version": "1.0", "member": "things/data/rows.json"}
    return PackageSource.model_validate({**values, **changes})


def rows(source: PackageSource, context: Context, **settings: Any) -> list[Any]:
    return [row.value for row in rows_in(SourceConfig(package=source, **settings), context)]


def test_a_member_is_read_and_nothing_runs(shelf: Path, tmp_path: Path) -> None:
    context = Context(home=tmp_path / "home")
    digest = digest_of_file(shelf / "things-1.0-py3-none-any.whl")
    source = SourceConfig(package=package(sha256=digest))
    origin = open_source(source, context)
    assert [row.value for part in origin.parts for row in rows_of(part, source)] == [
        {"key": "a", "text": "first"},
        {"key": "b", "text": "second"},
    ]
    assert origin.card["sha256"] == digest
    assert origin.card["files"] == {"things/data/rows.json": len(json.dumps(ROWS))}
    assert not (shelf / "ran").exists()


def test_a_pattern_names_several_members(shelf: Path, tmp_path: Path) -> None:
    context = Context(home=tmp_path / "home")
    found = rows(package(member="things/data/*"), context)
    assert found == [{"conversations": [["How?", "So."]]}, *({"key": key, **row} for key, row in ROWS.items())]
    assert rows(package(member="*/*.yml"), context, rows="conversations") == [{"value": ["How?", "So."]}]


def test_it_is_downloaded_once(shelf: Path, tmp_path: Path) -> None:
    context = Context(home=tmp_path / "home")
    first = fetch(package(), context)
    left = first.parent / ".download-killed"
    left.mkdir()
    os.utime(left, (0, 0))
    first.unlink()
    assert fetch(package(), context) == first
    (shelf / "things-1.0-py3-none-any.whl").unlink()
    assert fetch(package(), context) == first
    assert fetch(package(sha256=digest_of_file(first)), context) == first
    assert [p.name for p in first.parent.iterdir() if p.name.startswith(".")] == []


def test_a_damaged_archive_is_downloaded_anew(shelf: Path, tmp_path: Path) -> None:
    context = Context(home=tmp_path / "home")
    archive = fetch(package(), context)
    good = archive.read_bytes()
    archive.write_bytes(good[:100])
    assert fetch(package(), context).read_bytes() == good


def test_an_archive_put_there_by_hand_is_enough(tmp_path: Path) -> None:
    context = Context(home=tmp_path / "home")
    spot = context.cache_directory / "packages" / "npm" / "@scope/poems" / "2.0.1"
    spot.mkdir(parents=True)
    with tarfile.open(spot / "poems-2.0.1.tgz", "w:gz") as archive:
        content = json.dumps([{"text": "春眠不覺曉"}]).encode()
        entry = tarfile.TarInfo("package/data/tang.json")
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))
    digest = digest_of_file(spot / "poems-2.0.1.tgz")
    source = package(registry="npm", name="@scope/poems", version="2.0.1", member="data/*.json", sha256=digest)
    assert rows(source, context) == [{"text": "春眠不覺曉"}]


def test_another_digest_is_refused(shelf: Path, tmp_path: Path) -> None:
    with pytest.raises(WuxingError, match=f"has the digest [0-9a-f]{{64}}, the recipe asks for {'0' * 64}"):
        fetch(package(sha256="0" * 64), Context(home=tmp_path / "home"))
    assert not list((tmp_path / "home").rglob("*.whl"))


def test_a_missing_member_is_named_with_the_nearest(shelf: Path, tmp_path: Path) -> None:
    with pytest.raises(
        WuxingError, match='has no member "things/data/row.json". Did you mean "things/data/rows.json"?'
    ):
        rows(package(member="things/data/row.json"), Context(home=tmp_path / "home"))


def test_a_missing_version_is_named_with_the_remedy(shelf: Path, tmp_path: Path) -> None:
    with pytest.raises(WuxingError) as caught:
        fetch(package(version="9.9"), Context(home=tmp_path / "home"))
    assert "pip cannot download things 9.9: No matching distribution found for things==9.9" in str(caught.value)
    assert "put the archive into" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_no_archive_is_named(shelf: Path, tmp_path: Path) -> None:
    context = Context(home=tmp_path / "home")
    spot = context.cache_directory / "packages" / "pypi" / "things" / "1.0"
    spot.mkdir(parents=True)
    (spot / "things-1.0.tar.gz").write_bytes(b"not an archive")
    with pytest.raises(WuxingError, match="is no archive that can be read"):
        rows(package(sha256=digest_of_file(spot / "things-1.0.tar.gz")), context)


def test_logins_never_reach_a_message() -> None:
    said = "WARNING: x\nERROR: Could not open https://user:secret@registry.example/simple: 403 Client Error\n"
    assert _reason(said, "pypi") == "Could not open https://registry.example/simple: 403 Client Error"


def test_a_registry_that_cannot_be_reached_is_said(
    shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_INDEX_URL", "http://user:secret@127.0.0.1:9/simple")
    monkeypatch.delenv("PIP_FIND_LINKS")
    with pytest.raises(
        WuxingError, match="pip cannot download things 1.0: the registry cannot be reached. Check"
    ) as caught:
        fetch(package(), Context(home=tmp_path / "home"))
    assert "secret" not in str(caught.value)


@pytest.mark.network
def test_the_packages_of_the_first_recipe(make_step: Callable[..., Artifact], tmp_path: Path) -> None:
    """Dialogues from the registry, with the digest that the recipe pins."""
    source = {
        "name": "chatterbot",
        "license": "BSD-3-Clause",
        "package": {
            "registry": "pypi",
            "name": "chatterbot-corpus",
            "version": "1.3.3",
            "member": "chatterbot_corpus/data/english/*.yml",
            "sha256": "86de5300afb9a80826386339d3bec79c0a72eb0358abb8327e2ecef5ae0ce154",
        },
        "rows": "conversations",
        "fields": {"messages": "value"},
    }
    config = {
        "sources": [source],
        "clean": ["repair", "normalise", "privacy"],
        "split": {"validation": 0.05, "test": 0.05},
    }
    made = make_step(CorpusKind(), config)
    assert made.record["failures"] == []
    assert made.record["summary"]["rows read"] == 2026
    assert made.record["summary"]["kept"] > 850
    roles = {tuple(m["role"] for m in r.messages or ())[:2] for r in read_records(made.path, "train")}
    assert roles == {("user", "assistant")}


def test_a_source_archive_is_read_and_nothing_runs(shelf: Path, tmp_path: Path) -> None:
    """pip itself would run its setup.py; it is only asked where the archive lies."""
    root = tmp_path / "raw" / "loose_ends-2.0"
    (root / "data").mkdir(parents=True)
    (root / "setup.py").write_text(f"open({str(shelf / 'ran')!r}, 'w')")
    (root / "data" / "rows.jsonl").write_text('{"text": "one"}\n')
    archive = shelf / "loose_ends-2.0.tar.gz"
    with tarfile.open(archive, "w:gz") as file:
        file.add(root, "loose_ends-2.0")
    context, wanted = Context(home=tmp_path / "home"), {"name": "loose-ends", "version": "2.0"}
    member = "loose_ends-2.0/data/*.jsonl"
    with pytest.raises(WuxingError, match=r"only there as a source archive.*|Write its sha256"):
        rows(package(**wanted, member=member), context)
    digest = digest_of_file(archive)
    assert rows(package(**wanted, member=member, sha256=digest), context) == [{"text": "one"}]
    with pytest.raises(WuxingError, match="has the digest"):
        rows(package(**wanted, member=member, sha256="0" * 64), Context(home=tmp_path / "other"))
    with pytest.raises(WuxingError, match="No matching distribution"):
        rows(package(name="loose-ends", version="2.1", member=member, sha256=digest), context)
    assert not (shelf / "ran").exists()
