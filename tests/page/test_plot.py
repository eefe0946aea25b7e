"""Plots: what is drawn is proportional to what was given, whatever the words hold; equal numbers draw equal bytes."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from xml.etree import ElementTree

import pytest

from wuxing.page.chart import Cloud, Course, Intervals, draw_intervals, draw_lines, draw_scatter
from wuxing.page.flow import Stage, draw_flow, draw_wave
from wuxing.page.number import format_share, log_ticks, nice_ticks
from wuxing.page.plot import Bar, Histogram, draw_bars, draw_histograms, draw_shares
from wuxing.page.svg import SERIES, WIDTH, for_file, series

EVIL = "</text></svg><script>alert(1)</script> \u202eevil\u202c \x00\x1b[31m & \" ' ]]> 长标签" + "x" * 500
DRAWN: dict[str, Callable[[str], str]] = {
    "bars": lambda w: draw_bars(w, [Bar(w, 3, w), Bar("b", 0), Bar("c", 1e12)]),
    "no_bars": lambda w: draw_bars(w, []),
    "shares": lambda w: draw_shares(w, [(w, [(w, 0.5), ("b", 0.5)]), ("", [])], w),
    "histograms": lambda w: draw_histograms(
        w, [Histogram(w, [0, 1, 2], [3, 0], True, [(1, w), (99, w)], 1, 2, True, w)]
    ),
    "one_value": lambda w: draw_histograms(w, [Histogram(w, [5, 5], [1])]),
    "no_values": lambda w: draw_histograms(w, [Histogram(w, [0, 1], [0])], 3),
    "lines": lambda w: draw_lines(w, [Course(w, [(w, [(0, 1), (1, 1)])], marks=True), Course("", [("", [])])], w),
    "intervals": lambda w: draw_intervals(w, [Intervals(w, [w, "b"], [(w, [(0.1, 0, 0.2), (1, 1, 1)])], 0.5, True)]),
    "scatter": lambda w: draw_scatter(w, [Cloud(w, [(1, 2), (300, 5)], [w, w]), Cloud("b", [])], w, w, log=True),
    "flow": lambda w: draw_flow(w, [Stage(w, 10, 3, w), Stage("b", 7), Stage("c", 7, 7, w)], [(w, 0), ("b", 0)]),
    "wave": lambda w: draw_wave(w, [(-0.5, 0.25), (0, 0)]),
    "no_wave": lambda w: draw_wave(w, []),
}


@pytest.mark.parametrize("name", DRAWN)
def test_any_words_give_a_whole_picture_with_its_title(name: str) -> None:
    for words in ("plain", EVIL, ""):
        svg = DRAWN[name](words)
        tree = ElementTree.fromstring(svg)
        tags = {element.tag.rpartition("}")[2] for element in tree.iter()}
        assert tags <= {"svg", "title", "rect", "line", "polyline", "polygon", "circle", "text"}
        assert tree.attrib["role"] == "img" and tree[0].tag.endswith("title")
        assert "\u202e" not in svg and "\x1b" not in svg and " style=" not in svg
        assert svg == DRAWN[name](words)
        alone = for_file(svg)
        assert "var(" not in alone and ElementTree.fromstring(alone.encode()) is not None
    for number in (float(v) for e in tree.iter() for k, v in e.attrib.items() if k in ("x", "y", "width", "height")):
        assert math.isfinite(number)


def rects(svg: str, fill: str | None = None) -> list[dict[str, float]]:
    found = []
    for element in ElementTree.fromstring(svg).iter():
        if element.tag.endswith("rect") and (fill is None or element.attrib["fill"] == fill):
            found.append({name: float(element.attrib[name]) for name in ("x", "y", "width", "height")})
    return found


def test_bars_are_as_long_as_their_values() -> None:
    values = [100.0, 50.0, 25.0, 1.0]
    widths = [rect["width"] for rect in rects(draw_bars("t", [Bar(str(v), v) for v in values]))]
    assert [width / widths[0] for width in widths[:3]] == pytest.approx([1, 0.5, 0.25], abs=0.01)
    assert widths[3] >= 1.5  # what is there can be seen


def test_histogram_is_as_high_as_its_counts_and_red_beyond_its_bounds() -> None:
    counts = [4, 0, 8, 2]
    panel = Histogram("t", [0, 1, 2, 3, 4], counts, cut_below=1, cut_above=3)
    svg = draw_histograms("t", [panel])
    inside, beyond = rects(svg, SERIES[0]), rects(svg, "var(--bad)")
    assert [r["height"] for r in inside] == [max(r["height"] for r in inside)]
    assert [r["height"] / inside[0]["height"] for r in beyond] == pytest.approx([4 / 8, 2 / 8], abs=0.01)
    bottoms = {round(r["y"] + r["height"], 1) for r in inside + beyond}
    assert len(bottoms) == 1


def test_a_bound_that_no_value_reaches_is_named_at_its_side() -> None:
    svg = draw_histograms("t", [Histogram("t", [10, 20, 30], [1, 1], marks=[(5, "min 5"), (99, "max 99")])])
    assert "← min 5" in svg and "max 99 →" in svg


def test_shares_fill_the_bar() -> None:
    widths = [r["width"] for r in rects(draw_shares("t", [("a", [("x", 0.25), ("y", 0.75)])]))][:2]
    assert widths[1] / widths[0] == pytest.approx(3, abs=0.01)


def test_the_flow_loses_what_it_says_and_ends_in_the_splits() -> None:
    stages = [Stage("raw", 1000), Stage("step", 1000, 250), Stage("kept", 750)]
    svg = draw_flow("t", stages, [("train", 700), ("test", 50)])
    blue, red = rects(svg, SERIES[0]), rects(svg, "var(--bad)")
    whole = blue[0]["width"]
    assert red[0]["width"] / whole == pytest.approx(0.25, abs=0.01)
    assert blue[1]["width"] + red[0]["width"] == pytest.approx(whole, abs=0.1)
    assert blue[3]["width"] / whole == pytest.approx(0.7, abs=0.01)


def test_ticks_are_few_round_and_inside() -> None:
    random_state = random.Random(3)
    for _ in range(500):
        low = random_state.uniform(-1e4, 1e4) * 10 ** random_state.randint(-6, 4)
        high = low + abs(random_state.gauss(0, 1)) * 10 ** random_state.randint(-6, 6) + 1e-9
        ticks = nice_ticks(low, high, 6)
        assert len(ticks) <= 6
        slack = (high - low) * 1e-6 + 1e-9
        assert all(low - slack <= tick <= high + slack for tick in ticks)
        low, high = abs(low) + 1e-6, abs(low) + 1e-6 + abs(high - low)
        assert all(low * 0.99 <= tick <= high * 1.01 for tick in log_ticks(low, high))


def test_shares_never_lie_at_the_ends() -> None:
    assert [format_share(part, 100_000) for part in (0, 1, 50_000, 99_999, 100_000)] == [
        "0.0 %",
        "< 0.1 %",
        "50.0 %",
        "> 99.9 %",
        "100.0 %",
    ]
    assert format_share(1, 0) == "–"


def test_there_are_enough_colours_and_the_width_is_one() -> None:
    assert series(0) == series(len(SERIES)) and f'viewBox="0 0 {WIDTH:g} ' in draw_bars("t", [Bar("a", 1)])
