"""Verbs over the store: what is there, where it comes from, whether it is whole, what may go."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from wuxing.commands.option import Home, Json, answer, open_context, open_store
from wuxing.core.amount import bytes_text

if TYPE_CHECKING:
    from rich.tree import Tree

    from wuxing.core.lineage import Node
    from wuxing.core.store import Store

PANEL = "Maintain"
Id = Annotated[str, typer.Argument(help="kind/name@v3, a name, or name@alias.", metavar="ID")]


def register(app: typer.Typer) -> None:
    """Add these verbs to the command."""
    app.command(name="list", rich_help_panel=PANEL)(list_artifacts)
    app.command(name="show", rich_help_panel=PANEL)(show_artifact)
    for verb in (why, diff, verify, prune):
        app.command(rich_help_panel=PANEL)(verb)


def list_artifacts(
    kind: Annotated[str | None, typer.Argument(help="Only this kind: model, corpus, ...", metavar="[KIND]")] = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """What the store holds, with its aliases."""
    import json

    from wuxing.commands import show
    from wuxing.core.ledger import Ledger

    store = open_store(home)
    rows = Ledger(store).rows(kind)
    pointing: dict[str, list[str]] = {}
    for (_, alias), target in store.aliases.current().items():
        pointing.setdefault(target, []).append(f"@{alias}")

    def table() -> None:
        if not rows:
            print(f"{store.home} holds nothing yet; begin with: wuxing run recipes/first-model.yaml")
            return
        show.table(
            ("artifact", "made", "size", "took", "alias", "figures"),
            [
                (
                    ("✗ " if row.failures else "") + row.id,
                    row.created[:16].replace("T", " "),
                    bytes_text(row.bytes),
                    show.seconds_text(row.seconds),
                    " ".join(pointing.get(row.id, [])),
                    show.figures(json.loads(row.summary), 3),
                )
                for row in rows
            ],
            right=("size", "took"),
        )

    value = [{**vars(row), "summary": json.loads(row.summary), "aliases": pointing.get(row.id, [])} for row in rows]
    answer(value, as_json, table)


def show_artifact(artifact: Id, home: Home = None, as_json: Json = False) -> None:
    """One artifact: figures, evidence, parents, files."""
    from wuxing.commands import show

    store = open_store(home)
    found = store.find(artifact)

    def text() -> None:
        out = show.console()
        out.print(f"{found.id}   {found.path}", style="bold", markup=False)
        record = found.record
        took = show.seconds_text(record["seconds"])
        out.print(f"made {record['created'][:19]} in {took}; fingerprint {found.fingerprint[:16]}")
        if record.get("accepted"):
            out.print(f"accepted by {record['accepted']['who']}: {record['accepted']['reason']}", style="yellow")
        show.table(("figure", "value"), [(k.replace("_", " "), show.figure(v)) for k, v in record["summary"].items()])
        show.evidence(found)
        show.table(("parent", "artifact"), sorted(found.parents.items()))
        files = [(name, bytes_text(entry["bytes"])) for name, entry in record["files"].items()]
        show.table(("file", "size"), files, right=("size",))

    value = {**found.record, "id": found.id, "path": str(found.path), "evidence": found.evidence.to_json()}
    answer(value, as_json, text)


def why(
    artifact: Annotated[str, typer.Argument(help="An artifact, an exchange's id, or a raw record's id.", metavar="ID")],
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Where an artifact, answer or raw record comes from and goes."""
    store = open_store(home)
    exchange = _exchange(store, artifact)
    if exchange:
        artifact = exchange["artifact"]
    else:
        traces = _traces(store, artifact)
        if traces:
            answer(traces, as_json, lambda: _show_traces(artifact, traces))
            return
    from wuxing.core.ledger import Ledger
    from wuxing.core.lineage import ancestry

    found = store.find(artifact)
    tree = ancestry(store, found)
    used = Ledger(store).descendants(found.id)
    value = {"exchange": exchange, "tree": tree.to_json(), "sources": tree.sources(), "used_by": used}

    def text() -> None:
        from wuxing.commands import show

        out = show.console()
        if exchange:
            said = f"{exchange['id']} was answered by {exchange['artifact']} at {exchange['time'][:19]}"
            out.print(said, markup=False)
        out.print(_drawn(tree))
        rows = [(item["artifact"], item["name"], item["digest"][:16]) for item in tree.sources()]
        show.table(("corpus", "raw data", "digest"), rows)
        if used:
            out.print(f"used by: {', '.join(used)}", markup=False)

    answer(value, as_json, text)


def diff(
    a: Annotated[str, typer.Argument(metavar="A")],
    b: Annotated[str, typer.Argument(metavar="B")],
    home: Home = None,
    as_json: Json = False,
) -> None:
    """What sets two artifacts apart."""
    from wuxing.commands import show
    from wuxing.core.lineage import difference

    store = open_store(home)
    sections = difference(store.find(a), store.find(b))
    rows = [(section, line) for section, lines in sections.items() for line in lines]
    if rows or as_json:
        answer(sections, as_json, lambda: show.table(("in", "difference"), rows))
    else:
        print("no difference")


