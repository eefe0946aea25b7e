"""The verb that says how good a larger model or a longer run would be."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wuxing.commands.option import Home, Json, answer, open_store

if TYPE_CHECKING:
    from wuxing.train.plan.finished import Finished
    from wuxing.train.plan.scaling import Interval, Law


def register(app: typer.Typer) -> None:
    """Add this verb to the command."""
    app.command(rich_help_panel="Prepare")(scaling)


def scaling(
    models: Annotated[list[str], typer.Argument(help="Finished models of three sizes or more.", metavar="MODEL...")],
    size: Annotated[list[str] | None, typer.Option(help="Say how good this size would be; may be repeated.")] = None,
    tokens: Annotated[list[float] | None, typer.Option(help="After so many positions; may be repeated.")] = None,
    page: Annotated[Path | None, typer.Option(help="Also draw the law as an SVG file.")] = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Fit a scaling law to finished models, and predict others with an interval."""
    from wuxing.core.error import UsageError
    from wuxing.train.plan.finished import block_parameters, read_all
    from wuxing.train.plan.scaling import fit

    store = open_store(home)
    if len(set(models)) != len(models):
        raise UsageError("a model is named twice", "Name each once: twins do not make a law surer")
    found = read_all([store.find(name, ("model",)) for name in models])
    law = fit([one.point for one in found])
    positions = [float(value) for value in tokens or [max(one.point.positions for one in found)]]
    if any(value <= 0 for value in positions):
        raise UsageError("--tokens must be above zero", "Write --tokens 2e6")
    asked = [
        (name, block_parameters(found[0].shape_of_size(name)), value) for name in size or () for value in positions
    ]
    predicted = [(name, count, value, law.predict(count, value)) for name, count, value in asked]
    answer(_as_json(law, predicted), as_json, lambda: _say(law, found, predicted))
    if page is not None:
        from wuxing.core.file import write_text
        from wuxing.page.svg import for_file

        write_text(page, for_file(draw(law, [(name, count, value) for name, count, value in asked])))
        if not as_json:
            print(f"wrote {page}")


Predicted = tuple[str, int, float, "Interval"]


def _as_json(law: Law, predicted: list[Predicted]) -> dict[str, Any]:
    return {
        "law": {name: value.to_json() for name, value in law.figures.items()},
        "deviation": law.deviation,
        "models": [
            {
                "model": point.name,
                "parameters": point.parameters,
                "positions": point.positions,
                "measured": point.loss,
                "fitted": law.loss(point.parameters, point.positions),
            }
            for point in law.points
        ],
        "predictions": [
            {"size": name, "parameters": count, "positions": value, "bits_per_byte": found.to_json()}
            for name, count, value, found in predicted
        ],
    }


def _say(law: Law, found: list[Finished], predicted: list[Predicted]) -> None:
    from wuxing.commands import show
    from wuxing.train.plan.scaling import LEVEL

    rows = [
        (p.name, f"{p.parameters:,.0f}", f"{p.positions:,.0f}", f"{p.loss:.4f}", f"{law.loss(*_place(p)):.4f}")
        for p in (one.point for one in found)
    ]
    numbers = ("parameters of the blocks", "positions", "bits per byte", "by the law")
    show.table(("model", *numbers), rows, numbers)
    out = show.console()
    out.print("bits per byte = E + A / parameters^alpha + B / positions^beta")
    out.print(
        "  ".join(
            f"{name} {_number(value.middle)} [{_number(value.low)}, {_number(value.high)}]"
            for name, value in law.figures.items()
        )
    )
    out.print(f"runs lie {law.deviation:.2%} from the law; intervals hold {LEVEL:.0%}")
    if len({p.positions for p in law.points}) == 1:
        out.print("all runs saw the same positions: what more data would bring rests on a guess")
    if predicted:
        head = ("size", "parameters of the blocks", "positions", "bits per byte", "interval")
        show.table(
            head,
            [
                (name, f"{count:,}", f"{value:,.0f}", f"{one.middle:.3f}", f"{one.low:.3f} to {one.high:.3f}")
                for name, count, value, one in predicted
            ],
            head[1:],
        )
        far = max(
            max(c / max(p.parameters for p in law.points), v / max(p.positions for p in law.points))
            for _, c, v, _ in predicted
        )
        if far > FAR:
            out.print(f"the farthest prediction lies {far:,.0f} times beyond the runs: train one nearer to it first")


HEIGHT = 330.0
FAR = 10
"""Times beyond the largest run from which on a prediction is called far."""


def _number(value: float) -> str:
    return f"{value:.3g}"


def _place(point: Any) -> tuple[float, float]:
    return point.parameters, point.positions


def draw(law: Law, asked: list[tuple[str, int, float]]) -> str:
    """The law over positions, a line for each size; dots are runs, bars the intervals of predictions."""
    from wuxing.page.svg import WIDTH, Canvas, frame, legend, legend_height, series

    runs = sorted({point.parameters for point in law.points})
    sizes = sorted({*runs, *(float(count) for _, count, _ in asked)})
    predicted = [(float(count), value, law.predict(count, value)) for _, count, value in asked]
    places = [p.positions for p in law.points] + [value for _, value, _ in predicted]
    span = (min(places) / 1.2, max(places) * 1.2)
    steps = [span[0] * (span[1] / span[0]) ** (k / 40) for k in range(41)]
    curves = {size: [law.loss(size, x) for x in steps] for size in sizes}
    heights = [y for curve in curves.values() for y in curve] + [p.loss for p in law.points]
    heights += [end for _, _, one in predicted for end in (one.low, one.high)]
    names = [(f"{_short(size)} parameters in blocks", series(k)) for k, size in enumerate(sizes)]
    canvas = Canvas("bits per byte over positions", HEIGHT + legend_height([name for name, _ in names], WIDTH - 20))
    axes = frame(canvas, (60, 14, WIDTH - 16, HEIGHT - 46), span, (min(heights) * 0.985, max(heights) * 1.015), True)
    axes.y_axis()
    axes.x_axis("positions", most=8)
    for number, size in enumerate(sizes):
        canvas.curve([(axes.x(x), axes.y(y)) for x, y in zip(steps, curves[size], strict=True)], series(number))
    for point in law.points:
        tip = f"{point.name}: {point.loss:.4f}"
        canvas.dot(axes.x(point.positions), axes.y(point.loss), 3.6, series(sizes.index(point.parameters)), tip)
    for size, value, one in predicted:
        x, color = axes.x(value), series(sizes.index(size))
        canvas.line(x, axes.y(one.low), x, axes.y(one.high), color, 2.2)
        for end in (one.low, one.high):
            canvas.line(x - 5, axes.y(end), x + 5, axes.y(end), color, 2.2)
    legend(canvas, names, HEIGHT + 2)
    return canvas.svg()


def _short(count: float) -> str:
    from wuxing.page.number import short

    return short(float(f"{count:.3g}"))
