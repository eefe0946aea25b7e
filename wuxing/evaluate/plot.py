"""Plots as SVG text.  Words stay words, drawn by the reader's own fonts, so Chinese never turns into boxes.

Colours are drawn as placeholders and then replaced: by the page's variables (they follow light and dark), or by fixed
ones in files that stand alone.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from wuxing.evaluate.fact import Point

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, MUTED, LINE = "#010203", "#010204", "#010205"
SERIES = ("#010210", "#010211", "#010212", "#010213", "#010214", "#010215")
FIXED = {
    INK: "#3a3a3a",
    MUTED: "#777777",
    LINE: "#cccccc",
    **dict(zip(SERIES, ("#2f6690", "#c1443c", "#3f7d58", "#b7822f", "#6d5a8d", "#7a7f87"), strict=True)),
}
PAGE = {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    LINE: "var(--line)",
    **{color: f"var(--s{place})" for place, color in enumerate(SERIES)},
}
WIDTH = 7.4
"""Inches; 72 units of SVG each."""
_STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": LINE,
    "axes.titlecolor": INK,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.titlepad": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": LINE,
    "grid.linewidth": 0.5,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
}


def for_page(svg: str) -> str:
    """The SVG with the page's colours, to stand inside HTML."""
    return _colored(svg, PAGE)


def for_file(svg: str) -> str:
    """The SVG with fixed colours that can be read on white and on black."""
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + _colored(svg, FIXED).replace(
        "var(--plot-font, sans-serif)", "sans-serif"
    )


