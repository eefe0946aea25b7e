"""What decontamination left, found by plain sets of strings: it shares neither patterns nor hashes with the step.

Its words are never finer than the step's (a word is what stands between spaces, less its signs; a Han character or kana
stands alone), so whatever it finds the step had to find.
"""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from wuxing.core.record import Record
from wuxing.core.splits import read_records

if TYPE_CHECKING:
    from wuxing.corpus.clean.filter_config import DecontaminateConfig

MOST_ITEMS = 5000
MOST_CHARACTERS = 10_000_000
_SPACE = re.compile("[ \t\n\r\f\v\u00a0\u2000-\u200a\u2028\u2029\u3000]+")
_ALONE = ("CJK UNIFIED", "CJK COMPATIBILITY IDEOGRAPH", "HIRAGANA LETTER", "KATAKANA LETTER")


def left_over(
    settings: DecontaminateConfig, items: Iterable[tuple[str, str, list[str]]], total: int, directory: Path
) -> tuple[int, list[str]]:
    """How many items were looked for, and the names of those that a record of the train split still gives away.

    Of many items, and of much text, an even sample is taken.
    """
    index, step = _Index(settings), max(1, -(-total // MOST_ITEMS))
    for number, (name, id, pieces) in enumerate(items):
        if number % step == 0:
            index.add(f"{name}/{id}", pieces)
    size = sum(len(text) for record in read_records(directory, "train") for text in _texts(record))
    every = max(1, -(-size // MOST_CHARACTERS))
    found: dict[str, None] = {}
    for number, record in enumerate(read_records(directory, "train")):
        if number % every == 0:
            for text in _texts(record):
                found.update(dict.fromkeys(index.given_away(text)))
    return len(index.names), list(found)


@dataclass
class _Index:
    settings: DecontaminateConfig
    names: list[str] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    runs: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    short: dict[int, dict[str, int]] = field(default_factory=lambda: defaultdict(dict))
    lines: dict[str, int] = field(default_factory=dict)

    def add(self, name: str, pieces: list[str]) -> None:
        from wuxing.text.shingle import tokens_of

        number, runs = len(self.names), set()
        tokens = 0
        for piece in pieces:
            answer, text = piece.startswith("\x00"), piece.removeprefix("\x00")
            words, size = words_of(text), len(tokens_of(text))
            if size >= self.settings.ngram_words:
                tokens += size - self.settings.ngram_words + 1
                runs |= set(_runs(words, self.settings.ngram_words))
            elif answer or not words:
                continue
            elif size >= self.settings.short_words:
                self.short[len(words)][" ".join(words)] = number
            else:
                self.lines[_line(text)] = number
        self.names.append(name)
        self.sizes.append(max(1, tokens))
        for run in runs:
            self.runs[run].append(number)

    def given_away(self, text: str) -> Iterator[str]:
        words = words_of(text)
        met: dict[int, int] = defaultdict(int)
        for run in set(_runs(words, self.settings.ngram_words)):
            for number in self.runs.get(run, ()):
                met[number] += 1
        for number, count in met.items():
            if count / self.sizes[number] >= self.settings.min_share:
                yield self.names[number]
        for width, known in self.short.items():
            for run in _runs(words, width):
                if run in known:
                    yield self.names[known[run]]
        for line in (text, *text.split("\n")):
            if (plain := _line(line)) in self.lines:
                yield self.names[self.lines[plain]]


def words_of(text: str) -> list[str]:
    """What stands between spaces, without signs, ASCII lower-cased; Han characters and kana alone."""
    words: list[str] = []
    for chunk in _SPACE.split(text):
        word = ""
        for character in chunk:
            if character.isascii():
                word += character.lower() if character.isalnum() else ""
            elif unicodedata.name(character, "").startswith(_ALONE):
                words += [word, character]
                word = ""
            elif unicodedata.category(character)[0] in "LM":
                word += character
        words.append(word)
    return [word for word in words if any(c.isalnum() for c in word)]


def _runs(words: list[str], width: int) -> Iterator[str]:
    for start in range(len(words) - width + 1):
        yield " ".join(words[start : start + width])


def _line(text: str) -> str:
    return " ".join(text.lower().split())


def _texts(record: Record) -> Iterator[str]:
    if record.text is not None:
        yield record.text
    yield from (message["content"] for message in record.messages or ())
    yield from (reply for reply in (record.chosen, record.rejected) if reply is not None)
