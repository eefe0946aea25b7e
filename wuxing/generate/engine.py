"""The one engine that evaluates, makes rollouts and serves: continuous batching over a preallocated cache."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from wuxing.model.network import Network

Finish = Literal["stop", "length", "cancelled"]


@dataclass(frozen=True)
class Request:
    """One prompt to go on from."""

    id: str
    tokens: list[int]
    max_tokens: int
    temperature: float = 1.0
    """0 takes the likeliest token."""
    top_p: float = 1.0
    top_k: int = 0
    """0: all tokens."""
    seed: int = 0
    stop_tokens: tuple[int, ...] = ()


@dataclass(frozen=True)
class Reply:
    """A finished request.  `tokens` includes the stop token where one was drawn."""

    id: str
    tokens: list[int]
    logprobs: list[float]
    """Of each token under the model's own distribution: before temperature, top-k and top-p."""
    finish: Finish


@dataclass(frozen=True)
class Event:
    """One new token of one request; `finish` says that it was the last."""

    id: str
    token: int
    logprob: float
    finish: Finish | None


class Engine:
    """Generates for many requests at once with the network object given, whose weights may change between calls."""

    def __init__(self, network: Network, max_rows: int = 16, max_tokens: int | None = None, precision: str = "auto"):
        raise NotImplementedError

    def generate(self, requests: Iterable[Request], on_reply: Callable[[Reply], None] | None = None) -> Iterator[Reply]:
        """Replies in the order in which they finish."""
        raise NotImplementedError

    def submit(self, request: Request) -> None:
        """Queue a request.  Raises WuxingError when the prompt does not fit."""
        raise NotImplementedError

    def step(self) -> list[Event]:
        """Admit what fits, then compute one token for every running request."""
        raise NotImplementedError

    def cancel(self, id: str) -> None:
        """Stop a request: its row is free at once, and its reply ends as `cancelled`."""
        raise NotImplementedError

    @property
    def busy(self) -> bool:
        """Whether a request waits or runs."""
        raise NotImplementedError

    def score(self, pairs: list[tuple[list[int], list[int]]]) -> list[list[float]]:
        """Log-probability of each token of the second list, given the first and what came before it."""
        raise NotImplementedError
