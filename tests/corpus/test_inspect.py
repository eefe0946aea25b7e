"""A look at data before a recipe is written."""

from __future__ import annotations

import gc
import io
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any

import pytest
import yaml

from wuxing.core.artifact import Artifact
from wuxing.core.context import Context
from wuxing.core.error import UsageError
from wuxing.core.record import Record
from wuxing.corpus.examine import Examined
from wuxing.corpus.inspect import SHOWN_SAMPLES, inspect, source_of
from wuxing.corpus.kind import CorpusKind
from wuxing.corpus.report.inspection import write_page
from wuxing.page.render import loaded_things
from wuxing.source.config import SourceConfig


def offline(tmp_path: Path) -> Context:
    """A context whose language model is no model: scripts are counted in its place."""
    return Context(home=tmp_path / "home")


@pytest.mark.network
def test_what_it_finds_in_real_dialogues(data_directory: Path, tmp_path: Path) -> None:
    found = inspect(data_directory / "chat" / "alpaca_zh_demo.jsonl.gz", Context(home=tmp_path))
    assert found.formats == {"jsonl": 1}
    assert (found.rows, found.whole) == (1000, True)
    assert found.reading["prompt"] == "{instruction}\n\n{input}" and found.reading["reply"] == "output"
    assert found.columns["instruction"] == {"present": 1.0, "missing": 0, "types": {"str": 1000}}
    assert found.records == {"dialogues": 1000}
    assert found.languages["zh"] > 900
    assert found.duplicates["equal"] == pytest.approx(0.008)
    assert found.characters["min"] < found.characters["median"] < found.characters["max"]
    json.dumps(found.to_json(), allow_nan=False)


