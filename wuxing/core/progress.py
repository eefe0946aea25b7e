"""Progress: bars on a terminal, plain lines in a log, nothing at all for `--json`."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

LINE_EVERY_SECONDS = 10.0


class Bar:
    """One running piece of work.  `advance` and `set` move it; `note` shows its newest figures beside it."""

    def __init__(self, title: str, total: float | None, rich: RichProgress | None, task: TaskID | None, lines: bool):
        self.title, self.total, self.done, self.text = title, total, 0.0, ""
        self._rich, self._task, self._lines = rich, task, lines
        self._said = time.monotonic()

    def advance(self, by: float = 1) -> None:
        self.set(self.done + by)

    def set(self, done: float) -> None:
        self.done = done
        self._show()

    def note(self, text: str) -> None:
        self.text = text
        self._show()

    def _show(self) -> None:
        if self._rich is not None and self._task is not None:
            self._rich.update(self._task, completed=self.done, note=self.text)
        elif self._lines and time.monotonic() - self._said >= LINE_EVERY_SECONDS:
            self._said = time.monotonic()
            share = f"{100 * self.done / self.total:3.0f} %" if self.total else f"{self.done:g}"
            print(f"  {self.title}  {share}  {self.text}".rstrip(), file=sys.stderr, flush=True)


class Progress:
    """The one place where a step says how far it is."""

    def __init__(self, form: Literal["silent", "lines", "bars"] = "silent"):
        self.form = form
        self._rich: RichProgress | None = None

    @classmethod
    def for_terminal(cls) -> Progress:
        """Bars when standard error is a terminal, lines otherwise."""
        return cls("bars" if sys.stderr.isatty() else "lines")

    def say(self, line: str) -> None:
        """Print one line, above any bar."""
        if self.form == "silent":
            return
        if self.form == "bars":
            (self._rich.console if self._rich else _console()).print(line, highlight=False)
        else:
            print(line, file=sys.stderr, flush=True)

    @contextmanager
    def bar(self, title: str, total: float | None = None) -> Iterator[Bar]:
        """A bar for the length of a `with` block.  Bars may nest; each takes a line of its own."""
        if self.form != "bars":
            yield Bar(title, total, None, None, self.form == "lines")
            return
        opened_here = self._rich is None
        if self._rich is None:
            self._rich = _rich_progress()
            self._rich.start()
        task = self._rich.add_task(title, total=total, note="")
        try:
            yield Bar(title, total, self._rich, task, False)
        finally:
            self._rich.remove_task(task)
            if opened_here:
                self._rich.stop()
                self._rich = None


def _console() -> Console:
    from rich.console import Console

    return Console(stderr=True)


def _rich_progress() -> RichProgress:
    from rich.progress import BarColumn, SpinnerColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as RichProgress

    return RichProgress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=28),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", style="dim"),
        console=_console(),
        transient=True,
    )