def draw_metrics(panels: Sequence[Mapping[str, Any]]) -> str:
    """One panel per measure: `title`, `rows` [(model, value, low, high)], `baseline` (value or None), `percent`."""
    rows = max(len(panel["rows"]) for panel in panels)
    with _figure("metrics", len(panels), 0.95 + 0.36 * rows, sharey=True) as (figure, axes):
        for axis, panel in zip(axes, panels, strict=True):
            names = [row[0] for row in panel["rows"]]
            for place, (_, value, low, high) in enumerate(panel["rows"]):
                color = SERIES[place % len(SERIES)]
                axis.plot([low, high], [place, place], color=color, linewidth=2.2, solid_capstyle="round")
                axis.plot([value], [place], "o", color=color, markersize=6)
            if panel["baseline"] is not None:
                axis.axvline(panel["baseline"], color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
            axis.set_yticks(range(len(names)), names)
            axis.tick_params(axis="y", length=0, labelcolor=INK)
            axis.grid(axis="y", visible=False)
            axis.set_ylim(len(names) - 0.5, -0.5)
            axis.margins(x=0.08)
            axis.xaxis.set_major_locator(_few())
            axis.spines["left"].set_visible(False)
            axis.set_title(panel["title"])
            if panel["percent"]:
                axis.xaxis.set_major_formatter(_percent)
        return _svg(figure)


def draw_curves(name: str, panels: Sequence[Mapping[str, Any]], x_label: str) -> str:
    """One panel per logged figure: `title`, `points`, `marks` (few measurements, drawn with dots)."""
    with _figure(f"curves-{name}", len(panels), 2.35) as (figure, axes):
        for place, (axis, panel) in enumerate(zip(axes, panels, strict=True)):
            points: Sequence[Point] = panel["points"]
            xs, ys = [x for x, _ in points], [y for _, y in points]
            color = SERIES[place % len(SERIES)]
            if panel["marks"]:
                axis.plot(xs, ys, "o-", color=color, linewidth=1.6, markersize=4)
            else:
                axis.plot(xs, ys, color=color, linewidth=0.7, alpha=0.35)
                axis.plot(*_smoothed(xs, ys), color=color, linewidth=1.8)
            axis.set_title(panel["title"])
            axis.set_xlabel(x_label)
            axis.xaxis.set_major_formatter(_short)
            axis.xaxis.set_major_locator(_few())
            if panel.get("percent"):
                axis.yaxis.set_major_formatter(_percent)
        return _svg(figure)


def draw_fates(bars: Sequence[tuple[str, Sequence[tuple[str, float]]]], label: str) -> str:
    """One bar per corpus: (name, [(fate, share)]); the legend names the fates."""
    fates = list(dict.fromkeys(fate for _, parts in bars for fate, _ in parts))
    columns = 2
    height = 0.75 + 0.34 * len(bars) + 0.22 * -(-len(fates) // columns)
    with _figure("fates", 1, height) as (figure, axes):
        axis = axes[0]
        for place, (_, parts) in enumerate(bars):
            start = 0.0
            for fate, share in parts:
                color = SERIES[fates.index(fate) % len(SERIES)]
                axis.barh(place, share, left=start, height=0.55, color=color, linewidth=0)
                start += share
        axis.set_yticks(range(len(bars)), [name for name, _ in bars])
        axis.tick_params(axis="y", length=0, labelcolor=INK)
        axis.set_ylim(len(bars) - 0.5, -0.5)
        axis.set_xlim(0, 1)
        axis.grid(axis="y", visible=False)
        axis.spines["left"].set_visible(False)
        axis.xaxis.set_major_formatter(_percent)
        axis.set_xlabel(label)
        handles = [_patch(SERIES[place % len(SERIES)], fate) for place, fate in enumerate(fates)]
        figure.legend(handles=handles, loc="outside lower center", ncols=columns, frameon=False, fontsize=8)
        return _svg(figure)


def draw_slices(name: str, rows: Sequence[str], series: Mapping[str, Sequence[tuple[float, float, float]]]) -> str:
    """Parts of a task from top to bottom; each model one dot with its interval (value, low, high) in each part."""
    height = 0.8 + len(rows) * (0.16 + 0.15 * len(series))
    with _figure(f"slices-{name}", 1, height) as (figure, axes):
        axis = axes[0]
        for number, (_, values) in enumerate(series.items()):
            shift = (number - (len(series) - 1) / 2) * 0.8 / max(1, len(series))
            color = SERIES[number % len(SERIES)]
            for place, (value, low, high) in enumerate(values):
                axis.plot([low, high], [place + shift] * 2, color=color, linewidth=1.8, solid_capstyle="round")
                axis.plot([value], [place + shift], "o", color=color, markersize=4.5)
        axis.set_yticks(range(len(rows)), rows)
        axis.tick_params(axis="y", length=0, labelcolor=INK)
        axis.set_ylim(len(rows) - 0.4, -0.6)
        axis.set_xlim(-0.02, 1.02)
        axis.grid(axis="y", visible=False)
        axis.spines["left"].set_visible(False)
        axis.xaxis.set_major_formatter(_percent)
        handles = [_patch(SERIES[place % len(SERIES)], model) for place, model in enumerate(series)]
        figure.legend(handles=handles, loc="outside lower center", ncols=len(series), frameon=False, fontsize=8)
        return _svg(figure)


@contextmanager
def _figure(salt: str, panels: int, height: float, sharey: bool = False) -> Iterator[tuple[Figure, list[Axes]]]:
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as pyplot

    style: Any = {**_STYLE, "svg.hashsalt": salt}
    with matplotlib.rc_context(style), warnings.catch_warnings():
        # Words are written as words: the reader's fonts have the glyphs that matplotlib's own font lacks.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure, axes = pyplot.subplots(
            1, panels, figsize=(WIDTH, height), sharey=sharey, squeeze=False, layout="constrained"
        )
        try:
            yield figure, list(axes[0])
        finally:
            pyplot.close(figure)


def _svg(figure: Figure) -> str:
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :]
    named = set(re.findall(r"""(?:href="#|url\(#)([^")]+)""", svg))
    # Ids that nothing refers to would be there twice on a page with two plots.
    svg = re.sub(r' id="([^"]+)"', lambda match: match[0] if match[1] in named else "", svg)
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    return re.sub(r"font: ([\d.]+px) [^;\"]*", r"font: \1 var(--plot-font, sans-serif)", svg)


def _colored(svg: str, colors: Mapping[str, str]) -> str:
    for placeholder, color in colors.items():
        svg = svg.replace(placeholder, color)
    return svg


def _smoothed(xs: Sequence[float], ys: Sequence[float]) -> tuple[Sequence[float], list[float]]:
    """A running mean over a fiftieth of the course, drawn over the noise of single steps."""
    size = max(1, len(ys) // 50)
    sums = [0.0]
    for y in ys:
        sums.append(sums[-1] + y)
    found = []
    for place in range(len(ys)):
        low, high = max(0, place - size), min(len(ys), place + size + 1)
        found.append((sums[high] - sums[low]) / (high - low))
    return xs, found


def _percent(value: float, _: float) -> str:
    return f"{100 * value:g}%"


def _short(value: float, _: float) -> str:
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{unit}"
    return f"{value:g}"


def _few() -> Any:
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(5)


def _patch(color: str, label: str) -> Any:
    from matplotlib.patches import Patch

    return Patch(color=color, label=label, linewidth=0)
