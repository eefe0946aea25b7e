"""The store: signed last, never overwritten, never trusted when a byte changed."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from toy import LONG, make

from wuxing.core.error import RefusedError, UsageError, WuxingError
from wuxing.core.lease import lease
from wuxing.core.ledger import Ledger
from wuxing.core.prune import prunable, prune
from wuxing.core.store import Store

HELLO = {"a": {"make": "text", "text": "hello"}}


def test_signed_artifact_has_exactly_the_files_of_its_record(tmp_path: Path) -> None:
    artifact = make(tmp_path, HELLO).artifact("a")
    assert artifact.id == "text/a@v1"
    assert {p.name for p in artifact.path.iterdir()} == {*artifact.record["files"], "record.json"}
    assert set(artifact.record["files"]) == {"text.txt", "log.jsonl", "evidence.json", "summary.json"}
    assert [p.name for p in (tmp_path / "text" / "a").glob(".partial*")] == []


def test_directory_without_a_record_does_not_exist(tmp_path: Path) -> None:
    artifact = make(tmp_path, HELLO).artifact("a")
    (artifact.path / "record.json").unlink()
    with pytest.raises(UsageError, match='nothing in .* is called "a"'):
        Store(tmp_path).find("a")


def test_one_flipped_byte_is_found_and_refused(tmp_path: Path) -> None:
    artifact = make(tmp_path, HELLO).artifact("a")
    path = artifact.path / "text.txt"
    path.write_bytes(b"hellO")
    store = Store(tmp_path)
    assert store.damage(artifact) == ["text.txt has other bytes than were signed"]
    with pytest.raises(WuxingError, match=r"text/a@v1 is damaged: text\.txt has other bytes.*rm -r"):
        make(tmp_path, {**HELLO, "b": {"make": "join", "of": ["a"]}})
    path.write_bytes(b"hello")
    assert store.damage(artifact) == []


def test_damage_names_missing_and_added_files(tmp_path: Path) -> None:
    artifact = make(tmp_path, HELLO).artifact("a")
    (artifact.path / "text.txt").unlink()
    (artifact.path / "extra").write_text("x")
    assert Store(tmp_path).damage(artifact) == ["extra was added", "text.txt is missing"]


def test_damaged_record_is_one_clear_line(tmp_path: Path) -> None:
    artifact = make(tmp_path, HELLO).artifact("a")
    (artifact.path / "record.json").write_text('{"kind": "te')
    with pytest.raises(WuxingError, match=r"the record of .* is damaged .* Remove that directory"):
        Store(tmp_path).find("a")


def test_unknown_name_suggests_the_nearest(tmp_path: Path) -> None:
    make(tmp_path, {"articles": {"make": "text", "text": "x"}})
    with pytest.raises(UsageError, match='Did you mean "articles"'):
        Store(tmp_path).find("artikles")
    with pytest.raises(UsageError, match="has no v9. It has v1"):
        Store(tmp_path).find("articles@v9")


def test_second_process_is_refused_while_the_first_makes(tmp_path: Path) -> None:
    with lease(tmp_path / "text" / "a" / ".lease", "text/a"):
        script = Path(__file__).with_name("toy.py")
        done = subprocess.run([sys.executable, script, tmp_path], capture_output=True, text=True)
    assert done.returncode == 1
    assert f"text/a is being made by another process (process {os.getpid()}" in done.stderr


def test_lease_of_a_dead_process_is_free(tmp_path: Path) -> None:
    script = Path(__file__).with_name("toy.py")
    process = subprocess.Popen([sys.executable, script, tmp_path, "1"])  # so slow that the kill is never too late
    while not list(tmp_path.glob("join/b/.partial-*/pieces.jsonl")):
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert not make(tmp_path, LONG).artifact("c").failures


def test_promote_and_rollback_walk_the_log(tmp_path: Path) -> None:
    store = Store(tmp_path)
    first = make(tmp_path, {"a": {"make": "text", "text": "1"}}).artifact("a")
    second = make(tmp_path, {"a": {"make": "text", "text": "2"}}).artifact("a")
    third = make(tmp_path, {"a": {"make": "text", "text": "3"}}).artifact("a")
    for artifact in (first, second, third):
        store.aliases.promote(artifact, "production", "test", "me")
    assert store.find("@production").id == "text/a@v3" == store.find("a@production").id
    assert store.aliases.rollback("production", None, "bad answers", "me") == ("text/a@v3", "text/a@v2")
    assert store.aliases.rollback("production", "a", "worse", "me") == ("text/a@v2", "text/a@v1")
    with pytest.raises(WuxingError, match="has no earlier target than text/a@v1"):
        store.aliases.rollback("production", "a", "more", "me")
    store.aliases.promote(third, "production", "mended", "me")
    assert store.aliases.rollback("production", "a", "again", "me") == ("text/a@v3", "text/a@v1")
    assert [line["action"] for line in store.aliases.lines()].count("rollback") == 3
    assert store.aliases.lines()[3]["why"] == "bad answers"


def test_unknown_alias_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nothing was ever promoted to @production"):
        Store(tmp_path).find("@production")


def test_prune_keeps_aliases_and_lineage_and_never_reuses_a_number(tmp_path: Path) -> None:
    store = Store(tmp_path)

    def version(text: str) -> None:
        make(tmp_path, {"a": {"make": "text", "text": text}, "b": {"make": "join", "of": ["a"]}})

    for text in "1234":
        version(text)
    store.aliases.promote(store.find("join/b@v2"), "production", "test", "me")
    items = prunable(store)
    assert {item.artifact.id for item in items if item.artifact} == {"text/a@v1", "text/a@v3", "join/b@v1", "join/b@v3"}
    assert prune(store, items) == sum(item.bytes for item in items) > 0
    assert {artifact.id for artifact in store.all()} == {"text/a@v2", "text/a@v4", "join/b@v2", "join/b@v4"}
    prune(store, prunable(store))
    version("5")
    assert store.find("text/a").version == 5


def test_prune_takes_drafts_of_dead_runs_only(tmp_path: Path) -> None:
    draft = tmp_path / "text" / "a" / ".partial-0123456789abcdef"
    draft.mkdir(parents=True)
    (draft / "half").write_text("x" * 10)
    store = Store(tmp_path)
    with lease(draft.parent / ".lease", "text/a"):
        assert prunable(store) == []
    assert prune(store, prunable(store)) == 10
    assert not draft.exists()


def test_ledger_is_rebuilt_from_files(tmp_path: Path) -> None:
    make(tmp_path, {**HELLO, "b": {"make": "join", "of": ["a"]}, "c": {"make": "join", "of": ["b"]}})
    ledger = Ledger(Store(tmp_path))
    before = ledger.rows()
    assert [row.id for row in before] == ["text/a@v1", "join/b@v1", "join/c@v1"]
    assert ledger.descendants("text/a@v1") == ["join/b@v1", "join/c@v1"]
    ledger.path.unlink()
    assert ledger.rows() == before
    ledger.path.write_bytes(b"this is no database" * 100)
    assert ledger.rows() == before
    prune(Store(tmp_path), prunable(Store(tmp_path)))
    make(tmp_path, {"a": {"make": "text", "text": "other"}})
    assert {row.id for row in ledger.rows()} == {"text/a@v1", "text/a@v2", "join/b@v1", "join/c@v1"}


def test_ledger_answers_many_readers_at_once(tmp_path: Path) -> None:
    make(tmp_path, HELLO)
    answers: list[int] = []
    threads = [threading.Thread(target=lambda: answers.append(len(Ledger(Store(tmp_path)).rows()))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [1] * 8


def test_acceptance_is_recorded_and_lets_the_next_stage_start(tmp_path: Path) -> None:
    steps = {"a": {"make": "text", "text": ""}, "b": {"make": "join", "of": ["a"]}}
    refused = make(tmp_path, steps)
    assert isinstance(refused.refusal, RefusedError) and refused.refused == ["b"]
    assert "not_empty is 0, asked for > 0" in str(refused.refusal)
    accepted = make(tmp_path, steps, accept="an empty text is what we test")
    assert accepted.refusal is None and accepted.artifact("b").id == "join/b@v1"
    assert Store(tmp_path).find("a").record["accepted"]["reason"] == "an empty text is what we test"
    assert make(tmp_path, steps).refusal is None
