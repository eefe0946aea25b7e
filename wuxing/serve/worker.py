"""The one thread that owns the engine: requests in, tokens out to each asker's queue, continuously batched."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from wuxing.serve.error import ApiError

if TYPE_CHECKING:
    from wuxing.generate.engine import Engine, Event, Request

    Inbox = asyncio.Queue[tuple[int, Event | ApiError]]

RETRY_AFTER_SECONDS = 2


@dataclass(eq=False)
class Ticket:
    """One answer in the making.  `inbox` gets (index, event); the last has `finish` set, or is an ApiError."""

    index: int
    request: Request
    loop: asyncio.AbstractEventLoop
    inbox: Inbox


class Worker:
    """Runs an engine in a thread of its own; every method may be called from the event loop."""

    def __init__(self, build: Callable[[], Engine], rows: int, waiting: int):
        self._build, self._rows, self._waiting_limit = build, rows, waiting
        self._engine = build()
        self._waiting: deque[Ticket] = deque()
        self._running: dict[str, Ticket] = {}
        self._cancelled: list[str] = []
        self._wake = threading.Condition()
        self._stopping = False
        self.failures = 0
        """Engine steps that raised; each cost the answers running at that moment."""
        self._thread = threading.Thread(target=self._work, name="engine", daemon=True)

    def start(self) -> None:
        self._thread.start()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    @property
    def dtype(self) -> object:
        """In which the engine computes."""
        return self._engine.dtype

    @property
    def rows_in_use(self) -> int:
        return len(self._running)

    @property
    def queued(self) -> int:
        return len(self._waiting)

    def submit(self, requests: list[Request], inbox: Inbox) -> list[Ticket]:
        """Queue all of `requests` or none: ApiError 429 when they do not fit, 503 when the worker is stopping."""
        loop = asyncio.get_running_loop()
        tickets = [Ticket(index, request, loop, inbox) for index, request in enumerate(requests)]
        with self._wake:
            if self._stopping or not self.alive:
                raise ApiError(503, "stopping", "The server is stopping.", headers={"retry-after": "10"})
            free = max(0, self._rows - len(self._running))
            if len(self._waiting) + len(tickets) > self._waiting_limit + free:
                raise ApiError(
                    429,
                    "queue_full",
                    f"The server is busy: {len(self._waiting)} answers are waiting. Try again in a moment.",
                    headers={"retry-after": str(RETRY_AFTER_SECONDS)},
                )
            self._waiting.extend(tickets)
            self._wake.notify()
        return tickets

    def cancel(self, ticket: Ticket) -> None:
        """Give the row or the place in the queue back; nothing more comes out of the ticket."""
        with self._wake:
            if ticket in self._waiting:
                self._waiting.remove(ticket)
            elif self._running.get(ticket.request.id) is ticket:
                self._cancelled.append(ticket.request.id)
                self._wake.notify()

    def stop(self, seconds: float = 10.0) -> bool:
        """End the thread; answers still open get a 503.  Returns whether it ended in time."""
        with self._wake:
            self._stopping = True
            self._wake.notify()
        if self._thread.is_alive():
            self._thread.join(seconds)
        return not self._thread.is_alive()

    def _work(self) -> None:
        try:
            while self._admit():
                try:
                    events = self._engine.step()
                    self._engine.take_replies()  # every token has come as an event already
                except Exception as error:  # whatever a model can raise must cost these answers, not the server
                    self._recover(error)
                else:
                    self._deliver(events)
        finally:
            self._stopping = True
            self._end_all(ApiError(503, "stopping", "The server is stopping.", headers={"retry-after": "10"}))

    def _admit(self) -> bool:
        """Wait for work, cancel what was given up, fill free rows.  False when the thread must end."""
        with self._wake:
            while not (self._stopping or self._running or self._waiting):
                self._wake.wait()
            if self._stopping:
                return False
            for name in self._cancelled:
                if self._running.pop(name, None):
                    self._engine.cancel(name)
            self._cancelled.clear()
            refused = []
            while self._waiting and len(self._running) < self._rows:
                ticket = self._waiting.popleft()
                try:
                    self._engine.submit(ticket.request)
                except ValueError as error:
                    refused.append((ticket, ApiError(400, "invalid_value", str(error))))
                    continue
                self._running[ticket.request.id] = ticket
        for ticket, refusal in refused:
            _put(ticket, refusal)
        return True

    def _deliver(self, events: list[Event]) -> None:
        for event in events:
            ticket = self._running.get(event.id)
            if ticket is None:
                continue
            if event.finish is not None:
                with self._wake:
                    self._running.pop(event.id, None)
            _put(ticket, event)

    def _recover(self, error: Exception) -> None:
        logging.getLogger("wuxing.serve").error("engine failed", exc_info=error)
        self.failures += 1
        self._end_all(ApiError(500, "engine_failed", "The model failed on this answer; the failure is in the log."))
        try:
            self._engine = self._build()
        except Exception as again:  # as above: say where, never what a message may quote; health turns to failing
            logging.getLogger("wuxing.serve").error("engine cannot be built again", exc_info=again)
            self._stopping = True

    def _end_all(self, refusal: ApiError) -> None:
        with self._wake:
            tickets = [*self._running.values(), *(self._waiting if self._stopping else ())]
            self._running.clear()
            self._cancelled.clear()
            if self._stopping:
                self._waiting.clear()
        for ticket in tickets:
            _put(ticket, refusal)


def _put(ticket: Ticket, item: Event | ApiError) -> None:
    try:
        ticket.loop.call_soon_threadsafe(ticket.inbox.put_nowait, (ticket.index, item))
    except RuntimeError:  # the loop is closed: the server is gone, and so is whoever asked
        return
