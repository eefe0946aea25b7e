"""Plots of what passes by: records from all rows to the splits, and sounds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from wuxing.page.number import format_count, format_share
from wuxing.page.svg import BAD, INK, LINE, MUTED, SERIES, SMALL, WIDTH, Canvas, label_width, row_label, series
from wuxing.page.text import cut, text_width


@dataclass(frozen=True)
class Stage:
    """One row of `draw_flow`: what came in, and what left here."""

    label: str
    records: float
    lost: float = 0
    note: str = ""
    """The largest reasons, behind the number."""


def draw_flow(title: str, stages: Sequence[Stage], ends: Sequence[tuple[str, float]]) -> str:
    """From all rows at the top to the parts at the bottom: the width is what is left, red is what leaves."""
    left, row, gap = label_width([stage.label for stage in stages], 190), 24.0, 16.0
    right = 250.0
    most = max((stage.records for stage in stages), default=0) or 1
    canvas = Canvas(title, len(stages) * (row + gap) + row + 30)

    def wide(count: float) -> float:
        return (WIDTH - left - right) * count / most

    for place, stage in enumerate(stages):
        y = 4 + place * (row + gap)
        stays = stage.records - stage.lost
        row_label(canvas, left, y - 1, stage.label)
        canvas.rect(left, y, wide(stays), row, SERIES[0], f"{stage.label}: {format_count(stays)}", 0.9)
        if stage.lost:
            tip = f"{stage.label}: −{format_count(stage.lost)} ({format_share(stage.lost, most)})"
            canvas.rect(left + wide(stays), y, max(1.5, wide(stage.lost)), row, BAD, tip, 0.9)
        below = [
            (left, y + row),
            (left + wide(stays), y + row),
            (left + wide(stays), y + row + gap),
            (left, y + row + gap),
        ]
        canvas.area(below, SERIES[0], "", 0.22)
        said = format_count(stays) if not stage.lost else f"−{format_count(stage.lost)}"
        x = left + wide(stage.records) + 9
        canvas.text(x, y + row / 2 + 4, said, INK if not stage.lost else BAD, bold=True)
        note = cut(stage.note, max(8, int((WIDTH - x - text_width(said, SMALL)) / 6) - 3))
        canvas.text(x + text_width(said, SMALL) + 12, y + row / 2 + 4, note, MUTED, size=10.5)
    _ends(canvas, ends, left, 4 + len(stages) * (row + gap), row, wide)
    return canvas.svg()


def _ends(
    canvas: Canvas, ends: Sequence[tuple[str, float]], left: float, y: float, row: float, wide: Callable[[float], float]
) -> None:
    x, free = left, left
    for place, (name, count) in enumerate(ends):
        color = series((0, 2, 3, 4, 5)[place % 5])
        canvas.rect(x, y, wide(count), row, color, f"{name}: {format_count(count)}")
        words = f"{name} {format_count(count)}"
        at = max(x, free)
        canvas.rect(at, y + row + 8, 8, 8, color)
        canvas.text(at + 12, y + row + 16, words, INK)
        free = at + 12 + text_width(words, SMALL) + 18
        x += wide(count)


def draw_wave(title: str, peaks: Sequence[tuple[float, float]], width: float = 320, height: float = 56) -> str:
    """A sound at a glance: the lowest and highest sample of each stretch; the loudest one fills the height."""
    loudest = max((max(-low, high) for low, high in peaks), default=0) or 1
    canvas = Canvas(title, height, width)
    middle, step = height / 2, width / max(1, len(peaks))
    canvas.line(0, middle, width, middle, LINE, 0.6)
    upper = [(step * (place + 0.5), middle - high / loudest * (middle - 1)) for place, (_, high) in enumerate(peaks)]
    lower = [(step * (place + 0.5), middle - low / loudest * (middle - 1)) for place, (low, _) in enumerate(peaks)]
    canvas.area(upper + lower[::-1], SERIES[0])
    return canvas.svg()
