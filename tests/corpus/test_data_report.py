"""The data report: every figure stands in the files, both languages say the same, equal files give equal bytes."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from report_world import EVIL, Maker, small_corpus

from wuxing.core.artifact import Artifact
from wuxing.core.evidence import Evidence
from wuxing.core.file import read_json, write_json
from wuxing.corpus.kind import CorpusKind
from wuxing.corpus.report import write_report
from wuxing.corpus.report.facts import Facts, collect
from wuxing.corpus.report.present import present, stages_of
from wuxing.corpus.report.string import TEXT
from wuxing.corpus.report.warning import warnings_of
from wuxing.corpus.report.words import words_of
from wuxing.page.block import Figure, figures_of, plots_of
from wuxing.page.difference import differences
from wuxing.page.number import format_count, format_share
from wuxing.page.render import loaded_things, render_html


@pytest.fixture
def corpus(make_step: Maker, tmp_path: Path) -> Artifact:
    return small_corpus(make_step, tmp_path)


def facts_of(corpus: Artifact) -> Facts:
    return collect(corpus.path, "corpus/rows", corpus.evidence)


def at(value: Any, pointer: str) -> Any:
    """RFC 6901, written again."""
    for part in pointer.split("/")[1:]:
        part = part.replace("~1", "/").replace("~0", "~")
        value = value[int(part)] if isinstance(value, list) else value[part]
    return value


def test_every_figure_is_what_stands_at_its_place(corpus: Artifact) -> None:
    statistics = json.loads((corpus.path / "statistics.json").read_text())
    figures = figures_of(present(facts_of(corpus), words_of("en")))
    counts = shares = 0
    for figure in figures:
        assert figure.source.startswith("corpus/rows ")
        file, _, where = figure.source.removeprefix("corpus/rows ").partition("#")
        if file != "statistics.json":
            assert file.startswith(("evidence.json", "card.json"))
            continue
        if "÷" in where:
            part, _, whole = where.partition(" ÷ #")
            assert figure.text == format_share(at(statistics, part), at(statistics, whole))
            shares += 1
            continue
        value = at(statistics, where)
        if isinstance(value, int) and figure.value == value and not re.search(r"[a-zA-Z]", figure.text):
            assert figure.text == format_count(value)
            counts += 1
    assert counts > 45 and shares > 12


def test_the_page_is_whole_loads_nothing_and_runs_nothing(corpus: Artifact) -> None:
    for name in ("report.html", "report.zh.html"):
        html = (corpus.path / name).read_text(encoding="utf-8")
        Whole(html)
        assert loaded_things(html) == []
        assert html.count("<script") == 1 and "window.hurt" in html
        assert "\u202e" not in html and "\x00" not in html and "someone@example.org" not in html
        assert html.count("<svg") == len(plots_of(present(facts_of(corpus), words_of("en"))))
        assert len(html) < 3_000_000


class Whole(HTMLParser):
    """Every opened element is closed in order, and every id is there once."""

    VOID = {"meta", "img", "br", "rect", "line", "polyline", "polygon", "circle", "link"}

    def __init__(self, html: str):
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.scripts = 0
        self.feed(html)
        assert self.open == [] and len(set(self.ids)) == len(self.ids)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.open += [tag] if tag not in self.VOID else []
        self.ids += [value for name, value in attributes if name == "id" and value]
        assert not {name for name, _ in attributes if name.startswith("on") or name == "style"}

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag


def test_equal_files_give_equal_bytes(corpus: Artifact) -> None:
    before = [(corpus.path / name).read_bytes() for name in ("report.html", "report.zh.html")]
    write_report(corpus.path, "rows", corpus.evidence)
    assert [(corpus.path / name).read_bytes() for name in ("report.html", "report.zh.html")] == before


def test_the_flow_ends_with_what_was_kept_and_loses_the_rest(corpus: Artifact) -> None:
    facts = facts_of(corpus)
    stages = stages_of(facts, words_of("en"))
    assert stages[0].records == facts.at("rows") and stages[-1].records == facts.at("kept")
    for stage, following in pairwise(stages):
        assert following.records == stage.records - stage.lost
    assert sum(stage.lost for stage in stages) == facts.at("rows") - facts.at("kept")
    by_label = {stage.label: stage.lost for stage in stages}
    assert by_label["reading"] == 1 and by_label["equal to another"] == facts.at("fates", "duplicate")
    assert by_label["Quality"] == sum(facts.at("steps", 1, "dropped").values()) >= 30


def test_drops_and_changes_show_their_records(corpus: Artifact) -> None:
    html = (corpus.path / "report.html").read_text()
    assert "filtered:too_short" in html and "Short 1" in html
    assert "&lt;mail&gt;" in html  # what the privacy step left in the text
    changed = pq.read_table(corpus.path / "changed.parquet").to_pylist()
    assert any(row["step"] == "3:privacy" for row in changed) and "<ins>&lt;mail&gt;</ins>" in html


@pytest.mark.parametrize("key", sorted(TEXT))
def test_both_languages_have_the_same_figures_in_their_sentences(key: str) -> None:
    english, chinese = TEXT[key]
    assert set(re.findall(r"\{\w+\}", english)) == set(re.findall(r"\{\w+\}", chinese))
    if len(english) > 24 and key != "subtitle":
        assert re.search(r"[一-鿿]", chinese) and not re.search(r"[一-鿿]", english)


def test_the_chinese_page_has_no_english_sentence(corpus: Artifact) -> None:
    html = (corpus.path / "report.zh.html").read_text()
    html = re.sub(r"<(style|script|code|bdi|svg|pre)\b.*?</\1>", "", html, flags=re.S)
    text = re.sub(r"<[^>]+>", " ", html)
    assert not re.findall(r"(?:[A-Za-z]{2,} ){4,}", re.sub(r"corpus/\S+ \S+", "", text))


def test_differences_put_both_texts_together_again() -> None:
    for before, after in (
        ("abc", "abd"),
        ("", "x"),
        ("mail a@b.c now", "mail <mail> now"),
        ("same", "same"),
        ("床前明月光", "床前月光"),
    ):
        left, right = differences(before, after)
        assert "".join(text for _, text in left) == before and "".join(text for _, text in right) == after
        assert [text for kind, text in left if kind == "same"] == [text for kind, text in right if kind == "same"]


# ------------------------------------------------------------------------------------------------ seeded faults
def kinds_of(facts: Facts) -> set[str]:
    return {warning.kind for warning in warnings_of(facts, words_of("zh"))}


def test_every_warning_fires_on_its_fault_only(corpus: Artifact) -> None:
    facts = facts_of(corpus)
    statistics = facts.statistics
    statistics["fates"] = {"kept": statistics["rows"]}
    for split in ("validation", "test"):
        statistics["splits"][split]["records"] = 100
    train = statistics["splits"]["train"]
    train["labels"] = {"a": 50, "b": 40}
    assert kinds_of(facts) == set()
    statistics["fates"]["unreadable:broken_json"] = statistics["rows"] // 10
    assert kinds_of(facts) == {"unreadable"}
    del statistics["fates"]["unreadable:broken_json"]
    statistics["fates"]["filtered:too_short"] = statistics["rows"] // 2
    assert kinds_of(facts) == {"large_loss"}
    del statistics["fates"]["filtered:too_short"]
    source = statistics["sources"][0]
    kept, source["kept"] = source["kept"], 0
    assert kinds_of(facts) == {"source_lost"}
    source["kept"], source["license"] = kept, "unknown"
    assert kinds_of(facts) == {"license"}
    source["license"] = "MIT"
    statistics["splits"]["test"]["records"] = 3
    assert kinds_of(facts) == {"few_held_out"}
    statistics["splits"]["test"]["records"] = 100
    train["labels"] = {"a": 50, "b": 2}
    assert kinds_of(facts) == {"rare_label"}
    train["labels"] = {"a": 5000, "b": 20}
    assert kinds_of(facts) == {"imbalance"}
    train["labels"] = {}
    statistics["privacy"]["left"] = {"mail": 4}
    assert kinds_of(facts) == {"private_left"}
    statistics["privacy"]["left"] = {}
    near = {"dropped": 98, "clusters": 1, "sizes": {"64": 1}, "largest": [{"id": "x", "size": 99, "members": []}]}
    exact, statistics["duplicates"]["exact"] = statistics["duplicates"]["exact"], near
    assert kinds_of(facts) == {"large_cluster"}
    statistics["duplicates"]["exact"] = exact
    evidence = Evidence()
    evidence.judge("splits_disjoint", False, 3, 0, "contents in two splits")
    facts.checks = evidence.checks
    assert [(w.kind, w.grave) for w in warnings_of(facts, words_of("en"))] == [("failed", True)]


def test_a_corpus_without_anything_special_still_has_a_report(make_step: Maker, tmp_path: Path) -> None:
    (tmp_path / "one.txt").write_text("A single record of a few words.")
    config = {"sources": [{"files": str(tmp_path / "one.txt")}], "split": {"validation": 0, "test": 0}}
    made = make_step(CorpusKind(), config)
    Whole((made.path / "report.html").read_text())


def test_hostile_names_and_a_thousand_fates_stay_a_page(corpus: Artifact) -> None:
    statistics = read_json(corpus.path / "statistics.json")
    statistics["fates"] |= {f"filtered:{EVIL}-{n}": 1 for n in range(1000)}
    statistics["steps"][0]["found"] = {EVIL: 3}
    statistics["sources"][0]["name"] = EVIL * 20
    statistics["splits"]["train"]["languages"] = {EVIL: 5, "": 2}
    write_json(corpus.path / "statistics.json", statistics)
    table = pa.table({"id": [EVIL], "fate": [f"filtered:{EVIL}-0"], "detail": [EVIL], "text": ["x" * 1_000_000]})
    pq.write_table(table, corpus.path / "dropped.parquet")
    html = render_html(present(facts_of(corpus), words_of("zh")), words_of("zh"))
    Whole(html)
    assert loaded_things(html) == [] and "\u202e" not in html and len(html) < 3_000_000


def test_figures_know_their_value_for_sorting(corpus: Artifact) -> None:
    facts = facts_of(corpus)
    figure = facts.count("fates", "kept")
    assert isinstance(figure, Figure) and figure.value == facts.at("kept")
    assert at({"a/b": {"~": [7]}}, "/a~1b/~0/0") == 7
    facts.statistics["a/b"] = {"~": [7]}
    assert facts.count("a/b", "~", 0).source.endswith("#/a~1b/~0/0")
