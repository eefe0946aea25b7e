"""C4's filter of lines: compiled and slow agree on any text, and each rule does what the paper says."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wuxing.text import c4
from wuxing.text.c4 import LineRules, filter_lines, lines_of, sentences_of

anything = st.text(st.characters(exclude_categories=("Cs",)), max_size=60)
signs = st.text(st.sampled_from("aB .!?。！…\"')」)\n \u3000中{JS"), max_size=80)
pieces = st.lists(
    st.sampled_from(["The cat sat.", "中文句子。", "JavaScript is on.", "menu", "\n", " ", "Lorem", "..."])
)
rules = st.builds(
    LineRules,
    st.booleans(),
    st.integers(0, 4),
    st.integers(1, 12),
    st.sampled_from([(), ("javascript", "文"), ("s",)]),
    st.sampled_from([(), ("lorem", "{"), ("B中",)]),
)


@given(st.lists(anything | signs | pieces.map("".join), max_size=5), rules, st.booleans())
@settings(deadline=None, max_examples=600)
def test_the_compiled_filter_equals_the_slow_one(documents: list[str], chosen: LineRules, wide: bool) -> None:
    array = pa.array(["x.", *documents], pa.large_string() if wide else pa.string()).slice(1)
    found = filter_lines(array, chosen)
    found.texts.validate(full=True)
    columns = (found.texts.to_pylist(), found.sentences.tolist(), found.removed.tolist(), found.bad.tolist())
    assert list(zip(*columns, strict=True)) == [lines_of(text, chosen) for text in documents]


@pytest.mark.parametrize(
    ("line", "count"),
    [
        ("One. Two! Three?", 3),
        ('He said "no." Then he left (at 3.15 p.m.).', 2),
        ("一句。两句！“三句？”四", 3),
        ("Really?! Yes... and on", 2),
        ("no end", 0),
        ("example.org is a name", 0),
    ],
)
def test_sentences_are_counted_by_their_ends(line: str, count: int) -> None:
    assert sentences_of(line) == count


def test_the_rules_by_example() -> None:
    page = (
        "Home | News\n The first sentence is here. \nToo short.\nPlease enable JavaScript now.\n他来了。\nSo it goes..."
    )
    chosen = LineRules(line_phrases=("javascript",), document_phrases=("lorem ipsum", "{"))
    assert lines_of(page, chosen) == ("The first sentence is here.\n他来了。", 2, 4, False)
    assert lines_of("a LOREM Ipsum b", chosen)[3] and lines_of("if (x) {", chosen)[3]


def test_without_a_compiler_the_twin_filters(monkeypatch: pytest.MonkeyPatch) -> None:
    array = pa.array(["One line is here.\nmenu", ""])
    expected = filter_lines(array, LineRules())
    monkeypatch.setattr(c4, "_library", lambda: "no C compiler is installed")
    found = filter_lines(array, LineRules())
    assert found.texts.equals(expected.texts)
    assert found.removed.tolist() == expected.removed.tolist() == [1, 0]
    assert len(filter_lines(array.slice(0, 0), LineRules()).texts) == 0
