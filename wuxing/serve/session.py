"""Sessions of the chat page: a one-time ticket or a key, exchanged for an HttpOnly, SameSite=Strict cookie.

Tickets and sessions live in memory only, as hashes, and end with the server.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field

HOURS = 12
TICKET_MINUTES = 60
MOST_SESSIONS = 10_000
PAGE = "page"
"""The name under which the holder of a ticket appears in exchanges and logs."""


@dataclass
class Sessions:
    """Who may use the page without typing a key."""

    clock: Callable[[], float] = time.monotonic
    _tickets: dict[str, float] = field(default_factory=dict)
    _sessions: dict[str, tuple[str, bool, float]] = field(default_factory=dict)

    def ticket(self) -> str:
        """A new ticket: it opens the page once, within an hour."""
        ticket = secrets.token_urlsafe(32)
        self._tickets[_hash(ticket)] = self.clock() + TICKET_MINUTES * 60
        return ticket

    def redeem(self, ticket: str) -> str | None:
        """The cookie for a ticket, which is used up; None for any other text."""
        until = self._tickets.pop(_hash(ticket), None)
        return self.open(PAGE, by_key=False) if until is not None and self.clock() < until else None

    def open(self, name: str, by_key: bool = True) -> str:
        """A cookie for somebody who has shown a key of this name."""
        now = self.clock()
        if len(self._sessions) >= MOST_SESSIONS:
            self._sessions = {cookie: entry for cookie, entry in self._sessions.items() if entry[2] > now}
        if len(self._sessions) >= MOST_SESSIONS:
            self._sessions.pop(next(iter(self._sessions)))
        cookie = secrets.token_urlsafe(32)
        self._sessions[_hash(cookie)] = (name, by_key, now + HOURS * 3600)
        return cookie

    def who(self, cookie: str) -> tuple[str, bool] | None:
        """(name, whether it came from a key) of a cookie that is still good."""
        entry = self._sessions.get(_hash(cookie))
        if entry is None or entry[2] < self.clock():
            return None
        return entry[0], entry[1]


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()
