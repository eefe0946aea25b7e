"""Plots: each is a function from numbers and words to SVG text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from wuxing.page.number import format_count, format_figure, format_share, percent_tick
from wuxing.page.svg import (
    BAD,
    INK,
    MUTED,
    NORMAL,
    ROW,
    SERIES,
    WIDTH,
    Canvas,
    Frame,
    frame,
    label_width,
    legend,
    legend_height,
    row_label,
    series,
)
from wuxing.page.text import cut


@dataclass(frozen=True)
class Bar:
    """One row of `draw_bars`."""

    label: str
    value: float
    said: str = ""
    """What stands behind the bar; the value unless given."""
    color: int = 0


def draw_bars(title: str, bars: Sequence[Bar]) -> str:
    """Values from zero, one under the other, each with its number."""
    left, right = label_width([bar.label for bar in bars]), 110.0
    canvas = Canvas(title, len(bars) * ROW + 8)
    most = max((bar.value for bar in bars), default=0) or 1
    for place, bar in enumerate(bars):
        y = 4 + place * ROW
        length = (WIDTH - left - right) * bar.value / most
        said = bar.said or format_count(bar.value)
        row_label(canvas, left, y, bar.label)
        canvas.rect(
            left, y + 3, max(length, 1.5 if bar.value else 0), ROW - 8, series(bar.color), f"{bar.label}: {said}"
        )
        canvas.text(left + length + 7, y + ROW / 2 + 3, said, INK)
    return canvas.svg()


def draw_shares(title: str, bars: Sequence[tuple[str, Sequence[tuple[str, float]]]], label: str = "") -> str:
    """One bar from 0 to 100 % for each (name, [(part, share)]); the legend names the parts."""
    parts = list(dict.fromkeys(part for _, found in bars for part, _ in found))
    left = label_width([name for name, _ in bars])
    bottom = 6 + len(bars) * 30.0
    below = bottom + (40 if label else 26)
    canvas = Canvas(title, below + legend_height(parts, WIDTH - 20))
    axes = frame(canvas, (left, 4, WIDTH - 16, bottom), (0, 1), (0, 1))
    axes.x_axis(label, percent_tick, grid=True)
    for place, (name, found) in enumerate(bars):
        y, start = 6 + place * 30.0, 0.0
        row_label(canvas, left, y + 1, name)
        for part, share in found:
            x = axes.x(start)
            tip = f"{name} · {part}: {format_share(share, 1)}"
            canvas.rect(x, y + 3, axes.x(start + share) - x, 20, series(parts.index(part)), tip)
            start += share
    legend(canvas, [(part, series(place)) for place, part in enumerate(parts)], below)
    return canvas.svg()


@dataclass(frozen=True)
class Histogram:
    """One panel of `draw_histograms`."""

    title: str
    edges: Sequence[float]
    """n + 1 rising bounds."""
    counts: Sequence[float]
    """n counts."""
    log: bool = False
    """Whether the axis of values is logarithmic; the first bound may then be 0."""
    marks: Sequence[tuple[float, str]] = ()
    """Thresholds and other values to draw in, with their words."""
    cut_below: float | None = None
    """Values below are drawn as dropped."""
    cut_above: float | None = None
    """Values above are drawn as dropped."""
    cumulative: bool = False
    """Whether the share of values up to each bound is drawn over the bars."""
    label: str = ""
    """Of the axis of values."""


def draw_histograms(title: str, panels: Sequence[Histogram], columns: int = 2) -> str:
    """Counts of values between bounds, side by side; what thresholds cut off has the colour of a loss."""
    columns = min(columns, len(panels)) or 1
    height = 208.0 if columns < 3 else 166.0
    rows = -(-len(panels) // columns)
    canvas = Canvas(title, rows * height)
    width = WIDTH / columns
    for number, panel in enumerate(panels):
        left, top = (number % columns) * width, (number // columns) * height
        _histogram(canvas, panel, left, top, width, height)
    return canvas.svg()


def _histogram(canvas: Canvas, panel: Histogram, left: float, top: float, width: float, height: float) -> None:
    edges, log = list(panel.edges), panel.log
    if log and edges[0] <= 0:  # a bar from zero gets the width of its neighbour
        edges[0] = edges[1] ** 2 / edges[2] if len(edges) > 2 and edges[1] > 0 else max(edges[1] / 2, 1e-9)
    span = (edges[0], edges[-1] if edges[-1] > edges[0] else edges[0] + 1)
    most = max(panel.counts, default=0) or 1
    right = 40.0 if panel.cumulative else 14.0
    box = (left + 46, top + 42, left + width - right, top + height - (46 if panel.label else 30))
    axes = frame(canvas, box, span, (0, most), log and span[0] > 0)
    canvas.text(left + 8, top + 16, cut(panel.title, int(width / 7)), INK, size=NORMAL, bold=True)
    axes.y_axis(most=4)
    total = sum(panel.counts) or 1
    for low, high, count in zip(edges, edges[1:], panel.counts, strict=False):
        if not count:
            continue
        x, y = axes.x(low), axes.y(count)
        lost = (panel.cut_below is not None and high <= panel.cut_below * (1 + 1e-9)) or (
            panel.cut_above is not None and low >= panel.cut_above * (1 - 1e-9)
        )
        tip = f"{format_figure(low)} – {format_figure(high)}: {format_count(count)} ({format_share(count, total)})"
        gap = 0.6 if axes.x(high) - x > 3 else 0
        canvas.rect(x + gap / 2, y, axes.x(high) - x - gap, axes.y.start - y, BAD if lost else SERIES[0], tip, 0.85)
    axes.x_axis(panel.label, most=5)
    if panel.cumulative:
        _cumulative(axes, edges, panel.counts, total)
    _marks(axes, panel.marks, span)


def _cumulative(axes: Frame, edges: Sequence[float], counts: Sequence[float], total: float) -> None:
    points, sum_so_far = [(axes.x(edges[0]), axes.y.start)], 0.0
    for high, count in zip(edges[1:], counts, strict=False):
        sum_so_far += count
        points.append((axes.x(high), axes.y.start + (axes.y.end - axes.y.start) * sum_so_far / total))
    axes.canvas.curve(points, SERIES[3])
    for share in (0.5, 1.0):
        y = axes.y.start + (axes.y.end - axes.y.start) * share
        axes.canvas.text(axes.x.end + 4, y + 4, percent_tick(share), SERIES[3], size=10)


def _marks(axes: Frame, marks: Sequence[tuple[float, str]], span: tuple[float, float]) -> None:
    for number, (value, words) in enumerate(marks):
        outside = value < span[0] or value > span[1]
        x = axes.x.end if value > span[1] else axes.x.start if value < span[0] else axes.x(value)
        near_end = x > (axes.x.start + axes.x.end) / 2
        if not outside:
            axes.canvas.line(x, axes.y.end - 4, x, axes.y.start, INK, 1.2, "4 3")
        said = f"{words} →" if value > span[1] else f"← {words}" if outside else words
        place = x if outside else x - 4 if near_end else x + 4
        color, anchor = MUTED if outside else INK, "end" if near_end else "start"
        axes.canvas.text(place, axes.y.end - 6 + 11 * (number % 2), said, color, anchor, 10.5)
