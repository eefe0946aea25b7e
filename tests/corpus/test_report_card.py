"""The data card: a head that the Hugging Face hub reads, sections that say what the records say."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import DatasetCard
from report_world import EVIL, Maker, small_corpus

from wuxing.corpus.card import head_of
from wuxing.corpus.kind import CorpusKind


def head(text: str) -> dict[str, Any]:
    found = re.match(r"---\n(.*?)\n---\n", text, re.S)
    assert found
    value: dict[str, Any] = yaml.safe_load(found[1])
    return value


def card(**changes: Any) -> dict[str, Any]:
    sizes = {"train": {"records": 900}, "validation": {"records": 0}, "test": {"records": 99}}
    return {
        "name": "x",
        "licenses": ["MIT"],
        "languages": {"en": 90, "no": 9, "xx": 0, "script:latin": 100},
        "sizes": sizes,
    } | changes


def test_the_head_is_what_the_hub_reads(make_step: Maker, tmp_path: Path) -> None:
    made = small_corpus(make_step, tmp_path)
    text = (made.path / "card.md").read_text()
    data = DatasetCard(text).data.to_dict()
    assert data["license"] == ["mit"] and data["size_categories"] == ["n<1K"]
    assert data["configs"] == [
        {
            "config_name": "default",
            "data_files": [{"split": split, "path": f"{split}.parquet"} for split in ("train", "validation", "test")],
        }
    ]
    statistics = json.loads((made.path / "statistics.json").read_text())
    for fate, count in statistics["fates"].items():
        assert f"| {fate} | {count:,} |" in text
    assert "Replaced by their kind: mail 1." in text and "*Not stated.*" in text


def test_the_head_s_lists(tmp_path: Path) -> None:
    found = head(head_of(card()))
    assert found["language"] == ["en", "no"]  # never False
    assert [file["split"] for file in found["configs"][0]["data_files"]] == ["train", "test"]
    assert head(head_of(card(licenses=["Apache-2.0", "CC-BY-SA-4.0"])))["license"] == ["apache-2.0", "cc-by-sa-4.0"]
    other = head(head_of(card(licenses=["MIT", "Our Own"])))
    assert other["license"] == ["mit", "other"] and other["license_name"] == "Our Own"
    assert "language" not in head(head_of(card(languages={"script:han": 3})))


@pytest.mark.parametrize(
    ("records", "size"), [(0, "n<1K"), (999, "n<1K"), (1000, "1K<n<10K"), (5 * 10**6, "1M<n<10M"), (10**10, "n>1B")]
)
def test_sizes_are_in_the_hub_s_words(records: int, size: str) -> None:
    assert head(head_of(card(sizes={"train": {"records": records}})))["size_categories"] == [size]


def test_a_person_s_words_are_printed_and_cannot_break_the_card(make_step: Maker, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("A record of some words.")
    said = {"about": f"Letters.\n---\nlicense: gpl\n---\n{EVIL}", "uses": "Teaching | only.", "citation": "Us, 2026."}
    source = {"files": str(tmp_path / "a.txt"), "name": "a b|c", "license": "x: [y"}
    config = {"sources": [source], "split": {"validation": 0, "test": 0}, "card": said}
    made = make_step(CorpusKind(), config)
    text = (made.path / "card.md").read_text()
    assert head(text)["license"] == ["other"] and head(text)["license_name"] == "x: [y"
    assert text.count("\n---\n") == 1 and "a b\\|c" in text and "\u202e" not in text and "Us, 2026." in text
    html = (made.path / "report.html").read_text()
    assert (
        "Teaching | only." in html and "window.hurt" in html and html.count("<script") == html.count("</script>") <= 1
    )
