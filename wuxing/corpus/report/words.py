"""The words of the data report in English and Chinese."""

from __future__ import annotations

from typing import Any

from wuxing.core.amount import bytes_text
from wuxing.corpus.report.name import CHECK_NOTES, FATES, FOUND, LANGUAGE_NAMES, MEASURES, STEPS
from wuxing.corpus.report.string import TEXT
from wuxing.page.number import format_count, format_figure
from wuxing.page.text import cut
from wuxing.page.words import Texts, Words

VALUE_CHARACTERS = 160


def words_of(language: str) -> CorpusWords:
    """The words of one language.  UsageError for a language that is not there."""
    return CorpusWords(language, TEXT)


class CorpusWords(Words):
    """Texts by key, and names of things that recipes and steps name: names without a text stay as they are."""

    def _named(self, table: Texts, name: str) -> str:
        return table[name][self._place] if name in table else name.replace("_", " ")

    @property
    def comma(self) -> str:
        return self("comma")

    def fate(self, fate: str) -> str:
        """`filtered:too_short` → filtered: too short."""
        kind, _, reason = fate.partition(":")
        name = self.get(f"fate.{kind}", kind.replace("_", " "))
        return f"{name}{self.colon}{self._named(FATES, reason)}" if reason else name

    def reason(self, fate: str) -> str:
        """`filtered:too_short` → too short; a fate without a reason says all by itself."""
        return self._named(FATES, fate.partition(":")[2]) if ":" in fate else ""

    def step(self, step: str) -> str:
        return self._named(STEPS, step)

    def measure(self, measure: str) -> str:
        return self._named(MEASURES, measure)

    def found(self, kind: str) -> str:
        return self._named(FOUND, kind)

    def language_name(self, code: str) -> str:
        """`en` → English; `script:latin` → Latin script."""
        name = self._named(LANGUAGE_NAMES, code)
        return name if code not in LANGUAGE_NAMES or code.startswith("script:") else f"{name} ({code})"

    def note(self, note: str) -> str:
        """A note of the evidence, where it is a known sentence."""
        head, mark, rest = note.partition(": " if note.startswith("contents") else "; first")
        return CHECK_NOTES[head][self._place] + mark + rest if head in CHECK_NOTES else self._known(note)

    def _known(self, note: str) -> str:
        return CHECK_NOTES[note][self._place] if note in CHECK_NOTES else note

    def origin(self, card: dict[str, Any]) -> str:
        """Where a source comes from, in a few words."""
        if card.get("package"):
            package = card["package"]
            return package if isinstance(package, str) else str(package.get("name", package))
        if card.get("exchanges"):
            return self("origin.exchanges")
        for key in ("url", "address", "repository", "database"):
            if card.get(key):
                return str(card[key])
        files = card.get("files") or {}
        size = sum(files.values()) if isinstance(files, dict) else 0
        said = self("origin.files" if len(files) != 1 else "origin.file").replace("{n}", format_count(len(files)))
        return f"{said} ({bytes_text(size)})" if size else said

    def cluster_size(self, size: int) -> str:
        """`2` → 2 records; from 10 on in powers of two: 16–31."""
        span = f"{size}–{2 * size - 1}" if size >= 10 else str(size)
        return self("cluster.size").replace("{n}", span)

    def value(self, value: Any) -> str:
        """A setting or a value of the evidence, short enough for a table."""
        if value is None:
            return ""
        if isinstance(value, bool):
            return self("yes" if value else "no")
        if isinstance(value, int):
            return f"{value:,}"
        if isinstance(value, float):
            return format_figure(value)
        if isinstance(value, dict):
            return cut(self.comma.join(f"{key} {self.value(item)}" for key, item in value.items()), VALUE_CHARACTERS)
        if isinstance(value, list | tuple):
            return cut(self.comma.join(self.value(item) for item in value), VALUE_CHARACTERS)
        return cut(str(value), VALUE_CHARACTERS)
