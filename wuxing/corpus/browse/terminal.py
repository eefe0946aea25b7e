"""Browsing in a terminal: a page of records at a time with keys, or plain lines into a pipe."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from wuxing.corpus.browse.query import Corpus, Page, Query
from wuxing.page.text import cut_middle, flat, is_wide, visible

ENTRY_LINES = 4
LONG_WORD = 30
"""Longer words are broken at the end of a line."""
KEYS = "space next · b back · 1–9 open · / search · q quit"
_ARROWS = {"\x1b[C": "n", "\x1b[B": "n", "\x1b[6~": "n", "\x1b[D": "b", "\x1b[A": "b", "\x1b[5~": "b", "\x1b": "q"}


def plain_line(entry: dict[str, Any]) -> str:
    """id, fate or split, label, language, length, text: one line, tabs between; nothing in it can move the cursor."""
    where = entry["split"] or entry["fate"]
    columns = (entry["id"], where, entry["label"] or "", entry["language"] or "", str(entry["length"]), _said(entry))
    return "\t".join(flat(visible(str(column))) for column in columns)


def _said(entry: dict[str, Any]) -> str:
    if entry.get("step"):
        return f"{entry['step']}: {entry['before'][:200]} → {entry['after'][:200]}"
    detail = f"[{entry['detail']}] " if entry["detail"] else ""
    return detail + (entry["text"] or ("" if entry["kind"] == "text" else f"<{entry['kind']}>"))


def fit(text: str, width: int) -> str:
    """The beginning of a text that fits into this many columns."""
    used = 0
    for place, character in enumerate(text):
        used += 2 if is_wide(character) else 1
        if used > width:
            return text[: max(0, place - 1)] + "…"
    return text


def wrap(text: str, width: int, most: int) -> list[str]:
    """Up to `most` lines of this many columns."""
    lines: list[str] = []
    for paragraph in visible(text.replace("\r\n", "\n")).replace("\t", "    ").split("\n"):
        line, used = "", 0
        for character in paragraph:
            size = 2 if is_wide(character) else 1
            if used + size > width:
                space = line.rfind(" ", len(line) - LONG_WORD)
                kept, line = (line[:space], line[space + 1 :]) if space > 0 and character != " " else (line, "")
                lines.append(kept)
                used = sum(2 if is_wide(c) else 1 for c in line)
            line, used = line + character, used + size
        lines.append(line)
        if len(lines) > most:
            return [*lines[: most - 1], "…"]
    return lines


class Pager:
    """Shows pages of matches and answers keys until it is left."""

    def __init__(self, corpus: Corpus, query: Query, key: Callable[[], str], line: Callable[[str], str]):
        self.corpus, self.query = corpus, query
        self._key, self._line = key, line
        self._starts: list[str | None] = [None]

    def run(self) -> None:
        """Until `q`, Escape or the end of the input."""
        page = self._show()
        while True:
            pressed = self._key()
            pressed = _ARROWS.get(pressed, pressed)
            if pressed in ("q", "Q", "", "\x03", "\x04"):
                return
            if pressed in (" ", "n", "\r", "\n") and page.next is not None:
                self._starts.append(page.next)
            elif pressed == "b" and len(self._starts) > 1:
                self._starts.pop()
            elif pressed == "/":
                wanted = self._line("search: ")
                self.query, self._starts = replace(self.query, grep=wanted or None), [None]
            elif pressed.isdigit() and 0 < int(pressed) <= len(page.entries):
                self._open(page.entries[int(pressed) - 1]["id"])
                self._key()
            elif pressed not in (" ", "n", "b", "\r", "\n"):
                continue
            page = self._show()

    def _show(self) -> Page:
        from rich.console import Console
        from rich.text import Text

        size = shutil.get_terminal_size((100, 30))
        page = self.corpus.find(self.query, self._starts[-1], min(9, max(1, (size.lines - 4) // ENTRY_LINES)))
        console = Console(highlight=False)
        console.clear()
        console.print(Text(f"{self.corpus.id}  {describe(self.query)}", "bold"), no_wrap=True)
        for number, entry in enumerate(page.entries, 1):
            console.print(_head(number, entry, size.columns), no_wrap=True, overflow="crop")
            for line in wrap(_said(entry), size.columns - 4, ENTRY_LINES - 2):
                console.print(Text("   " + line), no_wrap=True, overflow="crop")
            console.print()
        if not page.entries:
            console.print(Text("nothing here" if page.next is None else "nothing up to here; space searches on", "dim"))
        end = "" if page.next else " · end"
        console.print(Text(f"page {len(self._starts)}{end} · {KEYS}", "dim"), no_wrap=True, overflow="crop")
        return page

    def _open(self, id: str) -> None:
        from rich.console import Console

        console = Console(highlight=False)
        console.clear()
        for line in record_lines(self.corpus.record(id) or {"id": id}, shutil.get_terminal_size((100, 30)).columns - 1):
            console.print(line, markup=False, soft_wrap=True)
        console.print("\nany key goes back", style="dim")


def _head(number: int, entry: dict[str, Any], width: int) -> Any:
    from rich.text import Text

    facts = [entry["split"] or entry["fate"], entry["label"], entry["language"]]
    said = " · ".join(visible(str(fact)) for fact in facts if fact)
    if entry["length"]:
        said += f" · {entry['length']:,} characters"
    id = cut_middle(visible(entry["id"]), max(20, width - len(said) - 8))
    color = "green" if entry["split"] else "yellow" if entry["fate"] == "changed" else "red"
    return Text.assemble((f"{number}  ", "bold"), (id, "cyan"), "  ", (fit(said, width), color))


def describe(query: Query) -> str:
    """The query in words."""
    given = {name: value for name, value in vars(query).items() if value is not None and name != "view"}
    return " · ".join([query.view, *(f"{name.replace('_', ' ')} {flat(visible(str(v)))}" for name, v in given.items())])


def record_lines(found: dict[str, Any], width: int, most: int = 400) -> list[str]:
    """One record, whole: its fate, its twins, its content, what steps changed."""
    where = f"{found.get('fate')}" + (f" · {found['split']}" if found.get("split") else "")
    detail = f" · {flat(visible(found['detail']))}" if found.get("detail") else ""
    lines = [flat(visible(found["id"])), flat(visible(where)) + detail]
    facts = {"source": found.get("source"), "label": found.get("label"), **(found.get("meta") or {})}
    said = {flat(visible(str(name))): flat(visible(str(value))) for name, value in facts.items() if value is not None}
    lines += [f"{name[:60]}: {value[:200]}" for name, value in said.items()]
    if found.get("media"):
        lines.append(f"({found['media']}; wuxing browse --page shows it)")
    for message in found.get("messages") or ():
        lines += ["", f"{flat(visible(message['role']))}:", *wrap(message["content"], width, most)]
    if found.get("text"):
        lines += ["", *wrap(found["text"], width, most)]
    for name in ("chosen", "rejected"):
        if found.get(name):
            lines += ["", f"{name}:", *wrap(found[name], width, most)]
    for change in found.get("changes") or ():
        lines += ["", f"{change['step']} before:", *wrap(change["before"], width, 20)]
        lines += [f"{change['step']} after:", *wrap(change["after"], width, 20)]
    if found.get("twins"):
        lines += ["", "equal or nearly equal:"]
        lines += [f"  {twin['fate']:<15} {visible(twin['id'])}" for twin in found["twins"]]
    return lines


def read_key() -> str:
    """One key press, without waiting for Enter; arrows come as their whole sequence."""
    import os
    import select
    import termios
    import tty

    number = sys.stdin.fileno()
    before = termios.tcgetattr(number)
    try:
        tty.setcbreak(number, termios.TCSANOW)  # keys typed ahead are kept
        pressed = os.read(number, 1)
        while select.select([number], [], [], 0.02)[0] and pressed[:1] == b"\x1b" and len(pressed) < 6:
            pressed += os.read(number, 1)
        return pressed.decode("utf-8", errors="replace")
    finally:
        termios.tcsetattr(number, termios.TCSANOW, before)


def read_line(prompt: str) -> str:
    """A line; empty at the end of the input."""
    sys.stdout.write(f"\r\x1b[K{prompt}")
    sys.stdout.flush()
    return sys.stdin.readline().strip()