def verify(
    artifact: Annotated[str | None, typer.Argument(help="An artifact; everything without it.", metavar="[ID]")] = None,
    replay: Annotated[int, typer.Option(help="Train so many steps of a model again, and compare.", min=0)] = 0,
    first: Annotated[int | None, typer.Option(help="With --replay: the kept step to start from.", min=0)] = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Check every byte against what was signed; --replay trains part of a model again."""
    from wuxing.commands import show

    store = open_store(home)
    if replay:
        _replay(store, artifact, replay, first, as_json)
        return
    found = [store.find(artifact)] if artifact else store.all()
    damage = {item.id: store.damage(item) for item in found}

    def text() -> None:
        show.table(("artifact", "state"), [(name, "; ".join(lines) or "whole") for name, lines in damage.items()])

    answer(damage, as_json, text)
    if any(damage.values()):
        raise typer.Exit(1)


def _replay(store: Store, name: str | None, steps: int, first: int | None, as_json: bool) -> None:
    from wuxing.core.error import UsageError

    if name is None:
        raise UsageError("--replay needs a model", "Write: wuxing verify model/base --replay 20")
    model = store.find(name, ["model"])
    store.require_whole(model)
    from wuxing.train.save.replay import replay

    parents = {role: store.find(said["id"]) for role, said in model.record["parents"].items()}
    for parent in parents.values():
        store.require_whole(parent)
    found = replay(model, parents, steps, open_context(store, quiet=as_json), first)

    def text() -> None:
        for line in found.differences[:10]:
            print(line)
        what = "losses, gradient norms and weights" if found.weights else "losses and gradient norms"
        end = f"{len(found.differences)} differences" if found.differences else f"{what} are the same, bit for bit"
        by = f" by {found.processes} processes" if found.processes > 1 else ""
        print(f"{found.model}, steps {found.first + 1} to {found.last}{by}: {end}")
        if found.until:
            print(f"it ends with step {found.last}: {found.until}")
        if found.elsewhere:
            print(f"this is not where it was trained ({found.elsewhere}): last bits may differ from that alone")

    answer(found.to_json(), as_json, text)
    if found.differences:
        raise typer.Exit(1)


def prune(
    keep: Annotated[int, typer.Option(help="Newest versions of each name to keep.", min=1)] = 1,
    yes: Annotated[bool, typer.Option("--yes", help="Remove them; only listed without it.")] = False,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """What nothing needs any more; --yes removes it."""
    from wuxing.commands import show
    from wuxing.commands.option import open_context
    from wuxing.core.prune import Prunable, prunable
    from wuxing.core.prune import prune as remove
    from wuxing.corpus.engine.cache import remove_unused, unused, used_shards

    store = open_store(home)
    items = prunable(store, keep)
    shards, used = open_context(store, quiet=True).cache_directory / "shards", used_shards(store, keep)
    spare = unused(shards, used)
    freed = remove(store, items) + remove_unused(shards, used) if yes else 0
    if spare:
        what = f"{len(spare):,} shards that no kept corpus is made of (they would be made again)"
        items.append(Prunable(shards, what, sum(size for _, size in spare)))
    value = {"items": [{"what": item.what, "bytes": item.bytes} for item in items], "freed": freed}

    def text() -> None:
        if not items:
            print("nothing can go")
            return
        show.table(("what", "size"), [(item.what, bytes_text(item.bytes)) for item in items], right=("size",))
        total = bytes_text(sum(item.bytes for item in items))
        print(f"freed {total}" if yes else f"{total} could go; remove them with: wuxing prune --yes")

    answer(value, as_json, text)


def _exchange(store: Store, text: str) -> dict[str, Any] | None:
    """The served answer with this id, from any release's log."""
    from dataclasses import asdict

    from wuxing.core.exchange import ExchangeLog

    for directory in sorted((store.home / "exchanges").glob("*")):
        for exchange in ExchangeLog(store.home, directory.name).exchanges():
            if exchange.id == text:
                return asdict(exchange)
    return None


def _traces(store: Store, record_id: str) -> list[dict[str, Any]]:
    """What every corpus did with a raw record, and which artifacts stand on it; empty when none read it."""
    from wuxing.core.artifact import Reference
    from wuxing.core.error import UsageError
    from wuxing.core.ledger import Ledger
    from wuxing.corpus.trace import trace_record

    try:
        known = {name for _, name in store.names()}
        if Reference.parse(record_id).name in known | {None}:
            return []
    except UsageError:
        known = set()  # an id such as "articles:12" is no reference, and so can only be a record's
    ledger, traces = Ledger(store), []
    for artifact in (artifact for artifact in store.all() if artifact.kind in ("corpus", "task", "augmentation")):
        trace = trace_record(artifact.path, record_id)
        if trace:
            used = ledger.descendants(artifact.id) if trace.split else []
            traces.append({"corpus": artifact.id, **vars(trace), "used_by": used})
    return traces


def _show_traces(record_id: str, traces: list[dict[str, Any]]) -> None:
    from wuxing.commands import show

    print(f"{record_id} was read by {len(traces)} corpora")
    rows = [(t["corpus"], t["fate"], t["split"] or "", ", ".join(t["used_by"]) or "nothing") for t in traces]
    show.table(("corpus", "fate", "split", "used by"), rows)


def _drawn(node: Node, tree: Tree | None = None, seen: set[str] | None = None) -> Tree:
    """The tree for a terminal; what stands on the same artifact twice is drawn once and named after that."""
    from rich.text import Text
    from rich.tree import Tree

    seen = set() if seen is None else seen
    again = node.id in seen and bool(node.parents)
    label = Text.assemble((f"{node.role}: " if node.role else "", "dim"), (node.id, "bold"))
    if node.artifact is None:
        label.append("  (removed since)", "red")
    elif node.artifact.failures:
        label.append("  evidence failed", "red")
    elif again:
        label.append("  (see above)", "dim")
    here = tree.add(label) if tree else Tree(label)
    seen.add(node.id)
    for parent in [] if again else node.parents:
        _drawn(parent, here, seen)
    return here
