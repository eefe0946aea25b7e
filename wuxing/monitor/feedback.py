"""Which answers people judged: the look before `feedback` makes a corpus of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Judged:
    exchanges: int
    up: int
    down: int
    comments: int
    unknown: int
    """Judgements whose exchange is in no file."""


def judged(home: Path, release_name: str) -> Judged:
    """Count; raises WuxingError "no judged exchanges yet" when nobody gave a thumb."""
    raise NotImplementedError
