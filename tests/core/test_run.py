"""The plan and the run: reuse what is the same, say why something is not, continue after any kill."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from toy import LONG, make, recipe

from wuxing.core.context import Context
from wuxing.core.error import Interrupted, WuxingError
from wuxing.core.file import read_lines
from wuxing.core.plan import plan
from wuxing.core.run import run
from wuxing.core.store import Store

STEPS = {
    "a": {"make": "text", "text": "hello"},
    "b": {"make": "text", "text": "world"},
    "ab": {"make": "join", "of": ["a", "b"]},
    "abb": {"make": "join", "of": ["ab", "b"]},
}
SCRIPT = Path(__file__).with_name("toy.py")


def verdicts(home: Path, steps: dict[str, dict[str, object]]) -> dict[str, tuple[str, str]]:
    decisions = plan(recipe(steps), Store(home), Context(home=home))
    return {item.step.step: (item.verdict, item.reason) for item in decisions}


def test_second_run_makes_nothing(tmp_path: Path) -> None:
    make(tmp_path, STEPS)
    before = sorted((str(p), p.stat().st_mtime_ns) for p in tmp_path.rglob("*") if "runs" not in p.parts)
    assert all(made.reused for made in make(tmp_path, STEPS).made)
    assert sorted((str(p), p.stat().st_mtime_ns) for p in tmp_path.rglob("*") if "runs" not in p.parts) == before


def test_one_changed_setting_remakes_only_what_depends_on_it(tmp_path: Path) -> None:
    make(tmp_path, STEPS)
    changed = {**STEPS, "a": {"make": "text", "text": "HELLO"}}
    assert verdicts(tmp_path, changed) == {
        "a": ("new", "because text hello → HELLO"),
        "b": ("reuse", "same recipe, same parents"),
        "ab": ("waits", "after a; reuses v1 if what it reads comes out the same"),
        "abb": ("waits", "after ab; reuses v1 if what it reads comes out the same"),
    }
    made = {item.step: (item.artifact.id, item.reused) for item in make(tmp_path, changed).made}
    assert made == {
        "a": ("text/a@v2", False),
        "b": ("text/b@v1", True),
        "ab": ("join/ab@v2", False),
        "abb": ("join/abb@v2", False),
    }
    assert [item.artifact.version for item in make(tmp_path, STEPS).made] == [1, 1, 1, 1]


def test_early_cut_off_when_the_content_did_not_change(tmp_path: Path) -> None:
    make(tmp_path, {**STEPS, "a": {"make": "text", "text": "HELLO"}})
    outcome = make(tmp_path, {**STEPS, "a": {"make": "text", "text": "hello", "upper": True}})
    assert [(made.step, made.reused) for made in outcome.made] == [
        ("a", False),
        ("b", True),
        ("ab", True),
        ("abb", True),
    ]


def test_plumbing_never_enters_the_fingerprint(tmp_path: Path) -> None:
    make(tmp_path, STEPS)
    outcome = make(tmp_path, {**STEPS, "a": {"make": "text", "text": "hello", "workers": 9}})
    assert all(made.reused for made in outcome.made)


def test_seed_and_nested_settings_are_named_as_reasons(tmp_path: Path) -> None:
    make(tmp_path, STEPS)
    nested = {**STEPS, "a": {"make": "text", "text": "hello", "letters": {"small": "xyz"}}}
    assert verdicts(tmp_path, nested)["a"] == ("new", "because letters.small abc → xyz")
    seeded = plan(recipe(STEPS, seed=8), Store(tmp_path), Context(home=tmp_path))
    assert seeded[0].reason == "because the seed differs"


def test_target_makes_only_what_it_stands_on(tmp_path: Path) -> None:
    assert [made.step for made in make(tmp_path, STEPS, target="ab").made] == ["a", "b", "ab"]


def test_missing_evidence_is_a_failure(tmp_path: Path) -> None:
    outcome = make(tmp_path, {"a": {"make": "text", "text": "no evidence"}, "b": {"make": "join", "of": ["a"]}})
    assert outcome.artifact("a").failures == ["not_empty: no evidence was left"]
    assert outcome.refused == ["b"]


def test_failed_artifact_of_the_store_is_refused_by_another_recipe(tmp_path: Path) -> None:
    make(tmp_path, {"a": {"make": "text", "text": ""}})
    with pytest.raises(WuxingError, match="b does not start: text/a@v1 failed its evidence: not_empty"):
        make(tmp_path, {"b": {"make": "join", "of": ["text/a@v1"]}})


def test_step_reads_from_the_store(tmp_path: Path) -> None:
    make(tmp_path, STEPS)
    joined = make(tmp_path, {"z": {"make": "join", "of": ["text/a@v1", "join/ab"]}}).artifact("z")
    assert joined.file("text.txt").read_text() == "hellohelloworld"
    assert joined.parents == {"of.0": "text/a@v1", "of.1": "join/ab@v1"}


def test_promotion_happens_once_and_is_not_repeated_after_a_rollback(tmp_path: Path) -> None:
    steps = {**STEPS, "abb": {"make": "join", "of": ["ab"], "promote": True}}
    assert make(tmp_path, steps).promoted == ["abb@production -> join/abb@v1"]
    changed = {**steps, "a": {"make": "text", "text": "new"}}
    assert make(tmp_path, changed).promoted == ["abb@production -> join/abb@v2"]
    store = Store(tmp_path)
    store.aliases.rollback("production", "abb", "worse", "me")
    assert make(tmp_path, changed).promoted == []
    assert store.find("abb@production").id == "join/abb@v1"


def test_run_cut_between_signature_and_promotion_promotes_when_typed_again(tmp_path: Path) -> None:
    steps = {**STEPS, "abb": {"make": "join", "of": ["ab"], "promote": True}}
    make(tmp_path, steps)
    (tmp_path / "aliases.jsonl").unlink()
    assert make(tmp_path, steps).promoted == ["abb@production -> join/abb@v1"]


def test_full_disk_is_one_line_and_nothing_is_lost(tmp_path: Path) -> None:
    make(tmp_path, STEPS)
    with pytest.raises(WuxingError, match="the disk is full while making text/d; nothing was lost. Free space there"):
        make(tmp_path, {**STEPS, "d": {"make": "text", "text": "disk full"}})
    assert Store(tmp_path).damage(Store(tmp_path).find("abb")) == []
    assert all(made.reused for made in make(tmp_path, STEPS).made)


def test_killed_at_random_instants_ends_as_if_never_stopped(tmp_path: Path) -> None:
    make(tmp_path / "whole", LONG)
    home, draw, kills = tmp_path / "killed", random.Random(11), 0
    for _ in range(8):
        process = subprocess.Popen([sys.executable, SCRIPT, home])
        while process.poll() is None and not list(home.glob("*/*/.partial-*")):
            time.sleep(0.001)
        time.sleep(draw.uniform(0, 0.1))
        kills += process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert kills >= 3
    make(home, LONG)
    for name in ("b", "c"):
        whole, killed = Store(tmp_path / "whole").find(name), Store(home).find(name)
        assert whole.content == killed.content and killed.version == 1
        assert len(read_lines(killed.file("starts.jsonl"))) >= 1


def test_what_a_kill_inside_a_write_left_is_not_signed(tmp_path: Path) -> None:
    first = make(tmp_path, STEPS).artifact("ab")
    draft = first.path.with_name(f".partial-{first.fingerprint[:16]}")
    first.path.rename(draft)
    (draft / ".text.txt.12345.wuxing-tmp").write_text("hal")
    again = make(tmp_path, STEPS).artifact("ab")
    assert set(again.record["files"]) == set(first.record["files"]) and again.content == first.content


def test_interrupt_saves_and_says_so(tmp_path: Path) -> None:
    context = Context(home=tmp_path)
    store = Store(tmp_path)
    made_first = run(recipe({"a": LONG["a"]}), store, context)
    context.stop.request()
    with pytest.raises(Interrupted, match="Type the same command again"):
        run(recipe(LONG), store, context)
    assert made_first.artifact("a").version == 1


def test_control_c_leaves_the_draft_and_the_next_run_goes_on(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, SCRIPT, tmp_path, "0.5"], stderr=subprocess.PIPE, text=True)
    while not list(tmp_path.glob("join/b/.partial-*/pieces.jsonl")):
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    assert "pieces are saved. Type the same command again to go on" in process.communicate()[1]
    (draft,) = tmp_path.glob("join/b/.partial-*")
    saved = read_lines(draft / "pieces.jsonl")
    assert saved
    assert verdicts(tmp_path, LONG)["b"][1].endswith("goes on where it was stopped")
    make(tmp_path, LONG)
    assert read_lines(Store(tmp_path).find("b").file("pieces.jsonl"))[: len(saved)] == saved


def test_cache_is_the_same_place_from_every_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WUXING_CACHE", raising=False)
    monkeypatch.chdir(tmp_path)
    context = Context(home=Path("store"))
    assert context.cache_directory == tmp_path / "store" / "cache"
    assert Context(home=tmp_path, cache=Path("elsewhere")).cache_directory == tmp_path / "elsewhere"
