"""From tokens to text that may be sent: whole characters only, and nothing of a stop text."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from wuxing.serve.error import ApiError
from wuxing.text.tokenizer import IncrementalDecoder

if TYPE_CHECKING:
    from wuxing.generate.engine import Event
    from wuxing.text.tokenizer import Tokenizer


class StopText:
    """Passes text on until one of `stops` appears, holding back what might still become one.

    The stop that is complete first wins (of two that end together, the longer), so the result does not depend on how
    the text was cut into pieces.
    """

    def __init__(self, stops: list[str]):
        self._stops, self._held = stops, ""
        self.found = False

    def push(self, text: str) -> str:
        """The text that is now certain to come before any stop."""
        if self.found or not self._stops:
            return "" if self.found else text
        self._held += text
        places = [(place + len(stop), place) for stop in self._stops if (place := self._held.find(stop)) >= 0]
        if places:
            self.found, ready, self._held = True, self._held[: min(places)[1]], ""
            return ready
        keep = max(_overlap(self._held, stop) for stop in self._stops)
        ready, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
        return ready

    def flush(self) -> str:
        """What was held back when the answer ended without a stop."""
        rest, self._held = ("" if self.found else self._held), ""
        return rest


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that begins `stop`."""
    for length in range(min(len(text), len(stop) - 1), 0, -1):
        if stop.startswith(text[-length:]):
            return length
    return 0


@dataclass(frozen=True)
class Piece:
    """What one token adds to an answer."""

    text: str
    tokens: list[dict[str, Any]]
    """Log-probability entries of the tokens; a stop token has none."""
    finish: str | None


@dataclass
class Answer:
    """One choice while it grows."""

    tokenizer: Tokenizer
    stops: list[str]
    stop_tokens: tuple[int, ...]
    text: str = ""
    finish: str = ""
    logprobs: list[float] = field(default_factory=list)
    """One for every sampled token, the stop token included."""

    def __post_init__(self) -> None:
        self._decoder = IncrementalDecoder(self.tokenizer)
        self._stop = StopText(self.stops)

    def push(self, event: Event) -> Piece:
        """Take one token.  When the piece has `finish`, the answer is whole."""
        if not math.isfinite(event.logprob):
            raise ApiError(500, "model_broken", "The model's output is not finite.")
        self.logprobs.append(event.logprob)
        is_stop = event.token in self.stop_tokens
        text = "" if is_stop else self._stop.push(self._decoder.push(event.token))
        finish: str | None = event.finish
        if self._stop.found:
            finish = "stop"
        elif finish is not None:
            text += self._stop.push(self._decoder.flush())
            text += self._stop.flush()
            finish = "stop" if self._stop.found else finish
        self.text += text
        self.finish = finish or ""
        return Piece(text, [] if is_stop else [self._entry(event)], finish)

    def _entry(self, event: Event) -> dict[str, Any]:
        raw = self.tokenizer.token_bytes[event.token]
        text = raw.decode("utf-8", errors="replace")
        return {"token": text, "logprob": event.logprob, "bytes": list(raw), "top_logprobs": []}
