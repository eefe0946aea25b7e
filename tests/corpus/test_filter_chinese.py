"""Chinese script, conversion, width; half-translated pages against labels made by reading."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from wuxing.core.context import Context
from wuxing.corpus.clean.chinese import Chinese, build, counts
from wuxing.corpus.clean.cleaner import Cleaned
from wuxing.corpus.clean.filter_config import ChineseConfig

HALF = [
    *(
        1,
        73,
        85,
        122,
        129,
        136,
        170,
        206,
        238,
        241,
        290,
        385,
        389,
        390,
        406,
        591,
        637,
        645,
        681,
        689,
        791,
        902,
        914,
        916,
    ),
    *(925, 926, 927, 936, 950, 952, 953, 962, 974, 997, 1103, 1145, 1159),
]
"""Help pages of which a reader would say that a good part of the prose is not translated ..."""
WHOLE = [
    *(
        9,
        22,
        30,
        31,
        34,
        40,
        60,
        61,
        107,
        121,
        143,
        149,
        174,
        178,
        185,
        192,
        220,
        221,
        378,
        381,
        388,
        400,
        429,
        435,
        437,
    ),
    *(478, 495, 504, 520, 552, 569, 595, 621, 622, 768, 785, 808, 811, 813, 820, 833, 839, 858, 859, 861, 1023),
    *(1050, 1063, 1082, 1128, 1146, 1153),
]
"""... and pages that are Chinese, names and programs aside: 100 drawn by chance, less 10 that are either."""
HALF_LATER = [118, 202, 387, 702, 894, 903, 938, 947, 948, 994, 1081]
WHOLE_LATER = [
    *(5, 26, 46, 137, 141, 172, 195, 211, 259, 330, 366, 368, 453, 506, 515, 605, 752, 757, 779, 821, 837, 852, 987),
    *(1030, 1053, 1064, 1138, 1149, 1183),
]
"""45 more, read after the measure and its bound were chosen, less 5."""


def clean(texts: list[str], notes: dict[str, Any] | None = None, **options: Any) -> Cleaned:
    return build(ChineseConfig(**options), Context()).clean(pa.array(texts, pa.string()), notes or {})


def read(path: Path) -> list[str]:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line)["text"] for line in lines]


def test_scripts_and_what_has_none() -> None:
    texts = [
        "头发和发现，这是简体中文。", "頭髮和發現，這是繁體中文。", "汉语漢語，简体簡體，国家國家。",
        "人口手", "English only",
        "",
        "これは日本の国の学校です", "东京大学的学生", "皇后的后宫里",
        "Beijing (北京) is a city with a long English text " * 5,
    ]  # fmt: skip
    cleaned = clean(texts)
    assert cleaned.notes["script"] == [
        "simplified", "traditional", "mixed", None, None, None, None, "simplified", "simplified", None
    ]  # fmt: skip
    japanese = clean(["国学会"], {"language": ["ja"]})
    assert japanese.notes["script"] == [None]


def test_conversion_goes_by_phrases() -> None:
    texts = ["頭髮長了，他發現皇后在後宮", "头发长了，他发现皇后在后宫", "乾坤與乾淨", "English", "鼠标和软件"]
    assert clean(texts, to="simplified").values.to_pylist() == [
        "头发长了，他发现皇后在后宫", "头发长了，他发现皇后在后宫", "乾坤与干净", "English", "鼠标和软件"
    ]  # fmt: skip
    assert clean(texts[:2], to="traditional").values.to_pylist() == ["頭髮長了，他發現皇后在後宮"] * 2
    assert clean(["鼠标和软件"], to="taiwan").values.to_pylist() == ["滑鼠和軟體"]
    assert clean(["里面"], to="hongkong").values.to_pylist() == ["裏面"]
    assert clean(texts, to="simplified").notes["script"] == ["simplified"] * 3 + [None, "simplified"]
    again = clean(texts, to="simplified").values
    assert build(ChineseConfig(to="simplified"), Context()).clean(again, {}).values.equals(again)


def test_width() -> None:
    texts = ["ＡＢＣ１２３，你好！", "plain", "（全角）　空格"]
    assert clean(texts, width="letters").values.to_pylist() == ["ABC123，你好！", "plain", "（全角）　空格"]
    assert clean(texts, width="all").values.to_pylist() == ["ABC123,你好!", "plain", "(全角) 空格"]
    untouched = pa.array(["plain", "你好"])
    assert build(ChineseConfig(width="all"), Context()).clean(untouched, {}).values is untouched


def test_counts_are_those_of_single_texts() -> None:
    texts = ["头a髮", "", "é你ア", "𠀀b", "!"]
    rows = counts(pa.array(texts))
    for text, row in zip(texts, rows.tolist(), strict=True):
        assert row == counts(pa.array([text])).tolist()[0] and sum(row) == len(text)


def test_scripts_and_round_trip_of_poems(data_directory: Path) -> None:
    """20,000 traditional poems: no script wrong before or after; 98.8 % of the characters come back."""
    poems = read(data_directory / "text" / "tang-poems-zh.jsonl.gz")
    said = clean(poems).notes["script"]
    assert said.count("traditional") / len(poems) > 0.995
    assert not said.count("simplified") and not said.count("mixed")
    simple = clean(poems, to="simplified").values.to_pylist()
    said = clean(simple).notes["script"]
    assert said.count("simplified") / len(poems) > 0.994 and not said.count("traditional") and not said.count("mixed")
    back = clean(simple, to="traditional").values.to_pylist()
    same = sum(a == b for old, new in zip(poems, back, strict=True) for a, b in zip(old, new, strict=True))
    assert same / sum(map(len, poems)) > 0.985


@pytest.mark.parametrize(
    ("half", "whole", "least"),
    [(HALF, WHOLE, (0.97, 0.83)), (HALF_LATER, WHOLE_LATER, (0.9, 0.9))],
    ids=["where the bound was chosen", "held out"],
)
def test_half_translated_pages_by_reading(
    data_directory: Path, half: list[int], whole: list[int], least: tuple[float, float]
) -> None:
    pages = read(data_directory / "messy" / "half-translated-help-zh.jsonl.gz")
    dropped = set(clean(pages, min_han_ratio=0.6, foreign_han_ratio=0).dropped)
    foreign = {n for n, page in enumerate(pages) if not counts(pa.array([page]))[0, 2:5].sum()}
    found = (dropped | foreign) & {*half, *whole}  # a page without any Chinese is the language filter's
    precision, recall = len(found & set(half)) / len(found), len(found & set(half)) / len(half)
    print(f"precision {precision:.3f}, recall {recall:.3f}", sorted(set(half) - found), sorted(found - set(half)))
    assert precision >= least[0] and recall >= least[1]


def test_half_translated_spares_other_languages_and_programs() -> None:
    code = "这个函数返回列表。\n\n    def f(x):\n        return the value of this list for all of them\n"
    half = (
        "这个函数返回列表。\nIt returns all of the values of the list in the order of their keys, if there are any.\n"
    )
    cleaned = clean([code, half, "English about 北京 " + "and more text " * 20, "全是中文。"], min_han_ratio=0.6)
    assert {place: drop.reason for place, drop in cleaned.dropped.items()} == {1: "half_translated"}


def test_a_chinese_step_is_stateless() -> None:
    step = Chinese(ChineseConfig(to="simplified"))
    texts = ["發現", "头发", "x"]
    whole = step.clean(pa.array(texts), {}).values.to_pylist()
    assert whole == [step.clean(pa.array([text]), {}).values[0].as_py() for text in texts]
