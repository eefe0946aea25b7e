"""Boilerplate: counts against a slow truth, rules against lines labelled by hand, planted frames on real articles."""

from __future__ import annotations

import gzip
import json
import random
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wuxing.core.context import Context
from wuxing.corpus.clean import boilerplate
from wuxing.corpus.clean.boilerplate import Boilerplate, _left
from wuxing.corpus.clean.boilerplate_rules import RULES, pattern
from wuxing.corpus.config import CorpusConfig

FRAME = """We use cookies to improve your experience on our site.
This website uses its own and third-party cookies.
Accept all cookies
By continuing to browse, you agree to our use of cookies.
Please enable JavaScript to view the comments.
JavaScript is disabled in your browser.
You need to enable JavaScript to run this app.
Sorry, your browser does not support the video tag.
© 2023 Example Ltd. All rights reserved.
Copyright (c) 2010-2020 The Authors
Privacy Policy | Terms of Service | Contact Us
Home > News > Search
• Facebook • Twitter • RSS
Read more
Continue reading »
Share on Facebook
Follow us on Twitter for updates
Subscribe to our newsletter
Page 3 of 12
Skip to main content | Menu
Sign in | Register
本网站使用cookie，以便为您提供更好的服务。
接受全部cookies
请启用浏览器的JavaScript以继续浏览。
您的浏览器不支持HTML5视频。
版权所有 © 2019 某某公司
京ICP备12345678号-1
沪公网安备 31010102000001号
保留所有权利
隐私政策 | 用户协议 | 关于我们
上一页 下一页
阅读全文>>
点击查看更多
展开全文
扫描二维码关注我们
责任编辑：王小明
分享到：微信 微博 朋友圈
首页 > 登录 | 注册
第 3 页 / 共 12 页
關於我們・聯絡我們""".splitlines()
TEXT = """Bakers use cookies to decorate the tree.
My grandmother's cookies are better than yours.
JavaScript is a programming language that browsers run.
He learned JavaScript in three weeks.
To enable logging, set the variable to true.
The copyright of the book was sold in 1931.
Terms of the treaty were agreed in 1648.
Privacy is a fundamental human right.
She shared the prize with two others.
Read more books than you write.
Home is where the heart is.
The search for a new home began.
They follow us on foot through the rain.
Page after page, he wrote without rest.
Contact between the two peoples began early.
Next year the school will close.
A menu of seven courses was served.
He clicked here and there without aim.
About us there was only snow.
Help came from the other side of the river.
饼干是一种常见的点心。
他在浏览器里打开了一个网页。
版权问题在当时引起了广泛讨论。
首页新闻每天都会更新。
请登录系统后再进行操作说明中的步骤。
点击鼠标左键可以选中文字。
上一页的内容讲述了他的童年。
责任编辑是出版社的重要岗位。
我们关注公众的健康问题。
隐私权是一项基本人权。
广告业在二十世纪迅速发展。
搜索引擎改变了人们的生活。
他把照片分享给了朋友。
这家网站使用了新的算法。
下一章将介绍实验的方法。
联系我们的生活实际来看这个问题。
更多的人开始学习汉语。
阅读全文可以了解事情的经过。
保留所有权利的声明并不总是有效，法院曾多次就此作出判决，其中最著名的一案涉及软件的许可方式和它在各国的效力以及后果的范围。
JavaScript 必须与 HTML 配合使用的说法并不准确。""".splitlines()


def write(path: Path, texts: Sequence[str]) -> dict[str, str]:
    path.write_text("\n".join(json.dumps({"text": text}) for text in texts), encoding="utf-8")
    return {"files": str(path)}


def fitted(tmp_path: Path, texts: Sequence[str], before: Sequence[Any] = (), **options: Any) -> Boilerplate:
    raw = {
        "make": "corpus",
        "sources": [write(tmp_path / "texts.jsonl", texts)],
        "clean": [*before, {"boilerplate": options}],
        "split": {"validation": 0, "test": 0},
    }
    config, context, place = (
        CorpusConfig.model_validate(raw),
        Context(home=tmp_path),
        tmp_path / "fitted" / str(len(before)),
    )
    place.mkdir(parents=True, exist_ok=True)
    step = config.clean[-1].settings
    boilerplate.fit(step, config, {}, context, place)  # type: ignore[arg-type]
    return boilerplate.build(step, context, place)  # type: ignore[arg-type]


