"""How answers look on a terminal: tables, trees and figures."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from wuxing.core.artifact import Artifact
    from wuxing.core.run import Made

MARKS = {"passed": ("✓", "green"), "failed": ("✗", "bold red"), "measured": ("·", "dim")}


def console() -> Console:
    """Standard output; plain text, in wide lines, where it is no terminal."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else 160)


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]], right: Sequence[str] = ()) -> None:
    """Print a table without heavy borders; `right` names the columns of numbers."""
    rows = list(rows)
    if not rows:
        return
    grid = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for column in columns:
        grid.add_column(column, justify="right" if column in right else "left", overflow="fold")
    for row in rows:
        grid.add_row(*(cell if isinstance(cell, Text) else Text(str(cell)) for cell in row))
    console().print(grid)


def pairs(rows: Iterable[tuple[Any, Any]], indent: int = 2) -> None:
    """Print names and what is to be said of each; long lines go on below where they began."""
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for row in rows:
        grid.add_row(*(cell if isinstance(cell, Text) else Text(str(cell)) for cell in row))
    console().print(Padding(grid, (0, 0, 0, indent)))


def count_text(count: float) -> str:
    """Three digits of a large number: `227,000`, `4.54 million`, `134 billion`."""
    for unit, name in ((1e12, " trillion"), (1e9, " billion"), (1e6, " million")):
        if count >= unit:
            return f"{count / unit:,.3g}{name}" if count < 1000 * unit else f"{count / unit:,.0f}{name}"
    return f"{float(f'{count:.3g}'):,.0f}" if count >= 100 else f"{count:.3g}"


def seconds_text(seconds: float) -> str:
    """`3.2 s`, `4 min 05 s`, `2 h 10 min`, `12 days` or `255 years`."""
    if seconds >= 2 * 365 * 86_400:
        return f"{seconds / 86_400 / 365:,.3g} years" if seconds < 3e10 else f"{seconds / 86_400 / 365:,.0f} years"
    if seconds >= 48 * 3600:
        return f"{seconds / 86_400:,.3g} days"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def figure(value: Any) -> str:
    """A number as a person wants it; anything else as it is."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1e4 else f"{value:,.0f}"
    if isinstance(value, list):
        return ", ".join(figure(item) for item in value)
    if isinstance(value, dict):
        return ", ".join(f"{key} {figure(item)}" for key, item in value.items())
    return str(value)


def figures(summary: dict[str, Any], at_most: int = 4) -> str:
    """The first few headline figures of an artifact in one line."""
    shown = [
        (key, value) for key, value in summary.items() if key != "promote" and isinstance(value, int | float | str)
    ]
    return "  ".join(f"{key.replace('_', ' ')} {figure(value)}" for key, value in shown[:at_most])


def made_line(made: Made) -> Text:
    """One line for one finished step."""
    failed = bool(made.artifact.failures)
    mark = ("✗", "bold red") if failed else ("=", "dim") if made.reused else ("✓", "green")
    took = "reused" if made.reused else seconds_text(made.seconds)
    line = Text.assemble(mark, " ", (f"{made.artifact.id:<28}", "bold"), (f"{took:>12}  ", "dim"))
    return line.append(figures(made.artifact.record["summary"]), "default")


def results(models: dict[str, Any]) -> None:
    """The measured models of an evaluation: each figure with its interval."""
    rows = [
        (model, metric, figure(value["value"]), f"[{value['low']:.4g}, {value['high']:.4g}]", value["n"])
        for model, entry in models.items()
        for metric, value in entry["metrics"].items()
    ]
    table(("model", "measure", "value", "95 % interval", "items"), rows, right=("value", "items"))


def evidence(artifact: Artifact) -> None:
    """Every check with its mark, value and threshold."""
    rows = []
    for check in artifact.evidence.checks:
        mark = Text(*MARKS[check.verdict])
        rows.append(
            (
                mark,
                check.name,
                figure(check.value),
                "" if check.threshold is None else figure(check.threshold),
                check.note,
            )
        )
    missing = [line for line in artifact.record["failures"] if "no evidence was left" in line]
    rows += [(Text("✗", "bold red"), line, "", "", "") for line in missing]
    table(("", "evidence", "value", "asked for", "note"), rows)
