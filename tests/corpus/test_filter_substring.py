"""Substring duplicates against brute force: every repeated run is found, and nothing else is cut."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wuxing.corpus.substring import Spans, Texts, cut, find_cuts, find_spans, residue, too_little
from wuxing.text import token
from wuxing.text.shingle import TOKEN, tokens_of
from wuxing.text.token import Tokens, runs, tokens, whole_runs, winnow


def streamed(texts: list[str | None], size: int = 3) -> Texts:
    def read() -> Iterator[pa.Array]:
        for start in range(0, len(texts), size):
            yield pa.array(texts[start : start + size], pa.string())

    return read


def brute_force(texts: list[str | None], length: int) -> list[set[int]]:
    """For each text the places of the tokens inside a run that is equal to one that starts earlier."""
    seen: set[tuple[str, ...]] = set()
    found = []
    for text in texts:
        words, marked = tokens_of(text or ""), set()
        for start in range(len(words) - length + 1):
            run = tuple(words[start : start + length])
            if run in seen:
                marked |= set(range(start, start + length))
            seen.add(run)
        found.append(marked)
    return found


def places(texts: list[str | None], spans: Spans) -> list[set[int]]:
    """The places of the tokens inside spans."""
    found = []
    for number, text in enumerate(texts):
        mine = [(s, e) for r, s, e in zip(spans.record, spans.start, spans.stop, strict=True) if r == number]
        bounds = []
        for match in TOKEN.finditer(text or ""):
            start = len((text or "")[: match.start()].encode())
            bounds.append((start, start + len(match[0].encode())))
        found.append({n for n, (a, b) in enumerate(bounds) if any(s <= a and b <= e for s, e in mine)})
    return found


WORDS = st.sampled_from(["a", "b", "cc", "Dd", "水", "火", "木 ", "é", "9"])
TEXT = st.lists(WORDS, max_size=40).map(" ".join)


@given(texts=st.lists(st.one_of(TEXT, st.none()), max_size=9), length=st.integers(2, 9), size=st.integers(1, 5))
@settings(max_examples=80, deadline=None)
def test_spans_are_those_of_brute_force(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str | None], length: int, size: int
) -> None:
    spans = find_spans(streamed(texts, size), length, tmp_path_factory.mktemp("spans"))
    assert places(texts, spans) == brute_force(texts, length)


@given(values=st.lists(st.integers(0, 9), max_size=60), width=st.integers(1, 9))
def test_fingerprints_are_those_of_the_slow_twin(values: list[int], width: int) -> None:
    array = np.array(values, np.uint64)
    ends = np.array([len(values) // 3, len(values)])
    expected = np.zeros(len(values), bool)
    for first, end in ((0, ends[0]), (ends[0], ends[1])):
        for start in range(first, end - width + 1):
            row = values[start : start + width]
            expected[start + max(n for n in range(width) if row[n] == min(row))] = True
    assert (winnow(array, ends, width) == expected).all()


@given(st.lists(st.text(max_size=30), max_size=5))
def test_tokens_are_those_of_the_slow_twin(texts: list[str]) -> None:
    texts = [text.encode("utf-8", "ignore").decode() for text in texts]
    fast, slow = tokens(pa.array(texts, pa.string())), token._tokens(texts)
    for name in Tokens.__dataclass_fields__:
        assert (getattr(fast, name) == getattr(slow, name)).all()
    first = 0
    for text, end in zip(texts, fast.ends, strict=True):
        raw = text.encode()
        named = [raw[a:b].lower().decode() for a, b in zip(fast.starts[first:end], fast.stops[first:end], strict=True)]
        assert named == tokens_of(text)
        first = end


@given(st.lists(st.integers(0, 4), max_size=6), st.integers(1, 4))
def test_runs_stay_within_texts(counts: list[int], width: int) -> None:
    ends = np.cumsum(np.array(counts, np.int64), dtype=np.int64)
    owner = np.repeat(np.arange(len(counts)), counts)
    expected = [owner[i] == owner[i + width - 1] for i in range(max(0, len(owner) - width + 1))]
    assert whole_runs(ends, width).tolist() == expected
    assert len(runs(np.arange(len(owner), dtype=np.uint64), width)) == len(expected)


def test_cutting_takes_the_span_and_what_closes_it(tmp_path: Path) -> None:
    passage = "the quick brown fox jumps over the lazy dog and runs home"
    zh = "天地玄黄宇宙洪荒日月盈昃辰宿列张"
    texts: list[str | None] = [
        f"First. {passage.capitalize()}. Last of one.",
        f"Second: {passage.upper()}! Rest of two.",
        f"Third.\n\n{passage}.\n\nEnd",
        None,
        f"第一，{zh}。完",
        f"第二，{zh}。终",
        passage,
    ]
    cuts = find_cuts(streamed(texts), 10, tmp_path)
    new = [*cuts.apply(pa.array(texts[:4]), 0).to_pylist(), *cuts.apply(pa.array(texts[4:]), 4).to_pylist()]
    assert new == [
        texts[0],
        "Second: Rest of two.",
        "Third.\n\nEnd",
        None,
        texts[4],
        "第二，终",
        "",
    ]
    assert cuts.records().tolist() == [1, 2, 5, 6]
    assert too_little(pa.array(new), 3).tolist() == [False, False, True, True, False, False, True]
    untouched = pa.array(["nothing here"])
    assert cut(untouched, cuts.rounds[0], 100) is untouched


def test_a_text_that_repeats_itself_keeps_one_round(tmp_path: Path) -> None:
    texts: list[str | None] = ["ab cd ef gh " * 10]
    spans = find_spans(streamed(texts), 8, tmp_path)
    assert places(texts, spans) == brute_force(texts, 8) == [set(range(4, 40))]


def test_cutting_again_finds_what_cutting_joined(tmp_path: Path) -> None:
    """A and B are too short to go; what stands between them goes, and then they are one run that stood before."""
    a, b, x, y = ([f"{name}{n}" for n in range(6)] for name in "abxy")
    texts: list[str | None] = [
        " ".join([*x, *y]), " ".join([*a, *x, *y, *b]), " ".join([*a, *x, *y, *b]), "z " * 3 + " ".join([*a, *b]),
    ]  # fmt: skip
    cuts = find_cuts(streamed(texts), 10, tmp_path)
    new = cuts.apply(pa.array(texts), 0).to_pylist()
    assert len(cuts.rounds) == 2
    assert residue(streamed(new), 10) == (residue(streamed(new), 10)[0], 0)
    assert new[0] == texts[0] and new[1] == " ".join([*a, *b]) and new[2] == "" and new[3] == "z z z"


def test_residue_sees_a_planted_repetition() -> None:
    passage = " ".join(f"w{n}" for n in range(30))
    texts: list[str | None] = ["one " + passage, "two", passage + " three"]
    looked, repeated = residue(streamed(texts), 30)
    assert repeated == 1 and looked == 3


@pytest.fixture(scope="module")
def pages(data_directory: Path) -> list[str | None]:
    path = data_directory / "messy" / "near-duplicate-api-pages.jsonl.gz"
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line)["text"] for line, _ in zip(lines, range(1500), strict=False)]


def test_api_pages_lose_exactly_what_brute_force_says(pages: list[str | None], tmp_path: Path) -> None:
    """Precision and recall of 1 over 1,500 real pages, of whose tokens most stood before."""
    spans = find_spans(streamed(pages, 100), 50, tmp_path / "a")
    expected = brute_force(pages, 50)
    assert places(pages, spans) == expected
    share = sum(map(len, expected)) / sum(len(tokens_of(page or "")) for page in pages)
    assert share > 0.3
    cuts = find_cuts(streamed(pages, 100), 50, tmp_path / "b")
    new: list[str | None] = cuts.apply(pa.array(pages), 0).to_pylist()
    assert residue(streamed(new, 100), 50)[1] == 0
    assert residue(streamed(pages, 100), 50)[1] > 100


def test_the_result_does_not_depend_on_batches(pages: list[str | None], tmp_path: Path) -> None:
    one = find_spans(streamed(pages, 7), 30, tmp_path)
    other = find_spans(streamed(pages, 5000), 30, tmp_path)
    assert all((getattr(one, name) == getattr(other, name)).all() for name in ("record", "start", "stop"))
    assert not list(tmp_path.iterdir()), "it leaves no file behind"


def test_without_a_compiler_the_result_is_the_same(
    pages: list[str | None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = pages[:120]
    fast = find_spans(streamed(texts), 20, tmp_path)
    missing: Callable[[], str] = lambda: "no compiler"  # noqa: E731
    monkeypatch.setattr(token, "_library", missing)
    slow = find_spans(streamed(texts), 20, tmp_path)
    assert len(fast) and all((getattr(fast, n) == getattr(slow, n)).all() for n in ("record", "start", "stop"))
