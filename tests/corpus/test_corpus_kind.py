"""A corpus from raw files to evidence: every row has a fate, equal recipes give equal bytes, faults are caught."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from wuxing.core.artifact import Artifact
from wuxing.core.context import Context
from wuxing.core.error import WuxingError
from wuxing.core.evidence import Evidence
from wuxing.core.record import Record
from wuxing.core.splits import SPLITS, read_records, read_table, write_records
from wuxing.corpus.config import CorpusConfig, SplitConfig
from wuxing.corpus.evidence import examine
from wuxing.corpus.fingerprint import split_key, split_of
from wuxing.corpus.kind import CorpusKind

Maker = Callable[..., Artifact]
SPLIT = {"validation": 0.1, "test": 0.1}
CLEAN = ["repair", "normalise", {"quality": {"min_words": 20}}, "repetition", "privacy"]


def messy(directory: Path, data_directory: Path, count: int = 600) -> Path:
    """Real leads as JSON lines, with copies, broken lines, an empty text and private data among them."""
    with gzip.open(data_directory / "text" / "wikipedia-leads-en.jsonl.gz", "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line, _ in zip(lines, range(count), strict=False)]
    out = [json.dumps(row) for row in rows]
    out[10] = '{"title": "cut'
    out[20] = json.dumps({"title": "nothing", "text": None})
    out[30] = json.dumps({"title": "short", "text": "Too short."})
    out[40] = out[41].replace("\\n", "\\n ")
    out.append(out[50].replace(". ", ".  ").upper().replace("\\U", "\\u").replace("\\N", "\\n").lower())
    near = json.loads(out[60])
    out.append(json.dumps({"title": near["title"], "text": near["text"] + " A last word."}))
    private = json.loads(out[70])["text"] + " Write to a.person@example.org, 203.0.113.9."
    out[70] = json.dumps({"title": "private", "text": private})
    path = directory / "leads.jsonl"
    path.write_text("\n".join(out) + "\n")
    return path


def recipe(path: Path, **changes: Any) -> dict[str, Any]:
    source = {"files": str(path), "fields": {"text": "text", "meta": ["title"]}, "license": "CC-BY-SA-4.0"}
    config = {"sources": [source], "clean": CLEAN, "split": SPLIT, "duplicates": {"near_jaccard": 0.7}}
    return {**config, **changes}


def digests(artifact: Artifact) -> dict[str, str]:
    return {name: entry["sha256"] for name, entry in artifact.record["files"].items()}


def test_every_row_has_one_fate_and_the_splits_hold_the_kept(
    make_step: Maker, data_directory: Path, tmp_path: Path
) -> None:
    path = messy(tmp_path, data_directory)
    made = make_step(CorpusKind(), recipe(path))
    assert made.record["failures"] == []
    rows = sum(1 for line in path.read_text().splitlines() if line)
    fates = pq.read_table(made.path / "fates.parquet").to_pylist()
    counts = Counter(row["fate"] for row in fates)
    assert json.loads((made.path / "fates.json").read_text()) == {"total": rows, "counts": dict(counts.most_common())}
    assert len({row["id"] for row in fates}) == rows
    kept = [record.id for split in SPLITS for record in read_records(made.path, split)]
    assert sorted(kept) == sorted(row["id"] for row in fates if row["fate"] == "kept")
    assert counts["unreadable:broken_json"] == 1
    assert counts["filtered:missing_field"] == 1
    assert counts["filtered:too_short"] >= 1
    assert counts["duplicate"] >= 2
    assert counts["near_duplicate"] >= 1
    ids = set(kept)
    assert all(row["detail"] in ids for row in fates if row["fate"] == "near_duplicate")
    texts = " ".join(record.text or "" for split in SPLITS for record in read_records(made.path, split))
    assert "Write to <mail>, <ip>." in texts


def test_the_set_of_files_and_the_card(make_step: Maker, data_directory: Path, tmp_path: Path) -> None:
    made = make_step(CorpusKind(), recipe(messy(tmp_path, data_directory)))
    expected = {f"{split}.parquet" for split in SPLITS}
    expected |= {"fates.json", "fates.parquet", "dropped.parquet", "changed.parquet", "statistics.json"}
    expected |= {"shards.json", "card.json", "card.md", "evidence.json", "report.html", "report.zh.html"}
    assert {p.name for p in made.path.iterdir()} == expected
    card = json.loads((made.path / "card.json").read_text())
    assert card["licenses"] == ["CC-BY-SA-4.0"]
    assert [step["step"] for step in card["cleaning"]] == ["repair", "normalise", "quality", "repetition", "privacy"]
    assert card["sizes"] == made.evidence.value("sizes")
    assert set(made.record["summary"]) >= {"rows read", "kept", "train", "validation", "test"}
    dropped = pq.read_table(made.path / "dropped.parquet").to_pylist()
    assert {row["fate"] for row in dropped} == {
        fate for fate in card["fates"]["counts"] if fate not in ("kept", "duplicate")
    }


def test_two_runs_and_any_number_of_workers_give_equal_bytes(
    make_step: Maker, data_directory: Path, tmp_path: Path
) -> None:
    path = messy(tmp_path, data_directory, 1500)
    first = digests(make_step(CorpusKind(), recipe(path), name="first"))
    assert digests(make_step(CorpusKind(), recipe(path), name="first", seed=8)) == first
    assert digests(make_step(CorpusKind(), recipe(path, workers=2), name="first", seed=9)) == first


def test_a_recipe_s_plumbing_and_paths_do_not_change_what_it_is(tmp_path: Path) -> None:
    def content(path: str, **changes: Any) -> dict[str, Any]:
        kind = CorpusKind()
        return kind.content(CorpusConfig.model_validate({"make": "corpus", **recipe(Path(path), **changes)}))

    assert content("a.jsonl") == content("b.jsonl", workers=2)
    assert content("a.jsonl") != content("a.jsonl", clean=["repair"])


def test_new_data_never_move_old_records(make_step: Maker, data_directory: Path, tmp_path: Path) -> None:
    path = messy(tmp_path, data_directory)
    before = make_step(CorpusKind(), recipe(path))
    path.write_text(
        json.dumps({"text": "A new first line that is long enough to stay. " * 4}) + "\n" + path.read_text()
    )
    after = make_step(
        CorpusKind(), recipe(path, sources=[{"files": str(path), "fields": {"text": "text"}}]), name="after"
    )

    def places(artifact: Artifact) -> dict[str, str]:
        return {record.text or "": split for split in SPLITS for record in read_records(artifact.path, split)}

    old, new = places(before), places(after)
    assert {text: split for text, split in new.items() if text in old} == old


def test_shares_of_the_splits_and_the_questions_of_dialogues() -> None:
    split = SplitConfig(validation=0.05, test=0.1)
    records = [Record(f"r{n}", "s", text=f"text {n}") for n in range(20_000)]
    shares = Counter(split_of(split_key(record), split) for record in records)
    assert shares["test"] / 20_000 == pytest.approx(0.1, abs=0.01)  # 4.7 standard errors
    assert shares["validation"] / 20_000 == pytest.approx(0.05, abs=0.008)

    def dialogue(question: str, answer: str) -> Record:
        turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        return Record("d", "s", messages=turns)

    assert split_key(dialogue("What is AI?", "A field.")) == split_key(dialogue("what is  ai?", "A science."))


def test_dialogues_pass_the_steps_for_documents(make_step: Maker, tmp_path: Path) -> None:
    rows = [
        {"messages": [{"role": "user", "content": f"Hi {n}"}, {"role": "assistant", "content": "Ho"}]}
        for n in range(40)
    ]
    rows.append({"messages": [{"role": "user", "content": "mail me"}, {"role": "assistant", "content": "to x@y.org"}]})
    (tmp_path / "d.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [*rows, rows[0]]))
    made = make_step(CorpusKind(), recipe(tmp_path / "d.jsonl", sources=[{"files": str(tmp_path / "d.jsonl")}]))
    assert made.record["failures"] == []
    assert json.loads((made.path / "fates.json").read_text())["counts"] == {"kept": 41, "duplicate": 1}
    assert [m for record in read_records(made.path, "train") for m in record.messages or ()]
    all_said = str([read_table(made.path, split, ["messages"]).to_pylist() for split in SPLITS])
    assert "to <mail>" in all_said


@pytest.mark.parametrize(
    ("content", "changes", "message"),
    [
        ("\n", {}, "thing is empty: its sources hold no row"),
        ("", {}, "keeps none of its 1 rows: 1 unreadable:empty_file"),
        ('{"txet": "x"}\n', {}, 'keeps none of its 1 rows: they have no "text". Did you mean "txet"?'),
        ('{"text": "x"}\n', {"sources": None}, "keeps none of its 1 rows: 1 filtered:too_short"),
    ],
)
def test_an_empty_corpus_says_why(
    make_step: Maker, tmp_path: Path, content: str, changes: dict[str, Any], message: str
) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text(content)
    config = recipe(path) | ({"sources": [{"files": str(path)}]} if "sources" in changes else {})
    config["sources"][0]["fields"] = {"text": "text"}
    with pytest.raises(WuxingError) as caught:
        make_step(CorpusKind(), config)
    assert message in str(caught.value)


def test_two_sources_need_two_names(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match='two sources are called "a"; give each a name'):
        CorpusConfig.model_validate(
            {"make": "corpus", "sources": [{"files": "x/a.txt"}, {"files": "y/a.txt"}], "split": SPLIT}
        )


@pytest.mark.parametrize("step", [{"privcy": {}}, {"quality": {"min_word": 3}}, {"repair": {}, "privacy": {}}, {}])
def test_a_cleaning_step_that_is_none_is_refused(step: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        CorpusConfig.model_validate({"make": "corpus", "sources": [{"files": "x"}], "split": SPLIT, "clean": [step]})


def test_a_stop_in_the_middle_leaves(make_step: Maker, data_directory: Path, tmp_path: Path) -> None:
    context = Context(home=tmp_path)
    context.stop.request()
    with pytest.raises(WuxingError, match="its finished shards are kept"):
        make_step(CorpusKind(), recipe(messy(tmp_path, data_directory)), context=context)


# Seeded faults: each breaks a finished corpus on purpose, and the evidence must say so.


def judged(directory: Path, config: CorpusConfig) -> dict[str, str]:
    evidence = Evidence()
    examine(directory, config, evidence)
    return {check.name: check.verdict for check in evidence.checks}


@pytest.fixture
def finished(make_step: Maker, data_directory: Path, tmp_path: Path) -> tuple[Path, CorpusConfig]:
    config = recipe(messy(tmp_path, data_directory))
    made = make_step(CorpusKind(), config)
    parsed = CorpusConfig.model_validate({"make": "corpus", **config})
    assert "failed" not in judged(made.path, parsed).values()
    return made.path, parsed


def plant(directory: Path, split: str, record: Record) -> None:
    write_records(directory, split, [*read_records(directory, split), record])


def test_a_training_record_in_the_test_split_is_caught(finished: tuple[Path, CorpusConfig]) -> None:
    directory, config = finished
    leaked = next(read_records(directory, "train"))
    plant(directory, "test", replace(leaked, id="leaked", text=f"  {leaked.text} ".upper().swapcase()))
    verdicts = judged(directory, config)
    assert verdicts["splits_disjoint"] == "failed"
    assert verdicts["duplicate_residue"] == "failed"


def test_near_copies_in_the_test_split_are_caught(finished: tuple[Path, CorpusConfig]) -> None:
    directory, config = finished
    for number, record in enumerate([r for r in read_records(directory, "train") if len(r.text or "") > 600][:5]):
        plant(directory, "test", replace(record, id=f"near{number}", text=f"{record.text} Planted."))
    verdicts = judged(directory, config)
    assert verdicts["duplicate_residue"] == "failed"
    assert verdicts["splits_disjoint"] == "passed"


@pytest.mark.parametrize("private", ["a.person@example.org", "203.0.113.9", "4111111111111111", "11010519491231002X"])
def test_planted_private_data_are_caught(finished: tuple[Path, CorpusConfig], private: str) -> None:
    directory, config = finished
    plant(directory, "train", Record("p", "s", text=f"Something private ({private}), said once."))
    assert judged(directory, config)["privacy_residue"] == "failed"


def test_a_lost_row_is_caught() -> None:
    from wuxing.core.record import Fates

    evidence, fates = Evidence(), Fates(total=3)
    fates.count("kept", 2)
    fates.judge(evidence)
    assert evidence.failures() == ["fates_sum is 2, asked for 3 (records with a fate, of all read)"]


def test_an_emptied_train_split_is_caught(finished: tuple[Path, CorpusConfig]) -> None:
    directory, config = finished
    write_records(directory, "train", [])
    assert judged(directory, config)["not_empty"] == "failed"


def test_workers_leave_with_a_killed_parent(data_directory: Path, tmp_path: Path) -> None:
    whole = messy(tmp_path, data_directory, 8000)
    path = tmp_path / "several"
    path.mkdir()
    for number in range(6):  # each of them more than one task holds
        (path / f"{number}.jsonl").write_bytes(whole.read_bytes())
    program = (
        "import json, sys\n"
        "from pathlib import Path\n"
        "from wuxing.core.context import Context\n"
        "from wuxing.core.step import Draft\n"
        "from wuxing.corpus.kind import CorpusKind\n"
        "config = CorpusKind.Config.model_validate(json.loads(sys.argv[1]))\n"
        "place = Path(sys.argv[2])\n"
        "CorpusKind().make(config, {}, Draft(place, 'corpus', 'x', '0' * 64, 7), Context(home=place))\n"
    )
    (tmp_path / "out").mkdir()
    config = json.dumps({"make": "corpus", **recipe(path, workers=2)})
    parent = subprocess.Popen([sys.executable, "-c", program, config, str(tmp_path / "out")])

    def children() -> list[psutil.Process]:
        found = psutil.Process(parent.pid).children(recursive=True)
        return [p for p in found if "spawn_main" in command_of(p)]

    deadline = time.monotonic() + 180
    while len(children()) < 2:
        assert parent.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    workers = children()
    parent.kill()
    parent.wait()
    assert psutil.wait_procs(workers, timeout=30)[1] == []


def command_of(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:  # it has ended since it was listed
        return ""


def test_cleaning_what_is_clean_changes_nothing(make_step: Maker, data_directory: Path, tmp_path: Path) -> None:
    once = make_step(CorpusKind(), recipe(messy(tmp_path, data_directory), split={"validation": 0, "test": 0}))
    again = recipe(once.path / "train.parquet", split={"validation": 0, "test": 0})
    again["sources"][0]["fields"] = {"text": "text"}
    twice = make_step(CorpusKind(), again, name="twice")
    assert [r.text for r in read_records(twice.path, "train")] == [r.text for r in read_records(once.path, "train")]
    steps = json.loads((twice.path / "card.json").read_text())["cleaning"]
    assert all(step["changed"] == 0 and step["dropped"] == {} for step in steps)
