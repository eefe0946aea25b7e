"""Options that many verbs share, and how a verb prints its answer."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from wuxing.core.context import Context
    from wuxing.core.store import Store

Home = Annotated[Path | None, typer.Option("--home", help="The store; $WUXING_HOME or ./.wuxing without it.")]
Json = Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")]
Why = Annotated[str, typer.Option("--why", help="The reason, for the audit log.")]


def open_store(home: Path | None) -> Store:
    """The store of `--home`, or of the environment."""
    from wuxing.core.context import default_home
    from wuxing.core.store import Store

    return Store((home or default_home()).resolve())


def open_context(store: Store, quiet: bool = False, device: str = "auto") -> Context:
    """Where a verb runs: progress on the terminal unless its answer is JSON."""
    from wuxing.core.context import Context
    from wuxing.core.progress import Progress

    return Context(home=store.home, device=device, progress=Progress() if quiet else Progress.for_terminal())


def answer(value: Any, as_json: bool, show: Callable[[], None]) -> None:
    """Print `value` as JSON, or let `show` print it for people."""
    if as_json:
        json.dump(value, sys.stdout, ensure_ascii=False, indent=2, default=str)
        sys.stdout.write("\n")
    else:
        show()
