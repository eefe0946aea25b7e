"""Records, and the one fate that each of them meets."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from wuxing.core.evidence import Evidence


@dataclass(frozen=True)
class Record:
    """One item of raw or clean data: exactly one of `text`, `messages`, `image`, `audio`.

    `id` is stable: source name, place inside it; never a running number of a run.
    """

    id: str
    source: str
    text: str | None = None
    messages: list[dict[str, str]] | None = None
    """A dialogue: [{"role": "user"|"assistant"|"system"|"tool", "content": ...}]."""
    image: bytes | None = None
    """An encoded picture (PNG, JPEG, ...)."""
    audio: bytes | None = None
    """An encoded sound (WAV, FLAC, ...)."""
    label: str | None = None
    """The class of the record, where it has one."""
    chosen: str | None = None
    """With `messages` that end with the user's turn: the better reply."""
    rejected: str | None = None
    """The worse reply; it stands with `chosen`."""
    liked: bool | None = None
    """With a whole dialogue: whether its last reply was liked."""
    meta: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Drop:
    """A cleaner's answer for a record that does not go on: the reason names what is wrong (`too_few_stop_words`)."""

    reason: str
    detail: str = ""


@dataclass
class Fates:
    """How many raw records came in, and how many ended in each state.  The counts must sum to the total."""

    total: int = 0
    counts: Counter[str] = field(default_factory=Counter)

    def count(self, fate: str, records: int = 1) -> None:
        """Count records that ended as `fate`: `kept`, `duplicate`, `filtered:<reason>` or `unreadable:<reason>`."""
        self.counts[fate] += records

    def judge(self, evidence: Evidence) -> bool:
        """Record `fates_sum`: every raw record has exactly one fate."""
        known = sum(self.counts.values())
        return evidence.judge("fates_sum", known == self.total, known, self.total, "records with a fate, of all read")

    def to_json(self) -> dict[str, Any]:
        """`{"total": n, "counts": {fate: n}}`, largest first."""
        return {"total": self.total, "counts": dict(self.counts.most_common())}
