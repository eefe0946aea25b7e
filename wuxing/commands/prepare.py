"""Verbs of phase one: look at the machine, and at raw data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wuxing.commands.option import Home, Json, answer, open_store

PANEL = "Prepare"


def register(app: typer.Typer) -> None:
    """Add these verbs to the command."""
    app.command(rich_help_panel=PANEL)(doctor)
    app.command(rich_help_panel=PANEL)(inspect)


def doctor(home: Home = None, as_json: Json = False) -> None:
    """What this machine has, what is missing, what mends it."""
    from wuxing.commands import show
    from wuxing.compute.doctor import examine

    findings = examine(open_store(home).home)

    def table() -> None:
        marks = {True: "✓", False: "✗", None: "·"}
        rows = [(marks[item.ok], item.name, item.value, item.remedy or "") for item in findings]
        show.table(("", "what", "found", "remedy"), rows)

    answer([vars(item) for item in findings], as_json, table)
    if any(item.ok is False for item in findings):
        raise typer.Exit(1)


def inspect(
    data: Annotated[Path, typer.Argument(help="A file or a folder.", metavar="DATA")], as_json: Json = False
) -> None:
    """What raw data hold: format, rows, languages, privacy."""
    from wuxing.commands import show
    from wuxing.corpus.inspect import inspect as inspect_data

    inspection = inspect_data(data).to_json()

    def table() -> None:
        rows = [(key.replace("_", " "), show.figure(value)) for key, value in inspection.items() if key != "samples"]
        show.table(("what", "found"), rows)
        for sample in inspection.get("samples", []):
            show.console().print(f"  {str(sample)[:300]}", style="dim", markup=False)

    answer(inspection, as_json, table)
