"""What sets two texts apart, in pieces that a page marks."""

from __future__ import annotations

import difflib

from wuxing.page.block import Piece


def differences(before: str, after: str) -> tuple[list[Piece], list[Piece]]:
    """Both texts in pieces: what they share, what only the first has, what only the second has."""
    left: list[Piece] = []
    right: list[Piece] = []
    matcher = difflib.SequenceMatcher(None, before, after, autojunk=False)
    for kind, a, b, c, d in matcher.get_opcodes():
        if kind == "equal":
            left.append(("same", before[a:b]))
            right.append(("same", after[c:d]))
            continue
        if b > a:
            left.append(("removed", before[a:b]))
        if d > c:
            right.append(("added", after[c:d]))
    return left, right
