"""What a report tells of a classifier: each class, what is taken for what, and whether sureness means being right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from wuxing.evaluate.classes import confusions
from wuxing.evaluate.fact import Facts, ModelFacts
from wuxing.evaluate.number import format_interval
from wuxing.evaluate.string import Words
from wuxing.page.block import Block, Code, Figure, Fold, Inline, Paragraph, Part, Plot, Table, compose
from wuxing.page.chart import Course, draw_lines
from wuxing.page.number import format_count, format_percent

MATRIX_CLASSES = 12
"""More of them are not shown as a matrix: it would not fit a page."""
CLASSES_SHOWN = 25
CONFUSIONS_SHOWN = 10


def class_parts(facts: Facts, words: Words) -> list[Part]:
    """One part for each classifier of the evaluation."""
    found = []
    for model in facts.models:
        for corpus, details in model.details.items():
            if "confusion" in details:
                blocks = _blocks(facts.evaluation.id, model, corpus, details, words)
                found.append(Part(words("classes").replace("{model}", model.name), blocks))
    return found


def _blocks(source: str, model: ModelFacts, corpus: str, details: Mapping[str, Any], words: Words) -> list[Block]:
    return [
        _calibration(source, model, corpus, details, words),
        _reliability(source, model, details, words),
        *_class_table(source, details["classes"], words),
        *_confusions(source, details, words),
        *_matrix(source, details["confusion"], words),
    ]


def _calibration(source: str, model: ModelFacts, corpus: str, details: Mapping[str, Any], words: Words) -> Block:
    error, limit = model.metrics[f"calibration_error/{corpus}"]["value"], details["calibration"]["by_chance"]
    key = "calibration.off" if error > limit else "calibration.fits"
    values = {
        "model": Code(model.name),
        "error": Figure(format_percent(error), source),
        "limit": Figure(format_percent(limit), source),
    }
    return Paragraph(compose(words(key), values))


def _reliability(source: str, model: ModelFacts, details: Mapping[str, Any], words: Words) -> Block:
    bins = details["calibration"]["bins"]
    points = [(one["sure"], one["value"]) for one in bins]
    ends = [bins[0]["sure"], bins[-1]["sure"]] if len(bins) > 1 else [0.0, 1.0]
    lines = [(model.name, points), (words("calibration.perfect"), [(end, end) for end in ends])]
    caption = words("plot.reliability").replace("{model}", model.name)
    panel = Course(words("axis.right"), lines, marks=True, percent=True)
    return Plot(f"reliability-{model.name}", caption, [source], draw_lines(caption, [panel], words("axis.sure"), 1))


def _class_table(source: str, classes: Sequence[Mapping[str, Any]], words: Words) -> list[Block]:
    """The weakest classes first; what does not fit is folded away."""
    ranked = sorted((one for one in classes if one["n"]), key=lambda one: (one["f1"], one["class"]))

    def table(some: Sequence[Mapping[str, Any]]) -> Table:
        rows: list[list[Sequence[Inline]]] = [
            [
                [one["class"]],
                [Figure(format_count(one["n"]), source)],
                *([_share(source, one["precision"]), _share(source, one["recall"])]),
                [Figure(format_percent(one["f1"]), source)],
            ]
            for one in some
        ]
        columns = ("class", "n", "precision", "recall", "f1")
        return Table([words(f"col.{column}") for column in columns], rows, numeric=(1, 2, 3, 4), sortable=True)

    blocks: list[Block] = [table(ranked[:CLASSES_SHOWN])]
    if len(ranked) > CLASSES_SHOWN:
        blocks.append(Fold([words("classes.others")], [table(ranked[CLASSES_SHOWN:])]))
    return blocks


def _share(source: str, one: Mapping[str, float] | None) -> list[Inline]:
    if one is None:
        return ["–"]
    interval = format_interval("accuracy", one["low"], one["high"])
    return [Figure(format_percent(one["value"]), source), " ", Figure(interval, source)]


def _confusions(source: str, details: Mapping[str, Any], words: Words) -> list[Block]:
    rows: list[list[Sequence[Inline]]] = [
        [
            [one["class"]],
            [one["named"]],
            [Figure(format_count(one["count"]), source)],
            [Figure(format_percent(one["count"] / one["of"]), source)],
        ]
        for one in confusions(details, CONFUSIONS_SHOWN)
    ]
    columns = ("class", "named", "count", "share")
    table = Table([words(f"col.{column}") for column in columns], rows, numeric=(2, 3))
    return [Paragraph([words("confusions.text")]), table] if rows else []


def _matrix(source: str, confusion: Mapping[str, Any], words: Words) -> list[Block]:
    """Documents by true (rows) and by named class (columns, numbered as the rows are)."""
    classes, counts = confusion["classes"], confusion["counts"]
    if len(classes) > MATRIX_CLASSES:
        return []
    rows: list[list[Sequence[Inline]]] = [
        [[f"{number}. {name}"], *([Figure(format_count(count), source)] if count else ["·"] for count in line)]
        for number, (name, line) in enumerate(zip(classes, counts, strict=True), 1)
    ]
    columns = [words("col.class"), *(f"{number}." for number in range(1, len(classes) + 1))]
    table = Table(columns, rows, numeric=tuple(range(1, len(classes) + 1)))
    return [Fold([words("confusion.matrix")], [table])]