def test_private_data_are_counted_and_never_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    for name in ("PIP_FIND_LINKS", "PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    lines = [{"text": f"Write to someone{n}@example.org about the house on the hill."} for n in range(5)]
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"text": \n')
    found = inspect(tmp_path / "p.jsonl", offline(tmp_path))
    assert found.private == {"mail": 5}
    assert found.records == {"documents": 5, "not read: broken_json": 1}
    assert found.would_drop == {"too_short": 5}
    assert "@" not in json.dumps(found.samples)
    assert found.languages == {"script:latin": 5}
    assert "scripts in place of languages" in found.notes[0]


def test_it_stops_at_a_bound_and_says_so(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("one\ntwo\nthree\n")
    found = inspect(SourceConfig(files=str(tmp_path / "t.txt"), per="line"), offline(tmp_path), max_rows=2)
    assert (found.rows, found.whole) == (2, False)


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="There is no file"):
        inspect(tmp_path / "nothing")


# ------------------------------------------------------------------------------------------- every kind of data
@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Context:
    """A context without network: scripts stand in for languages."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    for name in ("PIP_FIND_LINKS", "PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    return offline(tmp_path)


def notes(count: int) -> list[dict[str, Any]]:
    state = Random(1)
    syllables = [a + b for a in "bdgklmnprst" for b in "aeiou"]

    def text() -> str:
        words = ["".join(state.choice(syllables) for _ in range(3)) for _ in range(60)]
        return f"The {' '.join(words)} were seen, and that is what it was."

    return [{"text": text(), "label": f"l{n % 2}"} for n in range(count)]


def picture(size: tuple[int, int]) -> bytes:
    from PIL import Image

    out = io.BytesIO()
    Image.effect_noise(size, 80).save(out, "PNG")
    return out.getvalue()


def test_pictures_sounds_preferences_archives_and_tables_are_looked_at(tmp_path: Path, bare: Context) -> None:
    import numpy as np
    import soundfile

    for label in ("cat", "dog"):
        (tmp_path / "pictures" / label).mkdir(parents=True)
        for n in range(3):
            (tmp_path / "pictures" / label / f"{n}.png").write_bytes(picture((20 + n, 30)))
    (tmp_path / "pictures" / "dog" / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\nno")
    found = inspect(tmp_path / "pictures", bare)
    assert found.records["pictures"] == 7 and found.labels == {"cat": 3, "dog": 4}
    assert found.would_drop["broken_image"] == 1 and found.would_drop_examples["broken_image"]["id"].endswith(
        "bad.png#0"
    )
    assert found.measures["image"]["width"]["max"] == 22 and found.characters == {} and found.languages == {}
    assert "- image" in found.suggestion and found.duplicates == {"equal": 0.0}

    (tmp_path / "sounds").mkdir()
    soundfile.write(tmp_path / "sounds" / "a.wav", np.sin(np.arange(8000) / 5), 8000)
    found = inspect(tmp_path / "sounds", bare)
    assert found.records == {"sounds": 1} and found.measures["audio"]["seconds"]["max"] == pytest.approx(1.0)

    pairs = [{"prompt": f"Question {n}?", "chosen": "Yes.", "rejected": "No."} for n in range(4)]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    found = inspect(tmp_path / "pairs.jsonl", bare)
    assert found.records == {"preferences": 4} and found.samples[0]["chosen"] == "Yes."

    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        archive.writestr("a.jsonl", "".join(json.dumps(row) + "\n" for row in notes(3)))
        archive.writestr("b.txt", "A single text.")
    found = inspect(tmp_path / "all.zip", bare)
    assert found.records["documents"] == 4


def test_figures_are_those_of_a_slow_count(tmp_path: Path, bare: Context) -> None:
    rows = notes(700)
    rows += rows[:50] + [{"text": row["text"] + " One more."} for row in rows[50:80]] + [{"label": "x"}, {"text": ""}]
    (tmp_path / "n.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = inspect(tmp_path / "n.jsonl", bare)
    lengths = sorted(len(row["text"]) for row in rows if row.get("text"))
    assert (found.rows, found.whole) == (len(rows), True)
    assert found.columns["text"] == {"present": round(780 / 782, 4), "missing": 2, "types": {"str": 781}}
    assert found.characters["min"] == lengths[0] and found.characters["max"] == lengths[-1]
    assert found.characters["total"] == sum(lengths)
    assert found.characters["median"] == pytest.approx(lengths[len(lengths) // 2], rel=0.01)
    assert sum(found.lengths["counts"]) == len(lengths)
    assert found.duplicates["equal"] == pytest.approx(50 / 780, abs=1e-4)
    assert found.duplicates["near"] == pytest.approx(30 / 730, abs=0.003)
    assert sum(count for kind, count in found.records.items()) == len(rows)
    assert found.not_read["missing_field"][0]["place"].startswith("n.jsonl#")


def test_rows_do_not_stay_in_memory(tmp_path: Path, bare: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    """Records are looked at in chunks: what stays is keys and figures, and the few that are shown."""
    alive: list[int] = []
    look = Examined.add

    def counted(self: Examined, records: Sequence[Record]) -> None:
        look(self, records)
        gc.collect()
        alive.append(sum(isinstance(value, Record) for value in gc.get_objects()))

    monkeypatch.setattr(Examined, "add", counted)
    monkeypatch.setattr("wuxing.corpus.inspect.CHUNK_ROWS", 20)
    (tmp_path / "n.jsonl").write_text("".join(json.dumps(row) + "\n" for row in notes(200)))
    before = sum(isinstance(value, Record) for value in gc.get_objects())
    assert inspect(tmp_path / "n.jsonl", bare).rows == 200
    assert len(alive) == 10 and max(alive) - before <= 20 + SHOWN_SAMPLES + 2


def test_the_suggestion_makes_a_corpus(tmp_path: Path, bare: Context, make_step: Callable[..., Artifact]) -> None:
    for name, lines in {
        "docs.jsonl": notes(60),
        "odd 名 #: name.jsonl": [{"body": row["text"], "text": ""} | {"text": row["text"]} for row in notes(30)],
        "talks.jsonl": [{"instruction": f"Say {n}", "input": "", "output": f"It is {n}."} for n in range(40)],
    }.items():
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in lines))
        found = inspect(tmp_path / name, bare)
        keys = yaml.safe_load(found.suggestion)
        made = make_step(CorpusKind(), keys, name="made")
        assert made.record["summary"]["kept"] > 0, found.suggestion


def test_sources_of_every_origin_may_be_written(tmp_path: Path, bare: Context) -> None:
    import sqlite3

    with sqlite3.connect(tmp_path / "a.db") as database:
        database.execute("create table notes (id integer primary key, text text)")
        database.executemany("insert into notes (text) values (?)", [(row["text"],) for row in notes(5)])
    source = source_of(f'{{sql: {{url: "sqlite:///{tmp_path}/a.db", query: "select * from notes order by id"}}}}')
    assert inspect(source, bare).records == {"documents": 5}
    assert source_of("https://example.org/a.jsonl").files == "https://example.org/a.jsonl"
    for wrong in ("{sql: 3}", "{none: x}", "{", "{files: a, git: b}"):
        with pytest.raises(UsageError):
            source_of(wrong)


def test_the_page_holds_what_was_found_and_nothing_runs(tmp_path: Path, bare: Context) -> None:
    evil = "</script><script>window.hurt=1</script> \u202e"
    rows = [*notes(20), {"text": evil * 3, "label": evil, evil: 1}, {"text": "mail a@example.org please " * 3}]
    (tmp_path / "n.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = inspect(tmp_path / "n.jsonl", bare).to_json()
    for language in ("en", "zh"):
        write_page(tmp_path / "page.html", found, language)
        html = (tmp_path / "page.html").read_text()
        assert loaded_things(html) == [] and html.count("<script") <= 1 and "\u202e" not in html
        assert "example.org" not in html and "too_short" in str(found["would_drop"]) and html.count("<svg") >= 4
        assert "make: corpus" in html
    with pytest.raises(UsageError, match="there is no folder"):
        write_page(tmp_path / "none" / "page.html", found)


def test_the_command_prints_for_people_and_programs(tmp_path: Path) -> None:
    (tmp_path / "n.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [*notes(30), {"text": "a\x1b[2J"}]))
    environment = {**os.environ, "PIP_NO_INDEX": "1", "WUXING_HOME": str(tmp_path / "home"), "OMP_NUM_THREADS": "1"}

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "wuxing", "inspect", *words]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    text = run("n.jsonl", "--page", "page.html").stdout
    assert "make: corpus" in text and "█" in text and "\x1b" not in text and (tmp_path / "page.html").is_file()
    answer = json.loads(run("n.jsonl", "--rows", "5", "--json").stdout)
    assert (answer["rows"], answer["whole"]) == (5, False)
    wrong = run("none.jsonl")
    assert wrong.returncode == 2 and len(wrong.stderr.strip().splitlines()) == 1
