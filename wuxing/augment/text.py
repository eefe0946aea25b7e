"""Operations on text: each is a pure function of the text, its settings and a source of random numbers."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from random import Random
from typing import Any

from wuxing.augment.config import Deletion, Mask, Paraphrase, Swap, Template, TextOperation, Typos
from wuxing.text.shingle import TOKEN

Numbers = dict[str, Any]
Ask = Callable[[Paraphrase, str, int], str]
"""A model that answers: settings, the prompt, a seed → its reply."""

ROWS = ("1234567890", "qwertyuiop", "asdfghjkl", "zxcvbnm")
OFFSETS = (0.0, 0.5, 0.75, 1.25)
"""How far each row of keys stands to the right, in keys (ANSI keyboard)."""
REACH = 1.2
"""Keys whose middles are nearer than this are neighbours."""


def change(text: str, operation: TextOperation, random: Random, ask: Ask | None) -> tuple[str, Numbers]:
    """The changed text, and what was done; the text itself when chance left it alone."""
    match operation:
        case Typos():
            return typos(text, operation, random)
        case Deletion():
            return deletion(text, operation, random)
        case Swap():
            return swap(text, operation, random)
        case Mask():
            return mask(text, operation, random)
        case Template():
            number = random.randrange(len(operation.templates))
            return operation.templates[number].replace("{text}", text), {"template": number}
        case Paraphrase():
            return paraphrase(text, operation, random, ask)
    raise AssertionError(f"no text operation {operation}")


@cache
def neighbours() -> dict[str, str]:
    """Key → the letters and digits on the keys around it."""
    places = {key: (row, column + OFFSETS[row]) for row, keys in enumerate(ROWS) for column, key in enumerate(keys)}
    return {
        key: "".join(
            other
            for other, (r, x) in places.items()
            if other != key and (r - row) ** 2 + (x - column) ** 2 < REACH**2 and other.isalpha() == key.isalpha()
        )
        for key, (row, column) in places.items()
    }


def typos(text: str, operation: Typos, random: Random) -> tuple[str, Numbers]:
    """Each letter or digit is hit by chance; a slip that would need a letter after it takes another form."""
    near, made, count = neighbours(), [], 0
    place = 0
    while place < len(text):
        key = text[place]
        place += 1
        around = near.get(key.lower())
        if not around or random.random() >= operation.rate:
            made.append(key)
            continue
        count += 1
        wrong = random.choice(around)
        wrong = wrong.upper() if key.isupper() else wrong
        kind = random.choice(("near", "more", "less", "swap"))
        after = text[place] if place < len(text) else ""
        if kind == "swap" and after.lower() in near and after != key:
            made += [after, key]
            place += 1
        elif kind == "more":
            made += [key, wrong]
        elif kind == "less":
            pass
        else:
            made.append(wrong)
    return "".join(made), {"slips": count}


def parts_of(text: str) -> tuple[list[str], list[str]]:
    """Words, and the gaps before, between and after them: one gap more than words."""
    words, gaps, end = [], [], 0
    for match in TOKEN.finditer(text):
        gaps.append(text[end : match.start()])
        words.append(match.group())
        end = match.end()
    return words, [*gaps, text[end:]]


def _joined(words: list[str], gaps: list[str]) -> str:
    return "".join(gap + word for gap, word in zip(gaps, [*words, ""], strict=True))


def deletion(text: str, operation: Deletion, random: Random) -> tuple[str, Numbers]:
    """Words go by chance, with one of the spaces around them; at least one stays."""
    words, gaps = parts_of(text)
    gone = [random.random() < operation.rate for _ in words]
    if words and all(gone):
        gone[random.randrange(len(words))] = False
    kept, between = [], [gaps[0]]
    for word, out, gap in zip(words, gone, gaps[1:], strict=True):
        if not out:
            kept.append(word)
            between.append(gap)
        elif (between[-1][-1:].isspace() or not kept) and gap[:1].isspace():
            between[-1] += gap[1:]
        else:
            between[-1] += gap
    return _joined(kept, between), {"deleted": sum(gone)}


def swap(text: str, operation: Swap, random: Random) -> tuple[str, Numbers]:
    """Neighbouring words change places by chance, each word at most once, never across punctuation or a line's end."""
    words, gaps = parts_of(text)
    place = count = 0
    while place + 1 < len(words):
        near = not gaps[place + 1].strip(" ")
        if random.random() < operation.rate and near and words[place] != words[place + 1]:
            words[place], words[place + 1] = words[place + 1], words[place]
            count += 1
            place += 1
        place += 1
    return _joined(words, gaps), {"swapped": count}


def mask(text: str, operation: Mask, random: Random) -> tuple[str, Numbers]:
    """Words are hidden by chance."""
    words, gaps = parts_of(text)
    hidden = [random.random() < operation.rate for _ in words]
    shown = [operation.sign if hide else word for word, hide in zip(words, hidden, strict=True)]
    return _joined(shown, gaps), {"masked": sum(hidden)}


def paraphrase(text: str, operation: Paraphrase, random: Random, ask: Ask | None) -> tuple[str, Numbers]:
    """The last reply of the chain of prompts; the text itself where a reply is refused."""
    assert ask is not None, "a paraphrase needs a model to ask"
    seed = random.getrandbits(31)
    said = text
    for prompt in operation.prompts:
        said = ask(operation, prompt.replace("{text}", said), seed).strip()
        if not said:
            return text, {"refused": "empty", "seed": seed}
    ratio = len(said) / max(1, len(text.strip()))
    if ratio < operation.min_length_ratio:
        return text, {"refused": "too_short", "seed": seed}
    if operation.min_length_ratio and ratio > 1 / operation.min_length_ratio:
        return text, {"refused": "too_long", "seed": seed}
    return said, {"model": operation.model, "seed": seed}
