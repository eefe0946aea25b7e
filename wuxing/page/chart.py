"""Plots of measurements: courses over steps, values with intervals, points in the plane."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from wuxing.page.number import format_figure, percent_tick, short
from wuxing.page.svg import (
    INK,
    MUTED,
    NORMAL,
    ROW,
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

SMOOTHED_OVER = 50


@dataclass(frozen=True)
class Course:
    """One panel of `draw_lines`."""

    title: str
    lines: Sequence[tuple[str, Sequence[tuple[float, float]]]]
    """(name, points); one line without a name needs no legend."""
    marks: bool = False
    """Few measurements, drawn with dots; many steps get a running mean over their noise."""
    percent: bool = False
    log_x: bool = False


def draw_apart(panels: Sequence[Course], x_label: str) -> str:
    """Each panel as a picture of its own, half as wide: two stand side by side, on a telephone one below the other."""
    drawn = (draw_lines(panel.title, [panel], x_label, 1, WIDTH / 2, place) for place, panel in enumerate(panels))
    return "\n".join(drawn)


def draw_lines(
    title: str, panels: Sequence[Course], x_label: str, columns: int = 2, wide: float = WIDTH, first: int = 0
) -> str:
    """Values over steps, tokens or time, one panel per measure; their colours begin with number `first`."""
    columns = min(columns, len(panels)) or 1
    names = list(dict.fromkeys(name for panel in panels for name, _ in panel.lines if name))
    height, rows = 210.0, -(-len(panels) // columns)
    canvas = Canvas(title, rows * height + (legend_height(names, wide - 20) if names else 0), wide)
    width = wide / columns
    for number, panel in enumerate(panels):
        left, top = (number % columns) * width, (number // columns) * height
        points = [point for _, line in panel.lines for point in line] or [(0.0, 0.0)]
        low, high = min(y for _, y in points), max(y for _, y in points)
        margin = (high - low) * 0.06 or abs(high) * 0.1 or 1
        x_span = (min(x for x, _ in points), max(x for x, _ in points))
        box = (left + 54, top + 34, left + width - 16, top + height - 44)
        axes = frame(canvas, box, x_span, (low - margin, high + margin), panel.log_x)
        canvas.text(left + 8, top + 16, panel.title, INK, size=NORMAL, bold=True)
        axes.y_axis(percent_tick if panel.percent else short)
        axes.x_axis(x_label, most=5)
        for name, line in panel.lines:
            color = series(names.index(name) if name else first + number)
            _line(axes, panel, line, color, name)
    legend(canvas, [(name, series(place)) for place, name in enumerate(names)], rows * height + 2)
    return canvas.svg()


def _line(axes: Frame, panel: Course, line: Sequence[tuple[float, float]], color: str, name: str) -> None:
    placed = [(axes.x(x), axes.y(y)) for x, y in line]
    if not panel.marks:
        axes.canvas.curve(placed, color, 0.7, 0.4)
        axes.canvas.curve([(axes.x(x), axes.y(y)) for x, y in _smoothed(line)], color, 1.8)
        return
    axes.canvas.curve(placed, color)
    for (x, y), (value_x, value_y) in zip(placed, line, strict=True):
        axes.canvas.dot(x, y, 2.8, color, f"{name} {short(value_x)}: {format_figure(value_y)}")


def _smoothed(line: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """A running mean over a fiftieth of the course, drawn over the noise of single steps."""
    size = max(1, len(line) // SMOOTHED_OVER)
    sums = [0.0]
    for _, y in line:
        sums.append(sums[-1] + y)
    found = []
    for place, (x, _) in enumerate(line):
        low, high = max(0, place - size), min(len(line), place + size + 1)
        found.append((x, (sums[high] - sums[low]) / (high - low)))
    return found


@dataclass(frozen=True)
class Intervals:
    """One panel of `draw_intervals`: (value, low, high) for each row of each series."""

    title: str
    rows: Sequence[str]
    series: Sequence[tuple[str, Sequence[tuple[float, float, float]]]]
    baseline: float | None = None
    percent: bool = False
    span: tuple[float, float] | None = None
    by_row: bool = False
    """Whether each row has a colour of its own (one series) rather than each series."""


def draw_intervals(title: str, panels: Sequence[Intervals]) -> str:
    """Values with their intervals, rows from top to bottom; the dashed line is the baseline."""
    names = [name for panel in panels for name, _ in panel.series if name]
    names = list(dict.fromkeys(names))
    left = label_width([row for panel in panels for row in panel.rows])
    step = ROW if len(names) < 2 else 12 + 11.0 * len(names)
    height = 30 + step * max(len(panel.rows) for panel in panels) + 26
    canvas = Canvas(title, height + (legend_height(names, WIDTH - 20) if names else 0))
    width = (WIDTH - left) / len(panels)
    for number, panel in enumerate(panels):
        start = left + number * width
        values = [v for _, line in panel.series for one in line for v in one]
        values += [panel.baseline] if panel.baseline is not None else []
        margin = (max(values) - min(values)) * 0.08 or 0.05
        span = panel.span or (min(values) - margin, max(values) + margin)
        axes = frame(canvas, (start + 8, 26, start + width - 18, height - 24), span, (0, 1))
        canvas.text(start + 8, 15, panel.title, INK, size=NORMAL, bold=True)
        axes.x_axis("", percent_tick if panel.percent else short, most=5, grid=True)
        if panel.baseline is not None:
            x = axes.x(panel.baseline)
            canvas.line(x, 26, x, height - 24, MUTED, 1, "4 3")
        _intervals(axes, panel, step, names)
        if number == 0:
            for place, row in enumerate(panel.rows):
                row_label(canvas, left, 28 + place * step + (step - ROW) / 2, row)
    legend(canvas, [(name, series(place)) for place, name in enumerate(names)], height + 2)
    return canvas.svg()


def _intervals(axes: Frame, panel: Intervals, step: float, names: Sequence[str]) -> None:
    said: Callable[[float], str] = (lambda v: f"{100 * v:.1f} %") if panel.percent else format_figure
    for number, (name, line) in enumerate(panel.series):
        shift = (number - (len(panel.series) - 1) / 2) * 11.0
        for place, (value, low, high) in enumerate(line):
            color = series(place if panel.by_row else names.index(name) if name else 0)
            y = 28 + (place + 0.5) * step + shift
            axes.canvas.line(axes.x(low), y, axes.x(high), y, color, 2.2)
            tip = f"{panel.rows[place]} {name} {said(value)} [{said(low)}, {said(high)}]"
            axes.canvas.dot(axes.x(value), y, 3.8, color, tip)


@dataclass(frozen=True)
class Cloud:
    """One series of `draw_scatter`."""

    name: str
    points: Sequence[tuple[float, float]]
    tips: Sequence[str] = field(default=())
    color: int = 0


def draw_scatter(title: str, clouds: Sequence[Cloud], x_label: str, y_label: str, log: bool = False) -> str:
    """Points in the plane, with a legend when there is more than one series."""
    points = [point for cloud in clouds for point in cloud.points] or [(1.0, 1.0)]
    names = [(cloud.name, series(cloud.color)) for cloud in clouds] if len(clouds) > 1 else []
    canvas = Canvas(title, 330 + (legend_height([n for n, _ in names], WIDTH - 20) if names else 0))
    spans = []
    for axis in (0, 1):
        low, high = min(p[axis] for p in points), max(p[axis] for p in points)
        margin = (high - low) * 0.05 or abs(high) * 0.1 or 1
        spans.append((low / 1.2, high * 1.2) if log else (low - margin, high + margin))
    axes = frame(canvas, (64, 24, WIDTH - 24, 284), spans[0], spans[1], log)
    y = axes.y if not log else type(axes.y)(axes.y.low, axes.y.high, axes.y.start, axes.y.end, True)
    axes = Frame(canvas, axes.x, y)
    canvas.text(8, 14, y_label, MUTED)
    axes.y_axis()
    axes.x_axis(x_label)
    for cloud in clouds:
        tips = cloud.tips or [""] * len(cloud.points)
        for (x, value), tip in zip(cloud.points, tips, strict=True):
            canvas.dot(axes.x(x), axes.y(value), 3, series(cloud.color), tip, 0.65)
    legend(canvas, names, 328)
    return canvas.svg()
