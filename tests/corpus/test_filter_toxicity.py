"""Word lists with neutral planted words, and placeholders."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wuxing.core.context import Context
from wuxing.core.error import UsageError, WuxingError
from wuxing.corpus.clean import missing, toxicity
from wuxing.corpus.clean.filter_config import PlaceholderConfig, ToxicityConfig
from wuxing.corpus.clean.learn import step_inputs
from wuxing.corpus.clean.toxicity import Toxicity
from wuxing.corpus.config import CorpusConfig
from wuxing.text.shingle import tokens_of

LIST = "# neutral words\nplum\nblue teapot\n红茶壶\nÉclair\nsassafras # a tree\n"


def step(tmp_path: Path, **options: Any) -> Toxicity:
    path = tmp_path / "list.txt"
    path.write_text(LIST, encoding="utf-8")
    return toxicity.build(ToxicityConfig(list=str(path), **options), Context(home=tmp_path))


def dropped(cleaner: Toxicity, texts: list[str]) -> set[int]:
    return set(cleaner.clean(pa.array(texts), {}).dropped)


def test_whole_words_between_spaces_and_any_place_in_chinese(tmp_path: Path) -> None:
    texts = [
        "A PLUM, please.", "a plumber came", "two plums", "Blue\nTeapot!", "blue big teapot", "我有一个红茶壶在家",
        "红色的茶壶", "an éclair", "ÉCLAIR", "sassafras", "neutral tree", "",
    ]  # fmt: skip
    assert dropped(step(tmp_path), texts) == {0, 3, 5, 7, 8, 9}


def test_hits_and_shares(tmp_path: Path) -> None:
    texts = ["plum plum", "plum and nine other words stand here in a row", "clean"]
    assert dropped(step(tmp_path, max_hits=1), texts) == {0}
    assert dropped(step(tmp_path, max_share=0.15), texts) == {0}
    cleaned = step(tmp_path, max_hits=1).clean(pa.array(texts), {})
    assert cleaned.measures["hits"].tolist() == [2, 1, 0]
    assert cleaned.measures["hit_share"].tolist() == pytest.approx([1, 0.1, 0])
    assert "plum" not in cleaned.dropped[0].detail, "the words of a list are not repeated in reports"


def test_leet(tmp_path: Path) -> None:
    texts = ["a p1um", "a p|um!", "545545 pieces, 54554", "$assafra5", "no plúm"]
    assert dropped(step(tmp_path), texts) == set()
    assert dropped(step(tmp_path, leet=True), texts) == {0, 1, 3}


@given(
    st.lists(
        st.lists(st.sampled_from(["plum", "Plum", "red", "blue", "teapot", "红", "茶", "壶", ",", "-"])), max_size=4
    )
)
@settings(max_examples=100, deadline=None)
def test_hits_are_those_of_a_slow_search(tmp_path_factory: pytest.TempPathFactory, words: list[list[str]]) -> None:
    texts = [" ".join(mine) for mine in words]
    cleaned = step(tmp_path_factory.mktemp("list")).clean(pa.array(texts, pa.string()), {})
    phrases = [("plum",), ("blue", "teapot"), ("红", "茶", "壶")]
    for text, hits in zip(texts, cleaned.measures["hits"], strict=True):
        tokens = tokens_of(text)
        expected = sum(
            tuple(tokens[at : at + len(phrase)]) == phrase for phrase in phrases for at in range(len(tokens))
        )
        assert hits == expected


def test_planted_words_are_all_found_and_clean_text_stays(tmp_path: Path, data_directory: Path) -> None:
    """Precision and recall 1 over 4,000 articles, a tenth of them with a planted word."""
    with gzip.open(data_directory / "text" / "wikipedia-leads-en.jsonl.gz", "rt", encoding="utf-8") as lines:
        texts = [json.loads(line)["text"] for line, _ in zip(lines, range(4000), strict=False)]
    truth = {n for n, text in enumerate(texts) if {"plum", "sassafras", "éclair"} & set(tokens_of(text))}
    rng = random.Random(5)
    for n in range(0, 4000, 10):
        words = texts[n].split(" ")
        words.insert(rng.randrange(len(words)), rng.choice(["plum", "Sassafras,", "(blue teapot)", "红茶壶"]))
        texts[n] = " ".join(words)
        truth.add(n)
    truth |= {n for n, text in enumerate(texts) if "blue teapot" in " ".join(tokens_of(text))}
    assert dropped(step(tmp_path), texts) == truth


def test_a_list_decides_the_version_by_its_content(tmp_path: Path) -> None:
    one, two = tmp_path / "one.txt", tmp_path / "two.txt"
    one.write_text("plum")
    two.write_text("plum")

    def inputs(path: Path) -> dict[str, str]:
        raw = {
            "make": "corpus",
            "sources": [{"files": "x"}],
            "clean": [{"toxicity": {"list": str(path)}}],
            "split": {"validation": 0, "test": 0},
        }
        return step_inputs(CorpusConfig.model_validate(raw), Context(home=tmp_path))

    before = inputs(one)
    assert before and before == inputs(two)
    one.write_text("plum\npear")
    assert inputs(one) != before
    with pytest.raises(UsageError, match="there is no file"):
        inputs(tmp_path / "none.txt")
    for empty in ("", "# only\n", "...\n"):
        one.write_text(empty)
        with pytest.raises(WuxingError, match="holds no word"):
            toxicity.build(ToxicityConfig(list=str(one)), Context(home=tmp_path))


def test_placeholders(tmp_path: Path) -> None:
    config, context = PlaceholderConfig(words=("niente",)), Context(home=tmp_path)
    texts = [
        "N/A", " null ", "-", "……", "[deleted]", "暂无内容。", "（无）", "Niente!", "", "  \n", "Coming soon...",
        "#N/A", "no", "Null hypothesis", "暂无内容可看的人很多", "a", "42", "好",
    ]  # fmt: skip
    cleaner = missing.build(config, context)
    assert set(cleaner.clean(pa.array(texts), {}).dropped) == set(range(12))
    assert not cleaner.dialogues and missing.build(PlaceholderConfig(turns=True), context).dialogues