def plain(line: str) -> str:
    return re.sub("[0-9]+", "0", " ".join(line.casefold().split()))


def slow_frequent(texts: Sequence[str], least: int) -> set[str]:
    counts = Counter(line for text in texts for line in {plain(line) for line in text.split("\n")})
    return {line for line, count in counts.items() if count >= least and any(c.isalpha() for c in line)}


def gone(cleaned: Any, texts: Sequence[str]) -> list[list[str]]:
    """The lines that each text lost."""
    found = []
    for old, new in zip(texts, cleaned.values.to_pylist(), strict=True):
        left = Counter(line for line in new.split("\n") if line.strip())
        found.append([line for line in old.split("\n") if line.strip() and not _take(left, line)])
    return found


def _take(left: Counter[str], line: str) -> bool:
    left[line] -= 1
    return left[line] >= 0


@given(
    st.lists(st.lists(st.sampled_from(["Menu 1", "menu  2", "A", "b", "1", "", "长 行"])).map("\n".join), min_size=1)
)
@settings(max_examples=60, deadline=None)
def test_counts_are_those_of_slow_counting(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> None:
    """Precision and recall 1 against a dictionary of lines."""
    if not any(text.strip() for text in texts):
        return
    directory = tmp_path_factory.mktemp("counts")
    options = {"min_documents": 2, "min_share": 0.0, "rules": False, "short_line_characters": 0, "code": True}
    step = fitted(directory, texts, **options)
    expected = slow_frequent(texts, 2)
    kept = [[line for line in text.split("\n") if plain(line) not in expected] for text in texts]
    cleaned = step.clean(pa.array(texts, pa.string()), {})
    for new, lines in zip(cleaned.values.to_pylist(), kept, strict=True):
        assert [line for line in new.split("\n") if line] == [line for line in lines if line]


def test_lines_labelled_by_hand() -> None:
    """40 lines of frames and 40 of text, English and Chinese, as whole lines: none wrong on either side."""
    assert len(FRAME) == len(TEXT) == 40

    def ruled(lines: list[str]) -> list[str]:
        step = boilerplate.build(CorpusConfig.model_validate({
            "make": "corpus", "sources": [{"files": "x"}], "split": {"validation": 0, "test": 0},
            "clean": [{"boilerplate": {"min_documents": None}}],
        }).clean[0].settings, Context())  # type: ignore[arg-type]  # fmt: skip
        texts = [f"Some text before it.\n{line}\nSome text after it." for line in lines]
        return [line for line, lost in zip(lines, gone(step.clean(pa.array(texts), {}), texts), strict=True) if lost]

    assert ruled(FRAME) == FRAME
    assert ruled(TEXT) == []


def test_a_button_alone_may_be_a_heading() -> None:
    step = boilerplate.Boilerplate(boilerplate.BoilerplateConfig(min_documents=None), None)
    texts = [
        "Print\n\nHow to print a page.",
        "Text of the page.\n\nPrint\n\nShare\n\nHome | Search",
        "打印\n说明文字。",
    ]
    assert step.clean(pa.array(texts), {}).values.to_pylist() == [texts[0], "Text of the page.", texts[2]]
    assert step.found == {"links": 1, "button": 2}


def test_rules_compile_in_re2() -> None:
    for kind in RULES:
        assert len(pattern(kind)) < 6000
        pa.compute.match_substring_regex(pa.array(["x"]), pattern(kind))


def test_planted_frames_go_and_articles_stay(tmp_path: Path, data_directory: Path) -> None:
    """1,000 real articles inside a menu, a notice and a footer: each frame goes, no line of an article does."""
    with gzip.open(data_directory / "text" / "wikipedia-leads-en.jsonl.gz", "rt", encoding="utf-8") as rows:
        articles = [json.loads(row)["text"] for row, _ in zip(rows, range(1000), strict=False)]
    rng, texts = random.Random(4), []
    for number, article in enumerate(articles):
        menu = "Start\nOur products\nAll our stores and opening hours\nCareers at Example"
        footer = (
            f"Example is a brand of the Example Group since 19{rng.randrange(10, 99)}\nVisited {number} times today"
        )
        texts.append(f"{menu}\n\n{article}\n\n{footer}" if number % 2 else article)
    step = fitted(tmp_path, texts)
    assert step.clean(pa.array(texts), {}).values.to_pylist() == articles
    said = json.loads((tmp_path / "fitted" / "0" / "lines.json").read_text())
    assert said["documents"] == 1000 and {row["documents"] for row in said["most_frequent"]} == {500}
    assert "All our stores and opening hours" in {row["line"] for row in said["most_frequent"]}


def test_code_stays_unless_asked(tmp_path: Path) -> None:
    names = [f"number{chr(97 + n % 26)}{chr(97 + n // 26)}" for n in range(50)]
    body = "    let a = b;\n}\nSee the general notes on functions."
    texts = [f"Function {name} does something\n{body}" for name in names]
    cleaned = fitted(tmp_path, texts).clean(pa.array(texts), {}).values[0].as_py()
    assert cleaned == "Function numberaa does something\n    let a = b;\n}"
    cleaned = fitted(tmp_path, texts, code=True).clean(pa.array(texts), {}).values[0].as_py()
    assert "See the general" not in cleaned and cleaned.startswith("Function numberaa does something")


def test_paragraphs(tmp_path: Path) -> None:
    notice = "Licensed under the terms\nof the general licence"
    texts = [f"Text {chr(97 + n)}\nof the general licence\n\n{notice}\n\nEnd {chr(97 + n)}" for n in range(25)]
    left = fitted(tmp_path, texts, unit="paragraph").clean(pa.array(texts), {}).values[0].as_py()
    assert left == "Text a\nof the general licence\n\nEnd a"


def test_a_page_of_nothing_else_leaves(tmp_path: Path) -> None:
    texts = ["Our products and services\nAll our stores and opening hours"] * 30 + ["Another text"] * 3
    dropped = fitted(tmp_path, texts).clean(pa.array(texts), {}).dropped
    assert {place: drop.reason for place, drop in dropped.items()} == dict.fromkeys(range(30), "boilerplate")


def test_steps_before_decide_what_is_counted(tmp_path: Path) -> None:
    """Lines are counted as the steps before leave them: here without invisible characters."""
    texts = [f"Text {chr(97 + n)} is here\nA common\u200b line of all these pages" for n in range(13)]
    texts += [f"Text {chr(110 + n)} is here\nA common line of all these pages" for n in range(12)]
    raw = fitted(tmp_path / "a" if (tmp_path / "a").mkdir() is None else tmp_path, texts)
    assert "common" in raw.clean(pa.array(texts), {}).values[0].as_py()
    (tmp_path / "b").mkdir()
    seen = fitted(tmp_path / "b", texts, before=["normalise"])
    assert seen.frequent is not None and len(seen.frequent) == 1


def test_left_keeps_one_gap() -> None:
    lines = ["a", "", "x", "", "b", "x", "c", "", "", "d"]
    assert _left(lines, [line == "x" for line in lines], "\n") == "a\n\nb\nc\n\n\nd"


def test_api_pages_lose_their_frame(tmp_path: Path, data_directory: Path) -> None:
    """6,000 pages with 78 % duplicate lines, against counting by a dictionary; programs stay whole."""
    with gzip.open(data_directory / "messy" / "near-duplicate-api-pages.jsonl.gz", "rt", encoding="utf-8") as rows:
        texts = [json.loads(row)["text"] for row in rows]
    step = fitted(tmp_path, texts, rules=False, short_line_characters=0, code=True)
    expected = slow_frequent(texts, 20)
    assert step.frequent is not None and len(step.frequent) == len(expected)
    lost = gone(step.clean(pa.array(texts[:500]), {}), texts[:500])
    for text, mine in zip(texts[:500], lost, strict=True):
        assert mine == [line for line in text.split("\n") if plain(line) in expected and line.strip()]
    careful = fitted(tmp_path, texts)
    share = careful.clean(pa.array(texts), {}).measures["boilerplate_share"]
    assert 0.1 < float(np.mean(share)) < 0.2
