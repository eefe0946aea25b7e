"""Verbs of phase five: serve, watch, learn from feedback, promote and roll back."""

from __future__ import annotations

from typing import Annotated

import typer

from wuxing.commands.option import Home, Json, Why, answer, open_store

PANEL = "Maintain"


def register(app: typer.Typer) -> None:
    """Add these verbs to the command."""
    app.command(rich_help_panel=PANEL)(promote)
    app.command(rich_help_panel=PANEL)(rollback)


def promote(
    artifact: Annotated[str, typer.Argument(help="What to point at: release/first-model@v2.", metavar="ID")],
    alias: Annotated[str, typer.Argument(help="The alias, such as production.", metavar="ALIAS")],
    why: Why = "by hand",
    accept: Annotated[str | None, typer.Option(help="Promote although evidence failed, and why.")] = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Point an alias at an artifact whose evidence holds."""
    from wuxing.core.alias import current_user
    from wuxing.core.artifact import Reference
    from wuxing.core.error import UsageError

    store = open_store(home)
    reference = Reference.parse(f"x@{alias}")
    if reference.alias != alias:
        raise UsageError(f'"{alias}" cannot be an alias', "Use small letters, such as production or candidate")
    found = store.find(artifact)
    store.require_whole(found)
    if accept and found.failures:
        found = store.accept(found, accept, current_user())
    store.require_evidence(found, f"the promotion to @{alias}")
    before = store.aliases.promote(found, alias, why)
    value = {"alias": f"{found.name}@{alias}", "from": before, "to": found.id}
    answer(value, as_json, lambda: print(f"{found.name}@{alias}: {before or 'nothing'} -> {found.id}"))


def rollback(
    alias: Annotated[str, typer.Argument(help="production, or first-model@production.", metavar="ALIAS")],
    why: Why = "by hand",
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Point an alias back at what it stood on before."""
    store = open_store(home)
    name, _, short = alias.rpartition("@")
    before, after = store.aliases.rollback(short, name or None, why)
    store.require_whole(store.find(after))
    answer(
        {"alias": alias, "from": before, "to": after},
        as_json,
        lambda: print(f"{alias}: {before} -> {after}  (recorded in {store.aliases.path})"),
    )
