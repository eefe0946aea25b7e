"""Which answers people judged: the look before `feedback` makes a corpus of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from wuxing.core.error import WuxingError
from wuxing.core.exchange import ExchangeLog


@dataclass(frozen=True)
class Judged:
    """How many answers there are, and what people thought of them (the newest thumb of each counts)."""

    exchanges: int
    up: int
    down: int
    comments: int
    unknown: int
    """Judgements whose exchange is in no file."""


def judged(home: Path, release_name: str) -> Judged:
    """Count the judgements of a release name.  Raises WuxingError when nothing was answered, or nobody gave a thumb."""
    log = ExchangeLog(home, release_name)
    known = {exchange.id for exchange in log.exchanges()}
    if not known:
        raise WuxingError(
            f"no answers of {release_name} have been kept yet",
            f"Serve it first: wuxing serve {release_name}@production",
        )
    judgements = log.judgements()
    of_known = [judgement for judgement in judgements.values() if judgement.exchange in known]
    if not of_known:
        raise WuxingError(
            f"no judged exchanges yet: {len(known)} answers of {release_name}, none with a thumb",
            "Give thumbs on the chat page, or by POST /v1/feedback",
        )
    return Judged(
        len(known),
        sum(judgement.thumb == "up" for judgement in of_known),
        sum(judgement.thumb == "down" for judgement in of_known),
        sum(bool(judgement.comment) for judgement in of_known),
        len(judgements) - len(of_known),
    )
