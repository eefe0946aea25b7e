"""The command `wuxing`: verbs grouped by phase, one clear line for every mistake.

Nothing heavy is imported before a verb needs it, so that `--help` stays quick.
"""

from __future__ import annotations

import gc
import json
import os
import sys
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from wuxing import __version__
from wuxing.commands import archive, evaluate, maintain, prepare, recipe, scaling, strategies, train

PHASES = ("Anything", "Prepare", "Train", "Evaluate", "Optimise", "Maintain")


class ByPhase(TyperGroup):
    """Help that lists the verbs under their phase; plain text, because a styled page costs twice the time."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        for phase in PHASES:
            verbs = {n: c for n, c in self.commands.items() if getattr(c, "rich_help_panel", "") == phase}
            if verbs:
                with formatter.section(phase):
                    formatter.write_dl([(name, verb.get_short_help_str(90)) for name, verb in verbs.items()])


app = typer.Typer(
    name="wuxing",
    cls=ByPhase,
    help="Wuxing (五行): a large model through its whole life, with checkable evidence at every stage.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode=None,
    epilog="Exit codes: 0 done, 1 failed, 2 wrong usage or recipe, 3 refused by evidence or a gate, 130 interrupted.",
)


@app.callback(invoke_without_command=True)
def options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Wuxing (五行): a large model through its whole life, with checkable evidence at every stage."""
    if version:
        print(f"wuxing {__version__}")
        raise typer.Exit
    if debug:
        os.environ["WUXING_DEBUG"] = "1"


for verbs in (recipe, prepare, scaling, train, evaluate, strategies, maintain, archive):
    verbs.register(app)


def main() -> None:
    """The entry point: turns every error into one line and an exit code."""
    try:
        app()
    except KeyboardInterrupt:
        _end("interrupted", "Type the same command again to go on", 130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        if os.environ.get("WUXING_DEBUG"):
            raise
        _explain(error)
    finally:
        gc.freeze()  # or the interpreter looks through all that libraries have made once more: 0.8 s after torch


def _explain(error: Exception) -> NoReturn:
    from wuxing.core.error import WuxingError, disk_trouble

    if isinstance(error, WuxingError):
        _end(error.what, error.remedy, error.exit_code)
    if isinstance(error, OSError) and (trouble := disk_trouble(error)):
        place = f" ({error.filename})" if error.filename else ""
        _end(f"{trouble}{place}; nothing that was signed is lost", "Mend that, then type the same command again", 1)
    if isinstance(error, PermissionError):
        _end(f"no permission for {error.filename}", "Change its owner, or choose another home (--home)", 1)
    _end(
        f"this is a fault of Wuxing: {type(error).__name__}: {error}",
        "Run it again with wuxing --debug ..., and report what it prints",
        1,
    )


def _end(what: str, remedy: str | None, code: int) -> NoReturn:
    if "--json" in sys.argv:
        answer: dict[str, Any] = {"error": what, "remedy": remedy, "exit_code": code}
        print(json.dumps(answer, ensure_ascii=False))
    else:
        word = {2: "wrong usage", 3: "refused", 130: "stopped"}.get(code, "error")
        text = what.rstrip(".") + (f". {remedy}" if remedy else "")
        print(f"wuxing: {word}: {text}", file=sys.stderr)
    sys.exit(code)
