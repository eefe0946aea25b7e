"""Verbs of phase one: look at the machine, and at raw data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wuxing.commands.option import Home, Json, answer, open_context, open_store

PANEL = "Prepare"


def register(app: typer.Typer) -> None:
    """Add these verbs to the command."""
    app.command(rich_help_panel=PANEL)(doctor)
    app.command(rich_help_panel=PANEL)(inspect)
    app.command(rich_help_panel=PANEL)(browse)


def doctor(
    again: Annotated[bool, typer.Option("--again", help="Measure, although it was measured before.")] = False,
    processes: Annotated[int, typer.Option(help="Also measure sums between so many processes.", min=0)] = 0,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """What this machine has, what is missing, what mends it."""
    from wuxing.commands import show
    from wuxing.compute.doctor import examine

    findings = examine(open_store(home).home, again, processes)

    def table() -> None:
        marks = {True: "✓", False: "✗", None: "·"}
        rows = [(marks[item.ok], item.name, item.value, item.remedy or "") for item in findings]
        show.table(("", "what", "found", "remedy"), rows)

    answer([vars(item) for item in findings], as_json, table)
    if any(item.ok is False for item in findings):
        raise typer.Exit(1)


def inspect(
    data: Annotated[
        str,
        typer.Argument(help="A file, a folder, a pattern, an address, or a source as a recipe has it.", metavar="DATA"),
    ],
    format: Annotated[str | None, typer.Option(help="How the files are written; detected without it.")] = None,
    per: Annotated[str | None, typer.Option(help="What one record is: file, paragraph, line, page.")] = None,
    rows: Annotated[int, typer.Option(help="At most this many rows are read.", min=1)] = 20_000,
    page: Annotated[Path | None, typer.Option(help="Write what was found as an HTML page to this file.")] = None,
    language: Annotated[str, typer.Option(help="Of the page: en or zh.")] = "en",
    home: Home = None,
    as_json: Json = False,
) -> None:
    """What raw data hold: format, fields, languages, quality, privacy; a recipe to start with."""
    from wuxing.corpus.inspect import inspect as inspect_data
    from wuxing.corpus.inspect import source_of

    context = open_context(open_store(home), quiet=as_json)
    found = inspect_data(source_of(data, format=format, per=per), context, rows).to_json()
    if page is not None:
        from wuxing.corpus.report.inspection import write_page

        write_page(page, found, language)

    def text() -> None:
        from wuxing.commands.inspected import print_inspection

        print_inspection(found)
        if page is not None:
            print(f"page: {page}")

    answer(found, as_json, text)


def browse(
    artifact: Annotated[str, typer.Argument(help="A corpus or task: corpus/articles@v2, or a name.", metavar="ID")],
    split: Annotated[str | None, typer.Option(help="Only train, validation or test.")] = None,
    dropped: Annotated[bool, typer.Option("--dropped", help="What was dropped, with the content kept of it.")] = False,
    changed: Annotated[bool, typer.Option("--changed", help="What steps changed, before and after.")] = False,
    fate: Annotated[str | None, typer.Option(help="Every row that ended so: filtered:too_short, or filtered.")] = None,
    step: Annotated[str | None, typer.Option(help="With --changed: only by this step.")] = None,
    grep: Annotated[str | None, typer.Option(help="Text that occurs in them, in any case.")] = None,
    label: Annotated[str | None, typer.Option(help="Only this label.")] = None,
    language: Annotated[str | None, typer.Option(help="Only this language: en, zh, ...")] = None,
    source: Annotated[str | None, typer.Option(help="Only from this source.")] = None,
    longer: Annotated[int | None, typer.Option(help="Only with at least this many characters.", min=0)] = None,
    shorter: Annotated[int | None, typer.Option(help="Only with at most this many characters.", min=0)] = None,
    record: Annotated[str | None, typer.Option(help="One record, whole, by its id.")] = None,
    sample: Annotated[int | None, typer.Option(help="A uniform sample of this many.", min=1)] = None,
    seed: Annotated[int, typer.Option(help="Of the sample.")] = 0,
    limit: Annotated[int | None, typer.Option(help="At most this many; 100 with --json.", min=1)] = None,
    page: Annotated[bool, typer.Option("--page", help="Browse on a page of this machine, until Ctrl-C.")] = False,
    port: Annotated[int, typer.Option(help="With --page: the port; 0 takes a free one.", min=0, max=65535)] = 0,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Look through the records of a corpus, kept and dropped."""
    from wuxing.corpus.browse.query import Corpus, Query, view_of

    found = open_store(home).find(artifact)
    if page:
        from wuxing.console.server import serve_corpus

        serve_corpus(found.path, found.id, port, lambda url: print(f"{found.id}: {url}   (Ctrl-C ends)", flush=True))
        return
    corpus = Corpus(found.path, found.id)
    query = Query(view_of(split, dropped, changed), fate, step, grep, label, language, source, longer, shorter)
    from wuxing.commands import look

    if record is not None:
        look.one(corpus, record, as_json)
    elif sample is not None:
        look.entries(corpus.sample(query, sample, seed), as_json)
    else:
        look.matches(corpus, query, limit, as_json)
