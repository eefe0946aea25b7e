"""Text as words and terms, in scripts with and without spaces."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import cache

from wuxing.core.error import WuxingError
from wuxing.feature.config import CountSettings, WordSettings
from wuxing.text.shingle import ALONE_CHARACTER, TOKEN

_SPACES = re.compile(r"\s+")
_HAN = re.compile("[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af]")

Word = tuple[str, int, int]
"""A word, where it starts, and where it ends."""


def words_of(text: str, settings: WordSettings) -> list[str]:
    """The words of a text, in order."""
    text = text.lower() if settings.lowercase else text
    if settings.words == "characters":
        return list(_SPACES.sub(" ", text).strip())
    if settings.words == "rjieba":
        return [word for run in _runs(text) for word in run]
    return TOKEN.findall(text)


def terms_of(text: str, settings: CountSettings) -> list[str]:
    """The features of a text: its words, and runs of up to `ngrams` of them.

    Runs are joined by a space, in scripts without spaces by nothing; there, only touching words make a run.
    """
    if settings.words == "characters":
        return _grams_of_characters(words_of(text, settings), settings.ngrams)
    lowered = text.lower() if settings.lowercase else text
    if not ALONE_CHARACTER.search(lowered):
        return _grams_of_words(TOKEN.findall(lowered), settings.ngrams)
    if settings.words == "rjieba":
        return _grams_of_runs(_runs(lowered), settings.ngrams)
    return _grams_of_runs(_runs_of_characters(lowered), max(2, settings.ngrams), settings.ngrams)


def _grams_of_words(words: Sequence[str], longest: int) -> list[str]:
    terms = list(words)
    for width in range(2, longest + 1):
        terms += [" ".join(words[i : i + width]) for i in range(len(words) - width + 1)]
    return terms


def _grams_of_characters(characters: Sequence[str], longest: int) -> list[str]:
    text = "".join(characters)
    return [text[i : i + width] for width in range(1, longest + 1) for i in range(len(text) - width + 1)]


def _grams_of_runs(runs: list[list[str]], longest: int, spaced: int | None = None) -> list[str]:
    """Runs of one word are words with spaces around; longer ones touch.  `spaced`: the longest run of the former."""
    terms: list[str] = []
    words: list[str] = []
    for run in [*runs, ["", ""]]:
        if len(run) == 1 and not ALONE_CHARACTER.match(run[0]):
            words.append(run[0])
            continue
        terms += _grams_of_words(words, spaced if spaced is not None else longest)
        words = []
        if run != ["", ""]:
            terms += run
            for width in range(2, longest + 1):
                terms += ["".join(run[i : i + width]) for i in range(len(run) - width + 1)]
    return terms


def _runs_of_characters(text: str) -> list[list[str]]:
    """Words with spaces around as runs of one, touching characters of scripts without spaces as one run."""
    runs: list[list[str]] = []
    end = -1
    for match in TOKEN.finditer(text):
        token = match.group()
        alone = ALONE_CHARACTER.match(token) is not None
        if alone and match.start() == end:
            runs[-1].append(token)
        else:
            runs.append([token])
        end = match.end() if alone else -1
    return runs


def _runs(text: str) -> list[list[str]]:
    """As `_runs_of_characters`, with runs of Chinese cut into words by the dictionary."""
    cut = _cutter()
    found = []
    for run in _runs_of_characters(text):
        joined = "".join(run)
        found.append([word for word in cut(joined) if word] if _HAN.match(joined) else run)
    return found


@cache
def _cutter() -> Callable[[str], list[str]]:
    try:
        import rjieba
    except ImportError as error:
        raise WuxingError("words: rjieba needs the library rjieba", "pip install 'wuxing[chinese]'") from error
    cut: Callable[[str], list[str]] = rjieba.cut
    return cut
