"""Every example of the prepare page runs; both languages of the page show the same ones."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from wuxing.core.artifact import Artifact
from wuxing.core.exchange import Exchange, ExchangeLog, Judgement, now
from wuxing.corpus.clean import CLEANERS
from wuxing.corpus.kind import CorpusKind
from wuxing.source import READERS
from wuxing.text.tokenizer_kind import TokenizerKind

DOCS = Path(__file__).parents[2] / "docs"
SPLIT = {"validation": 0.0, "test": 0.0}
PROSE = "The house stood at the end of the road, and nobody had lived in it for a long time, as far as they knew. "


def blocks(language: str) -> list[Any]:
    page = (DOCS / language / "prepare.md").read_text(encoding="utf-8")
    return [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", page, re.S)]


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The files that the page's examples name."""
    monkeypatch.chdir(tmp_path)
    for folder in ("notes", "tables"):
        (tmp_path / folder).mkdir()
    (tmp_path / "notes" / "a.md").write_text("# One\n\nA paragraph.\n\nAnother one.\n")
    (tmp_path / "tables" / "q.csv").write_text("question,answer\nWho?,You.\nWhat?,\n")
    (tmp_path / "talks.jsonl.gz").write_bytes(gzip.compress(b'{"text": "One talk."}\n{"text": "Another."}\n'))
    (tmp_path / "old.txt").write_bytes("床前明月光，疑是地上霜。".encode("gb18030"))
    (tmp_path / "alpaca.json").write_text(json.dumps([{"instruction": "Say so.", "input": "", "output": "So."}]))
    log = ExchangeLog(tmp_path, "first-model")
    asked = [{"role": "user", "content": "Hi"}]
    log.write(Exchange("e1", now(), "release/first-model@v1", "m", "t", asked, "Ho", "stop", {}, {}))
    log.judge(Judgement("e1", "up", now()))
    return tmp_path


def source_blocks() -> list[list[dict[str, Any]]]:
    lists = [block for block in blocks("en") if isinstance(block, list)]
    return [block for block in lists if isinstance(block[0], dict) and set(block[0]) & set(READERS)]


def test_the_page_shows_every_reader_and_every_cleaning_step() -> None:
    shown = {key for block in source_blocks() for source in block for key in source}
    elsewhere = (DOCS / "en" / "remote.md").read_text(encoding="utf-8")
    assert {reader for reader in READERS if reader not in shown and f"{reader}:" not in elsewhere} == set()
    [steps] = [block for block in blocks("en") if isinstance(block, list) and block not in source_blocks()]
    assert [step if isinstance(step, str) else next(iter(step)) for step in steps] == list(CLEANERS)[: len(steps)]
    for language in ("en", "zh"):
        pages = "".join(path.read_text(encoding="utf-8") for path in (DOCS / language).glob("*.md"))
        assert {name for name in CLEANERS if f"`{name}`" not in pages and f"- {name}" not in pages} == set()


def test_both_languages_show_the_same_examples() -> None:
    def written(language: str) -> str:
        return json.dumps(blocks(language), ensure_ascii=False).replace("/chinese/", "/english/")

    assert written("en") == written("zh")


def test_sources_of_files_and_exchanges_run(make_step: Callable[..., Artifact], world: Path) -> None:
    fates: dict[str, int] = {}
    for block in source_blocks():
        for source in block:
            if "package" not in source:
                made = make_step(CorpusKind(), {"sources": [source], "split": SPLIT}, name=str(len(fates)))
                for fate, count in json.loads((made.path / "fates.json").read_text())["counts"].items():
                    fates[fate] = fates.get(fate, 0) + count
    assert fates == {"kept": 3 + 1 + 2 + 1 + 1 + 1, "filtered:missing_field": 1}


@pytest.mark.network
def test_the_cleaning_steps_run_with_their_documented_defaults(make_step: Callable[..., Artifact], world: Path) -> None:
    (world / "prose.txt").write_text(
        "\n".join(f"{PROSE}{number}" for number in range(3))
        + "\nMail a@b.org "
        + PROSE * 3
        + "It was sold. We saw it. No more."
    )
    [steps] = [block for block in blocks("en") if isinstance(block, list) and block not in source_blocks()]
    source = {"files": "prose.txt", "per": "line"}
    written = make_step(CorpusKind(), {"sources": [source], "clean": steps, "split": SPLIT})
    bare = [step if isinstance(step, str) or "language" in step else next(iter(step)) for step in steps]
    plain = make_step(CorpusKind(), {"sources": [source], "clean": bare, "split": SPLIT}, name="plain")
    assert written.record["config"]["clean"] == plain.record["config"]["clean"]
    assert json.loads((written.path / "fates.json").read_text())["counts"] == {"filtered:too_short": 3, "kept": 1}


@pytest.mark.network
def test_the_whole_steps_run(make_step: Callable[..., Artifact]) -> None:
    steps = {name: step for block in blocks("en") if isinstance(block, dict) for name, step in block.items()}
    assert list(steps) == ["articles", "vocabulary"]
    articles = make_step(CorpusKind(), steps["articles"], name="articles")
    assert articles.record["failures"] == []
    assert articles.record["summary"]["kept"] > 9800
    vocabulary = make_step(TokenizerKind(), steps["vocabulary"], {"corpus": articles}, name="vocabulary")
    assert vocabulary.record["failures"] == []
    assert vocabulary.record["summary"]["ids"] == 8192
    assert vocabulary.evidence.value("bytes_per_token")["en"] > 3.8
