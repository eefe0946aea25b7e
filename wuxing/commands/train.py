"""Verbs of phase two: look at a running job, and turn its knobs."""

from __future__ import annotations

from typing import Annotated

import typer

from wuxing.commands.option import Home, Json, Why, answer, open_store

PANEL = "Train"


def register(app: typer.Typer) -> None:
    """Add these verbs to the command."""
    app.command(rich_help_panel=PANEL)(adjust)


def adjust(
    model: Annotated[str, typer.Argument(help="The model that is being trained.", metavar="NAME")],
    settings: Annotated[list[str], typer.Argument(help="learning_rate=0.001, clip=1, steps=400.", metavar="KNOB=...")],
    why: Why,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Turn a knob of a running job; recorded, and repeated exactly after a kill."""
    from wuxing.core.alias import current_user
    from wuxing.core.error import UsageError, WuxingError
    from wuxing.core.exchange import now
    from wuxing.train.adjust import ask

    store = open_store(home)
    drafts = store.drafts("model", model.removeprefix("model/"))
    if not drafts:
        raise WuxingError(f"no model called {model} is being trained", "Start it: wuxing run RECIPE")
    wanted = dict(setting.partition("=")[::2] for setting in settings)
    if "" in wanted.values():
        raise UsageError(f"{settings[0]} has no value", "Write learning_rate=0.001")
    lines = ask(drafts[-1], wanted, current_user(), why, now())
    said = ", ".join(f"{line['knob']} {line['value']:g}" for line in lines)
    answer(lines, as_json, lambda: print(f"asked {model} for {said}; it follows at its next step"))
