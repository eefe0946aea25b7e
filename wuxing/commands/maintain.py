"""Verbs of phase five: serve, watch, learn from feedback, promote and roll back."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wuxing.commands.option import Home, Json, Why, answer, open_context, open_store

if TYPE_CHECKING:
    from wuxing.core.artifact import Artifact
    from wuxing.core.store import Store

PANEL = "Maintain"
Release = Annotated[str, typer.Argument(help="first-model@production, or release/first-model@v2.", metavar="RELEASE")]


def register(app: typer.Typer) -> None:
    """Add these verbs to the command."""
    for verb in (serve, keys, watch, feedback, promote, rollback):
        app.command(rich_help_panel=PANEL)(verb)


def serve(
    release: Release,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The port; 0 takes a free one.", min=0, max=65535)] = 8000,
    no_keys: Annotated[bool, typer.Option("--no-keys", help="Let everyone on this machine in; loopback only.")] = False,
    rows: Annotated[int, typer.Option(help="Answers to work on at once.", min=1)] = 16,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1 or auto.")] = "auto",
    certificate: Annotated[Path | None, typer.Option(help="PEM certificate: turns TLS on.")] = None,
    private_key: Annotated[Path | None, typer.Option(help="PEM key of the certificate.")] = None,
    home: Home = None,
) -> None:
    """Answer over the OpenAI API, with a chat page."""
    store = open_store(home)
    found = _release(store, release)
    store.require_whole(found)
    store.require_evidence(found, "serving")
    from wuxing.serve.limit import Limits
    from wuxing.serve.server import serve as serve_release

    limits = Limits(rows=rows)
    serve_release(found, store.home, host, port, not no_keys, limits, device, certificate, private_key)


def keys(
    create: Annotated[str | None, typer.Option(help="Make a key of this name; it is shown once.")] = None,
    revoke: Annotated[str | None, typer.Option(help="Make the key of this name worthless.")] = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """List, create or revoke the keys of served models."""
    from wuxing.commands import show
    from wuxing.serve.key import create_key, list_keys, revoke_key

    store = open_store(home)
    if revoke:
        revoke_key(store.home, revoke)
    if create:
        key = create_key(store.home, create)
        answer({"name": create, "key": key}, as_json, lambda: print(f"{create}: {key}   (shown only now)"))
        return
    names = [{"name": entry.name, "created": entry.created} for entry in list_keys(store.home)]
    answer(names, as_json, lambda: show.table(("key", "made"), [(item["name"], item["created"]) for item in names]))


def watch(
    release: Annotated[str, typer.Argument(help="A release's name: first-model.", metavar="NAME")],
    hours: Annotated[float | None, typer.Option(help="Only the last hours.", min=0)] = None,
    live: Annotated[bool, typer.Option("--live", help="Look again every few seconds, until Ctrl-C.")] = False,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Traffic, latency, thumbs and drift of a served model."""
    import time
    from datetime import UTC, datetime, timedelta

    from wuxing.commands import show
    from wuxing.core.file import read_json
    from wuxing.monitor.show import render
    from wuxing.monitor.watch import Watch
    from wuxing.monitor.watch import watch as watch_release

    store = open_store(home)
    found = _release(store, release)
    reference: dict[str, Any] = read_json(found.file("reference.json"))

    def look() -> Watch:
        since = None if hours is None else datetime.now(UTC) - timedelta(hours=hours)
        return watch_release(store.home, found.name, reference, since, artifact=found.id)

    if not live:
        seen = look()
        answer(seen.to_json(), as_json, lambda: show.console().print(render(seen)))
        return
    from rich.live import Live

    with Live(render(look()), console=show.console(), screen=False) as view:
        while True:
            time.sleep(2)
            view.update(render(look()))


def feedback(
    release: Annotated[str, typer.Argument(help="A release's name: first-model.", metavar="NAME")],
    judged: Annotated[str, typer.Option(help="Which answers: up, down or any.")] = "up",
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Turn judged answers into a new version of the corpus feedback."""
    from wuxing.commands import show
    from wuxing.commands.kinds import all_kinds
    from wuxing.core.recipe import build_recipe
    from wuxing.core.run import run
    from wuxing.monitor.feedback import judged as count_judged

    store = open_store(home)
    name = _release(store, release).name
    counts = count_judged(store.home, name)
    step = {
        "make": "corpus",
        "sources": [{"exchanges": name, "judged": judged}],
        "clean": ["repair", "normalise", "privacy"],
        "split": {"validation": 0.0, "test": 0.0},
    }
    recipe = build_recipe({"name": f"feedback-{name}", "seed": 0, "steps": {f"feedback-{name}": step}}, all_kinds())
    outcome = run(recipe, store, open_context(store, quiet=as_json))
    made = outcome.made[0]
    value = {
        "corpus": made.artifact.id,
        "reused": made.reused,
        "judged": vars(counts),
        "failures": made.artifact.failures,
    }

    def text() -> None:
        show.console().print(show.made_line(made))
        print(f"{counts.up} liked and {counts.down} disliked of {counts.exchanges} answers; train on it with")
        print(f"  data: {{{made.artifact.id}: 0.1, ...}}")

    answer(value, as_json, text)
    if outcome.refusal:
        raise outcome.refusal


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

    if Reference.parse(f"x@{alias}").alias != alias:
        raise UsageError(f'"{alias}" cannot be an alias', "Use small letters, such as production or candidate")
    store = open_store(home)
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
    value = {"alias": alias, "from": before, "to": after}
    answer(value, as_json, lambda: print(f"{alias}: {before} -> {after}  (recorded in {store.aliases.path})"))


def _release(store: Store, text: str) -> Artifact:
    """The release that a reference means; a bare name means its production alias, or else its newest version."""
    if "@" not in text and (text.rpartition("/")[2], "production") in store.aliases.current():
        text = f"{text.rpartition('/')[2]}@production"
    found = store.find(text, ("release",))
    if found.kind != "release":
        from wuxing.core.error import UsageError

        raise UsageError(f"{found.id} is a {found.kind}", "Name a release, such as first-model@production")
    return found
