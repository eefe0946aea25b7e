"""A canvas for plots: shapes and words as SVG text.  Words stay words, so every script is drawn by the reader's fonts.

Colours are the page's variables, which follow light and dark; `for_file` puts fixed ones in their place.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

from wuxing.page.number import log_ticks, nice_ticks, short
from wuxing.page.text import cut_middle, flat, text_width, visible

WIDTH = 720.0
ROW = 26.0
INK, MUTED, LINE, BAD = "var(--ink)", "var(--muted)", "var(--line)", "var(--bad)"
SERIES = tuple(f"var(--s{number})" for number in range(6))
SMALL, NORMAL = 11.5, 12.5
_FIXED = {
    INK: "#3a3a3a",
    MUTED: "#777777",
    LINE: "#cccccc",
    BAD: "#b3362d",
    **dict(zip(SERIES, ("#2f6690", "#c1443c", "#3f7d58", "#b7822f", "#6d5a8d", "#7a7f87"), strict=True)),
    "var(--plot-font)": "sans-serif",
}


def for_file(svg: str) -> str:
    """The SVG with fixed colours that can be read on white and on black, to stand alone."""
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + re.sub(r"var\(--[\w-]+\)", lambda m: _FIXED[m[0]], svg) + "\n"


def shown(words: str) -> str:
    """Any text as the content of an SVG or HTML element, on one line."""
    return escape(flat(visible(words)))


class Canvas:
    """Shapes in the order in which they are drawn.  Equal calls give equal text."""

    def __init__(self, title: str, height: float, width: float = WIDTH):
        self.title, self.width, self.height = title, width, height
        self._parts: list[str] = []

    def svg(self) -> str:
        """The whole picture; its title is its name for those who cannot see it."""
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_n(self.width)} {_n(self.height)}" role="img" '
            f'font-family="var(--plot-font)" font-size="{SMALL}">\n<title>{shown(self.title)}</title>\n'
            + "\n".join(self._parts)
            + "\n</svg>"
        )

    def rect(self, x: float, y: float, width: float, height: float, fill: str, tip: str = "", fade: float = 1) -> None:
        attributes = f'x="{_n(x)}" y="{_n(y)}" width="{_n(max(0, width))}" height="{_n(max(0, height))}" fill="{fill}"'
        self._add("rect", attributes + _opacity(fade), tip)

    def line(self, x1: float, y1: float, x2: float, y2: float, stroke: str, width: float = 1, dash: str = "") -> None:
        dashes = f' stroke-dasharray="{dash}"' if dash else ""
        self._add(
            "line",
            f'x1="{_n(x1)}" y1="{_n(y1)}" x2="{_n(x2)}" y2="{_n(y2)}" stroke="{stroke}" '
            f'stroke-width="{_n(width)}" stroke-linecap="round"{dashes}',
        )

    def curve(self, points: Sequence[tuple[float, float]], stroke: str, width: float = 1.6, fade: float = 1) -> None:
        where = " ".join(f"{_n(x)},{_n(y)}" for x, y in points)
        attributes = f'points="{where}" fill="none" stroke="{stroke}" stroke-width="{_n(width)}"'
        self._add("polyline", attributes + ' stroke-linejoin="round"' + _opacity(fade))

    def area(self, points: Sequence[tuple[float, float]], fill: str, tip: str = "", fade: float = 1) -> None:
        where = " ".join(f"{_n(x)},{_n(y)}" for x, y in points)
        self._add("polygon", f'points="{where}" fill="{fill}"' + _opacity(fade), tip)

    def dot(self, x: float, y: float, radius: float, fill: str, tip: str = "", fade: float = 1) -> None:
        self._add("circle", f'cx="{_n(x)}" cy="{_n(y)}" r="{_n(radius)}" fill="{fill}"' + _opacity(fade), tip)

    def text(
        self,
        x: float,
        y: float,
        words: str,
        fill: str = MUTED,
        anchor: str = "start",
        size: float = SMALL,
        bold: bool = False,
    ) -> None:
        """Words whose baseline is at y."""
        attributes = f'x="{_n(x)}" y="{_n(y)}" fill="{fill}"'
        attributes += f' text-anchor="{anchor}"' if anchor != "start" else ""
        attributes += f' font-size="{_n(size)}"' if size != SMALL else ""
        attributes += ' font-weight="600"' if bold else ""
        self._parts.append(f"<text {attributes}>{shown(words)}</text>")

    def _add(self, tag: str, attributes: str, tip: str = "") -> None:
        inside = f"><title>{shown(tip)}</title></{tag}>" if tip else "/>"
        self._parts.append(f"<{tag} {attributes}{inside}")


def _n(value: float) -> str:
    text = f"{value:.2f}".rstrip("0").rstrip(".")
    return "0" if text in ("-0", "") else text


def _opacity(fade: float) -> str:
    return "" if fade == 1 else f' opacity="{_n(fade)}"'


@dataclass(frozen=True)
class Scale:
    """From values to places on the canvas."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        if self.log:
            low, high, value = math.log(self.low), math.log(self.high), math.log(max(value, self.low))
        else:
            low, high = self.low, self.high
        share = (value - low) / (high - low) if high > low else 0.5
        return self.start + share * (self.end - self.start)

    def ticks(self, most: int) -> list[float]:
        if self.log:
            return log_ticks(self.low, self.high, most)
        return nice_ticks(self.low, self.high, most)


