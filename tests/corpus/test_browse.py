"""Browsing: every filter against a slow truth, pages that go on, bounded work, terminals that text cannot steer."""

from __future__ import annotations

import json
import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from report_world import EVIL, Maker, sentence, small_corpus

from wuxing.core.artifact import Artifact
from wuxing.core.error import UsageError
from wuxing.core.file import write_json
from wuxing.core.record import Record
from wuxing.core.splits import SPLITS, write_records
from wuxing.corpus.browse.query import Corpus, Query, view_of
from wuxing.corpus.browse.terminal import Pager, fit, plain_line, record_lines, wrap
from wuxing.corpus.lookup import rows_at, rows_with_ids, spread_rows


@pytest.fixture
def made(make_step: Maker, tmp_path: Path) -> Artifact:
    return small_corpus(make_step, tmp_path)


@pytest.fixture
def corpus(made: Artifact) -> Corpus:
    return Corpus(made.path, made.id)


def rows_of(made: Artifact, name: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(made.path / f"{name}.parquet").to_pylist()
    return rows


def ids(found: Any) -> list[str]:
    return [entry["id"] for entry in found]


def test_every_filter_finds_what_a_slow_search_finds(made: Artifact, corpus: Corpus) -> None:
    kept = [row for split in SPLITS for row in rows_of(made, split)]
    fates = rows_of(made, "fates")
    truth: list[tuple[Query, list[str]]] = [
        (Query(), [row["id"] for row in kept]),
        (Query("test"), [row["id"] for row in rows_of(made, "test")]),
        (Query(grep="DAY 7"), [row["id"] for row in kept if "day 7" in row["text"].lower() or "day 7" in row["id"]]),
        (Query(label="kind-1"), [row["id"] for row in kept if row["label"] == "kind-1"]),
        (Query(label=EVIL), [row["id"] for row in kept if row["label"] == EVIL]),
        (Query(min_length=220), [row["id"] for row in kept if len(row["text"]) >= 220]),
        (Query(max_length=219), [row["id"] for row in kept if len(row["text"]) <= 219]),
        (
            Query("train", label="kind-2", grep="RECORD"),
            [r["id"] for r in rows_of(made, "train") if r["label"] == "kind-2"],
        ),
        (Query("all"), [row["id"] for row in fates]),
        (Query("all", fate="filtered:too_short"), [r["id"] for r in fates if r["fate"] == "filtered:too_short"]),
        (Query("all", fate="filtered"), [row["id"] for row in fates if row["fate"].startswith("filtered:")]),
        (Query(fate="duplicate"), [row["id"] for row in fates if row["fate"] == "duplicate"]),
        (Query("dropped"), [row["id"] for row in rows_of(made, "dropped")]),
        (
            Query("changed", step="privacy"),
            [r["id"] for r in rows_of(made, "changed") if r["step"].endswith(":privacy")],
        ),
        (Query(source="rows"), [row["id"] for row in kept]),
        (Query(source="row"), []),
        (Query(language="en"), []),
    ]
    for query, expected in truth:
        assert ids(corpus.each(query)) == expected, query
        assert ids(corpus.find(query, limit=10**6).entries) == expected, query
    assert sum(len(expected) > 0 for _, expected in truth) >= 14


@pytest.mark.parametrize(("limit", "scan"), [(7, 10**6), (1000, 13), (3, 1), (1, 10**6)])
def test_pages_put_together_are_the_whole(corpus: Corpus, limit: int, scan: int) -> None:
    for query in (Query(), Query(grep="1"), Query("all", fate="filtered")):
        whole, found, cursor, turns = ids(corpus.each(query)), [], None, 0
        while True:
            page = corpus.find(query, cursor, limit, scan)
            found += ids(page.entries)
            assert len(page.entries) <= limit
            cursor, turns = page.next, turns + 1
            if cursor is None:
                break
            assert turns < 2000
        assert found == whole


def test_a_sample_is_the_same_for_a_seed_and_uniform(corpus: Corpus) -> None:
    whole = set(ids(corpus.each(Query())))
    first = ids(corpus.sample(Query(), 10, seed=1))
    assert first == ids(corpus.sample(Query(), 10, seed=1)) and set(first) <= whole and len(set(first)) == 10
    counts = dict.fromkeys(whole, 0)
    for seed in range(120):
        for id in ids(corpus.sample(Query(), 20, seed)):
            counts[id] += 1
    expected = 120 * 20 / len(whole)
    assert max(counts.values()) < expected + 6 * expected**0.5 and min(counts.values()) > 0
    assert len(corpus.sample(Query(), 10**6, 0)) == len(whole)


def test_a_record_knows_its_fate_its_twins_and_what_changed_it(made: Artifact, corpus: Corpus) -> None:
    duplicate = next(row for row in rows_of(made, "fates") if row["fate"] == "duplicate")
    opened = corpus.record(duplicate["id"])
    assert (
        opened and opened["fate"] == "duplicate" and opened["twins"][0] == {"id": duplicate["detail"], "fate": "kept"}
    )
    kept = corpus.record(duplicate["detail"])
    assert kept and kept["split"] in SPLITS and duplicate["id"] in ids(kept["twins"])
    file, _, row = kept["place"].partition(":")
    assert rows_of(made, file)[int(row)]["id"] == kept["id"] and kept["text"] == rows_of(made, file)[int(row)]["text"]
    changed = rows_of(made, "changed")[0]
    assert {"step", "before", "after"} == set(corpus.record(changed["id"])["changes"][0])  # type: ignore[index]
    short = corpus.record(next(r["id"] for r in rows_of(made, "dropped") if r["fate"] == "filtered:too_short"))
    assert short and short["text"].startswith("Short ") and short["split"] is None
    assert corpus.record("rows/none#1") is None


def test_wrong_words_are_refused_with_the_right_ones(corpus: Corpus, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match='Did you mean "filtered:too_short"'):
        corpus.find(Query(fate="filtered:too_shrt"))
    with pytest.raises(UsageError, match='"trin" is no split'):
        view_of("trin", False, False)
    with pytest.raises(UsageError, match="exclude each other"):
        view_of("train", True, False)
    for cursor in ("x", "0", "0:-1", "0:1e3", "9" * 40 + ":1", "٣:٣"):
        with pytest.raises(UsageError, match="no place to go on from"):
            corpus.find(Query(), cursor)
    assert corpus.find(Query(), "77:0").entries == [] and corpus.find(Query(), "0:99999").entries != []
    with pytest.raises(UsageError, match="holds no records"):
        Corpus(tmp_path, "model/x@v1")


def test_media_come_only_from_their_own_places(tmp_path: Path) -> None:
    pictures = [Record(f"p/{n}", "p", image=b"\x89PNG" + bytes([n])) for n in range(5)]
    for split in SPLITS:
        write_records(tmp_path, split, pictures if split == "train" else [])
    corpus = Corpus(tmp_path, "corpus/p@v1")
    assert corpus.media("train:3") == b"\x89PNG\x03"
    assert corpus.media_of(["train:0", "train:4", "train:99", "test:0"]) == {
        "train:0": b"\x89PNG\x00",
        "train:4": b"\x89PNG\x04",
    }
    for place in ("../train:0", "record.json:0", "train:", "train:-1", "fates:0", "", ":", "train:1/../2"):
        assert corpus.media(place) is None
    [entry, *_] = corpus.find(Query()).entries
    assert entry["kind"] == "image" and entry["place"] == "train:0"


def test_rows_by_number_and_id_are_those_of_the_file(tmp_path: Path) -> None:
    records = [Record(f"r/{n}", "r", text=f"text {n}") for n in range(20_000)]
    write_records(tmp_path, "train", records)
    path = tmp_path / "train.parquet"
    assert {n: row["text"] for n, row in rows_at(path, [0, 8191, 8192, 19_999]).items()} == {
        n: f"text {n}" for n in (0, 8191, 8192, 19_999)
    }
    assert {id: row["text"] for id, row in rows_with_ids(path, ["r/5", "r/9000", "none"]).items()} == {
        "r/5": "text 5",
        "r/9000": "text 9000",
    }
    numbers = [int(row["id"].partition("/")[2]) for row in spread_rows(path, 10)]
    gaps = [b - a for a, b in pairwise(numbers)]
    assert len(numbers) == 10 and max(gaps) - min(gaps) <= 1
    assert len(spread_rows(path, 10**6, ("id",))) == 20_000


# ------------------------------------------------------------------------------------------------- the terminal
def test_nothing_in_a_record_steers_the_terminal(corpus: Corpus) -> None:
    lines = [plain_line(entry) for view in ("kept", "dropped", "changed", "all") for entry in corpus.each(Query(view))]
    found = next(corpus.each(Query(label=EVIL)))
    lines += record_lines({**(corpus.record(found["id"]) or {}), "meta": {"\x1b[2J": "\x07"}}, 60)
    for line in lines:
        assert not any(ord(c) < 32 and c != "\t" for c in line) and "\u202e" not in line
    assert len(plain_line(found).split("\t")) == 6


def test_lines_fit_their_columns() -> None:
    def columns(text: str) -> int:
        return sum(2 if ord(c) > 0x2E80 else 1 for c in text)

    text = "The violoncello, commonly abbreviated as cello " + "床前明月光" * 20 + "x" * 95 + "\nsecond\tline"
    lines = wrap(text, 40, 100)
    assert all(columns(line) <= 40 for line in lines)
    assert "".join(lines).replace(" ", "") == text.replace("\n", "").replace("\t", "    ").replace(" ", "")
    assert len(wrap("a\n" * 100, 40, 5)) == 5
    assert columns(fit("床前明月光", 5)) <= 5


def test_the_pager_goes_on_back_searches_and_opens(corpus: Corpus, capsys: pytest.CaptureFixture[str]) -> None:
    keys = iter([" ", " ", "b", "1", "x", "/", "zz", "/", "q"])
    searched = iter(["Record 7 ", "no such text anywhere"])
    asked: list[str | None] = []

    class Watched(Corpus):
        def find(self, query: Query, cursor: str | None = None, *rest: Any) -> Any:
            asked.append(cursor)
            return super().find(query, cursor, *rest)

    Pager(Watched(corpus.directory, corpus.id), Query(), lambda: next(keys), lambda _: next(searched)).run()
    assert asked[0] is None and len({*asked[:3]}) == 3 and asked[3] == asked[1]
    printed = capsys.readouterr().out
    assert "nothing here" in printed and sentence(7)[:20] in printed and "any key goes back" in printed


@pytest.fixture
def store(made: Artifact, tmp_path: Path) -> Path:
    """A home that holds the corpus."""
    home = tmp_path / "home"
    place = home / "corpus" / "rows" / "v1"
    place.parent.mkdir(parents=True)
    made.path.rename(place)
    write_json(place / "record.json", made.record)
    return home


def run(home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "wuxing", "browse", "rows", "--home", str(home), *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_the_command_answers_in_a_pipe_and_as_json(store: Path) -> None:
    lines = run(store, "--fate", "filtered:too_short").stdout.splitlines()
    assert len(lines) == 30 and all("\tfiltered:too_short\t" in line for line in lines)
    answer = json.loads(run(store, "--dropped", "--json", "--limit", "3").stdout)
    assert len(answer["records"]) == 3 and answer["more"] is True and answer["corpus"] == "corpus/rows@v1"
    opened = json.loads(run(store, "--record", "rows/rows.jsonl#0", "--json").stdout)
    assert opened["fate"] == "kept" and opened["text"] == sentence(0)
    wrong = run(store, "--record", "rows/none")
    assert wrong.returncode == 2 and "Traceback" not in wrong.stderr and "read no row" in wrong.stderr


def test_on_a_terminal_it_pages_until_q(store: Path) -> None:
    command = [sys.executable, "-m", "wuxing", "browse", "rows", "--home", str(store)]
    master, slave = pty.openpty()
    process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, env={**os.environ, "TERM": "xterm"})
    os.close(slave)
    seen = ""

    def until(said: Callable[[], bool]) -> None:
        nonlocal seen
        end = time.monotonic() + 120
        while not said() and time.monotonic() < end:
            if select.select([master], [], [], 0.1)[0]:
                seen += os.read(master, 65536).decode(errors="replace")
        assert said(), seen[-2000:]

    try:
        until(lambda: "page 1" in seen)
        os.write(master, b"\x1b[C")  # the right arrow
        until(lambda: "page 2" in seen)
        os.write(master, b"q")
        assert process.wait(60) == 0
    finally:
        process.kill()
        os.close(master)
