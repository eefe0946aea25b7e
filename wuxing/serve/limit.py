"""What one server lets a client take: sizes, lengths, time and requests per minute."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Limits:
    """All limits of a server."""

    rows: int = 16
    """Answers that the engine works on at once."""
    waiting: int = 64
    """Answers that may wait for a row; the next one is refused with 429 and Retry-After."""
    body_bytes: int = 1 << 20
    max_tokens: int = 2048
    """Longest answer; the context of the model may allow less."""
    choices: int = 8
    """Largest `n`, times the prompts of one completion request."""
    requests_per_minute: int = 600
    """Per key, as a bucket that refills evenly; 0 means no limit."""
    body_seconds: float = 20.0
    """Time for a client to send its headers, and again its body."""
    send_seconds: float = 30.0
    """Time for a client to take one piece of its answer; one that stops reading loses its row."""
    drain_seconds: float = 60.0
    """Time for running answers to end after a stop was asked for."""


@dataclass
class Rate:
    """A token bucket per key.  `take` returns the seconds to wait, 0 when the request may go on."""

    per_minute: int
    clock: Callable[[], float] = time.monotonic
    _buckets: dict[str, tuple[float, float]] = field(default_factory=dict)

    def take(self, key: str) -> float:
        if self.per_minute <= 0:
            return 0.0
        now = self.clock()
        left, seen = self._buckets.get(key, (float(self.per_minute), now))
        left = min(float(self.per_minute), left + (now - seen) * self.per_minute / 60)
        if left < 1:
            self._buckets[key] = (left, now)
            return (1 - left) * 60 / self.per_minute
        self._buckets[key] = (left - 1, now)
        return 0.0