@dataclass(frozen=True)
class Frame:
    """The place of one plot on a canvas, its scales and its axes."""

    canvas: Canvas
    x: Scale
    y: Scale

    def x_axis(self, label: str = "", said: Callable[[float], str] = short, most: int = 6, grid: bool = False) -> None:
        """The line at the bottom with its ticks and its label."""
        bottom, canvas = self.y.start, self.canvas
        for tick in self.x.ticks(most):
            place = self.x(tick)
            if grid:
                canvas.line(place, self.y.end, place, bottom, LINE, 0.6)
            canvas.line(place, bottom, place, bottom + 3, LINE)
            canvas.text(place, bottom + 16, said(tick), anchor="middle")
        canvas.line(self.x.start, bottom, self.x.end, bottom, LINE)
        if label:
            canvas.text((self.x.start + self.x.end) / 2, bottom + 32, label, anchor="middle")

    def y_axis(self, said: Callable[[float], str] = short, most: int = 5) -> None:
        """Grid lines with their values at the left."""
        for tick in self.y.ticks(most):
            place = self.y(tick)
            self.canvas.line(self.x.start, place, self.x.end, place, LINE, 0.6)
            self.canvas.text(self.x.start - 6, place + 4, said(tick), anchor="end")


def frame(
    canvas: Canvas,
    box: tuple[float, float, float, float],
    x: tuple[float, float],
    y: tuple[float, float],
    log: bool = False,
) -> Frame:
    """A frame in a box (left, top, right, bottom) for these ranges; y grows upwards."""
    left, top, right, bottom = box
    return Frame(canvas, Scale(*x, left, right, log), Scale(*y, bottom, top))


def series(number: int) -> str:
    return SERIES[number % len(SERIES)]


def label_width(labels: Sequence[str], most: float = 230) -> float:
    return min(most, max((text_width(label, NORMAL) for label in labels), default=0)) + 16


def row_label(canvas: Canvas, left: float, y: float, label: str) -> None:
    fits = cut_middle(label, max(6, int(len(label) * (left - 14) / max(1.0, text_width(label, NORMAL)))))
    canvas.text(left - 9, y + ROW / 2 + 3, fits, INK, "end", NORMAL)


def _legend_places(names: Sequence[str], width: float) -> list[tuple[float, int]]:
    places, x, line = [], 10.0, 0
    for name in names:
        size = text_width(name, SMALL) + 34
        if x + size > width and x > 10:
            x, line = 10.0, line + 1
        places.append((x, line))
        x += size
    return places


def legend_height(names: Sequence[str], width: float) -> float:
    places = _legend_places(names, width)
    return 20.0 * (places[-1][1] + 1) + 6 if places else 0.0


def legend(canvas: Canvas, names: Sequence[tuple[str, str]], top: float) -> None:
    for (name, color), (x, line) in zip(names, _legend_places([n for n, _ in names], WIDTH - 20), strict=True):
        y = top + 20 * line
        canvas.rect(x, y + 4, 11, 11, color)
        canvas.text(x + 17, y + 14, name, INK)
