"""Pages: whatever a record holds is text on them; they run and load nothing but what is written into them."""

from __future__ import annotations

import base64
import hashlib
import os
import re
import shutil
import sys
import unicodedata
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from wuxing.core.error import UsageError
from wuxing.page.block import (
    Block,
    Bullets,
    Card,
    Change,
    Changes,
    Code,
    Figure,
    Fold,
    Gallery,
    Item,
    Items,
    Paragraph,
    Part,
    Report,
    Section,
    Table,
    Verbatim,
    figures_of,
)
from wuxing.page.render import loaded_things, render_html
from wuxing.page.text import cut, cut_middle, visible
from wuxing.page.words import Words

sys.path.insert(0, str(Path(__file__).parents[2] / "docs"))
EVIL = "</script><script>window.hurt=1</script><img src=x onerror=window.hurt=1> \u202e\u2066 \x00\x07 \ud800 ' \" &"


class Parsed(HTMLParser):
    """Tags and attributes as a browser sees them."""

    def __init__(self, html: str):
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.attributes: set[str] = set()
        self.sources: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes |= {name for name, _ in attributes}
        self.sources += [value or "" for name, value in attributes if name in ("src", "href")]


def report_of(*blocks: Block) -> Report:
    parts = [Part(EVIL, list(blocks))]
    card = Card(EVIL, Figure(EVIL, EVIL), [EVIL])
    return Report(EVIL, EVIL, "en", [card], [Section("one", EVIL, parts)], [EVIL], numbered=False)


def every_block(words: str) -> list[Block]:
    figure = Figure(words, words, 1.0)
    item = Item(words, [words, figure], words, turns=[(words, words)])
    return [
        Paragraph([words, Code(words), figure]),
        Bullets([[words]], [True]),
        Table([words, words], [[[words], [figure]], [[words], [Figure("2", "x", 2.0)]]], (1,), sortable=True),
        Items([item]),
        Gallery([Item(words, [words], image="data:image/png;base64,AAAA")]),
        Changes([Change(words, [("same", words), ("removed", words)], [("added", words)])]),
        Verbatim(words),
        Fold([words, figure], [Items([item])], open=True),
    ]


def test_every_block_shows_hostile_words_as_words() -> None:
    report = report_of(*every_block(EVIL))
    html = render_html(report, Words("en", {}))
    assert not re.search("[\u202a-\u202e\u2066-\u2069\x00-\x08\ud800-\udfff]", html)
    html.encode()
    parsed = Parsed(html)
    assert parsed.tags["script"] == 1 and parsed.tags["img"] == 1
    assert not {name for name in parsed.attributes if name.startswith("on") or name == "style"}
    assert all(source.startswith(("data:", "#")) for source in parsed.sources)
    assert loaded_things(html) == []
    assert len(figures_of(report)) == html.count('class="figure"')


def test_the_policy_holds_the_digests_of_its_own_style_and_script() -> None:
    html = render_html(report_of(*every_block("plain")), Words("en", {}))
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', html)
    assert policy
    for tag in ("style", "script"):
        [text] = re.findall(rf"<{tag}>(.*?)</{tag}>", html, re.S)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{tag}-src &#39;sha256-{digest}&#39;" in policy[1] or f"{tag}-src 'sha256-{digest}'" in policy[1]
    assert "unsafe" not in policy[1]


def test_a_page_without_a_table_to_sort_has_no_script() -> None:
    html = render_html(report_of(Paragraph(["x"])), Words("en", {}))
    assert "<script" not in html and "script-src" not in html


@pytest.mark.parametrize(
    "html",
    [
        '<img src="https://example.org/x.png">',
        "<link rel=stylesheet href='x.css'>",
        "<style>@import 'x'</style>",
        '<p style="background: url(http://e.org)">',
        '<script src="//e.org/x.js"></script>',
    ],
)
def test_what_would_be_loaded_is_found(html: str) -> None:
    assert loaded_things(html)


def test_visible_text_keeps_words_and_shows_what_hides() -> None:
    assert visible("a\u202eb\x1b[31m\x00\r\n\t中文 é 👩\u200d🚀") == "a⟨U+202E⟩b␛[31m␀␍\n\t中文 é 👩\u200d🚀"
    everything = "".join(map(chr, range(0x3000)))
    left = visible(everything)
    hidden = {c for c in left if unicodedata.category(c) in ("Cc", "Cf", "Cs") and c not in "\n\t\u200d"}
    assert all(ord(c) in (*range(0x600, 0x606), 0x6DD, 0x70F, 0x890, 0x891, 0x8E2, 0x180E) for c in hidden)


@pytest.mark.parametrize("size", [2, 5, 40])
def test_cuts_are_never_longer_than_asked(size: int) -> None:
    for text in ("", "a", "abc" * 30, "e\u0301" * 50, "长" * 60):
        assert len(cut(text, size)) <= size and len(cut_middle(text, max(3, size))) <= max(3, size)
        assert cut(text, 10_000) == text


def test_a_line_of_a_megabyte_and_a_huge_table_stay_a_page() -> None:
    line = "x" * (1 << 20)
    rows: list[Any] = [[[f"row {n}"], [Figure(str(n), "f", float(n))]] for n in range(3000)]
    html = render_html(report_of(Paragraph([line]), Table(["a", "b"], rows, (1,), sortable=True)), Words("en", {}))
    assert line in html and html.count("<tr>") == 3001


def test_unknown_languages_are_refused() -> None:
    with pytest.raises(UsageError, match='no report in "fr"'):
        Words("fr", {})


@pytest.mark.browser
def test_tables_sort_and_nothing_else_runs(tmp_path: Path) -> None:
    if os.environ.get("WUXING_SKIP_BROWSER"):
        pytest.skip("WUXING_SKIP_BROWSER is set")
    if not (shutil.which("chromium") and shutil.which("chromedriver")):
        pytest.fail("the page's tests need a browser: apt-get install chromium chromium-driver")
    from screenshots import open_browser

    rows: list[Any] = [
        [[name], [Figure(said, "f", value)]]
        for name, said, value in (("b", "1.2 M", 1.2e6), ("c", "900", 900.0), ("a", "10,000", 1e4))
    ]
    html = render_html(
        report_of(*every_block(EVIL), Table(["name", "size"], rows, (1,), sortable=True)), Words("en", {})
    )
    hostile = html.replace(
        "</main>", "<script>window.hurt=2</script><p style='color:red' onclick='window.hurt=3'>x</p></main>"
    )
    (tmp_path / "page.html").write_text(hostile)
    browser = open_browser(str(tmp_path / "profile"), 900, 700)
    try:
        browser.get(f"file://{tmp_path}/page.html")
        assert browser.execute_script("return window.hurt") is None  # the policy stops what escaping would have missed
        table = browser.find_elements("css selector", "table.sortable")[-1]

        def click(button: Any) -> None:
            browser.execute_script("arguments[0].click()", button)

        heads = table.find_elements("css selector", "th button")

        def column() -> list[str]:
            return [row.text.split(" ")[0] for row in table.find_elements("css selector", "tbody tr")]

        click(heads[1])
        assert column() == ["b", "a", "c"]
        click(heads[1])
        assert column() == ["c", "a", "b"]
        click(heads[0])
        assert column() == ["a", "b", "c"]
    finally:
        browser.quit()
