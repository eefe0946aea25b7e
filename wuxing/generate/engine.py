"""The one engine that evaluates, makes rollouts and serves: continuous batching over a preallocated cache.

Not for several threads at once, with one exception: `submit` and `cancel` may be called while another thread is
inside `step`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from wuxing.compute.device import pick_precision
from wuxing.core.error import UsageError, WuxingError, nearest
from wuxing.generate.cache import Cache
from wuxing.generate.packed import Packed
from wuxing.generate.sample import Sampling, sample
from wuxing.generate.score import score_pairs

if TYPE_CHECKING:
    from wuxing.model.network import Network

Finish = Literal["stop", "length", "cancelled"]
PREFILL_TOKENS = 4096
"""Prompt tokens, padding included, that one step computes at most, so that running requests do not stall for long."""
_PRECISIONS = {"bf16": torch.bfloat16, "fp32": torch.float32}


@dataclass(frozen=True)
class Request:
    """One prompt to go on from."""

    id: str
    tokens: list[int]
    max_tokens: int
    """New tokens at most; fewer where the row of the cache is full before."""
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
    """One new token of one request; `finish` says that it was the last.  A cancelled request gets no more events."""

    id: str
    token: int
    logprob: float
    finish: Finish | None


@dataclass
class _Running:
    """A request that holds a row."""

    request: Request
    sampling: Sampling
    limit: int
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)

    @property
    def stored(self) -> int:
        """Tokens in the cache: the newest token is not there yet."""
        return len(self.request.tokens) + len(self.tokens) - 1

    def reply(self, finish: Finish) -> Reply:
        return Reply(self.request.id, self.tokens, self.logprobs, finish)


class Engine:
    """Generates for many requests at once with the network object given, whose weights may change between calls.

    It computes with a packed copy of the weights, made anew each time it starts from idle, so a changed weight is
    never missed; `frozen=True` promises that the weights stay as they are and saves that work.
    """

    def __init__(
        self,
        network: Network,
        max_rows: int = 16,
        max_tokens: int | None = None,
        precision: str = "auto",
        frozen: bool = False,
    ):
        """`max_rows` requests run at once, each of at most `max_tokens` tokens with its prompt (the network's
        positions unless given).  `precision`: `bf16` (log-probs to about 0.03), `fp32` (to 1e-5), or `auto`: bf16
        where the device has it natively."""
        if not network.causal:
            raise UsageError("an encoder sees both ways and writes no text", "Name a model of objective next_token")
        if precision != "auto" and precision not in _PRECISIONS:
            raise UsageError(f'precision "{precision}" is unknown', nearest(precision, [*_PRECISIONS, "auto"]))
        if max_tokens and max_tokens > network.max_positions:
            raise UsageError(
                f"max_tokens {max_tokens} is more than the {network.max_positions} positions of the model",
                "Ask for fewer",
            )
        self.network, self.max_rows, self.frozen = network, max_rows, frozen
        self.max_tokens = max_tokens or network.max_positions
        self.dtype = pick_precision(network.device) if precision == "auto" else _PRECISIONS[precision]
        self._packed: Packed | None = None
        self._cache: Cache | None = None
        self._waiting: deque[Request] = deque()
        self._running: list[_Running] = []
        self._cancelled: deque[str] = deque()
        self._replies: list[Reply] = []

    @property
    def busy(self) -> bool:
        """Whether a request waits or runs."""
        return bool(self._waiting or self._running)

    @property
    def waiting(self) -> int:
        """Requests that have no row yet."""
        return len(self._waiting)

    @property
    def running(self) -> int:
        """Requests that hold a row."""
        return len(self._running)

    def generate(self, requests: Iterable[Request], on_reply: Callable[[Reply], None] | None = None) -> Iterator[Reply]:
        """Replies in the order in which they finish; requests are drawn from the iterable as rows become free."""
        assert not self.busy, "generate() needs an idle engine"
        source, more = iter(requests), True
        try:
            while more or self.busy:
                while more and len(self._waiting) < self.max_rows:
                    request = next(source, None)
                    more = request is not None
                    if request is not None:
                        self.submit(request)
                self.step()
                for reply in self.take_replies():
                    if on_reply is not None:
                        on_reply(reply)
                    yield reply
        finally:  # also when the caller stops listening: nothing is left behind in the rows
            self._waiting.clear()
            self._running.clear()
            self._replies.clear()

    @contextmanager
    def holding(self) -> Iterator[None]:
        """Within: it computes with the weights of now, which are then given up.

        Where the network is cut over processes all of them enter together.  Inside each generates by itself, as many
        replies of whatever length it has to: one that gathered blocks as it went would wait for the others' next token.
        """
        before, self._packed = self.frozen, None  # never two copies at once
        self._packed, self.frozen = Packed(self.network, self.dtype), True
        try:
            yield
        finally:
            self._packed, self.frozen = None, before

    def release(self) -> None:
        """Give back the cache and the copy of the weights, until the next request."""
        assert not self.busy, "release() needs an idle engine"
        self._packed = self._cache = None

    def take_replies(self) -> list[Reply]:
        """The replies that have ended since the last call; who calls `step` must take them, or they pile up."""
        done, self._replies = self._replies, []
        return done

    def submit(self, request: Request) -> None:
        """Queue a request.  Raises WuxingError when it cannot be answered."""
        prompt, size = len(request.tokens), self.network.vocab_size
        if not prompt:
            raise WuxingError(f"request {request.id} has an empty prompt", "Give at least one token")
        if prompt >= self.max_tokens:
            raise WuxingError(
                f"the prompt has {prompt} tokens and the model takes {self.max_tokens} with its answer",
                "Shorten the prompt",
            )
        if min(request.tokens) < 0 or max(request.tokens) >= size:
            raise WuxingError(f"request {request.id} has token ids outside the vocabulary of {size}")
        if request.max_tokens < 1:
            raise WuxingError(f"max_tokens is {request.max_tokens}", "Ask for at least one token")
        if not (request.temperature >= 0 and 0 < request.top_p <= 1 and request.top_k >= 0):
            raise WuxingError(
                f"temperature {request.temperature}, top_p {request.top_p}, top_k {request.top_k} is no way to sample",
                "Give temperature >= 0, 0 < top_p <= 1, top_k >= 0",
            )
        self._waiting.append(request)

    def cancel(self, id: str) -> None:
        """Stop a request: from the next step on its row is free, and `generate` yields its reply as `cancelled`."""
        self._cancelled.append(id)

    @torch.inference_mode()
    def step(self) -> list[Event]:
        """One token for every running request, then the first token of those that are admitted to free rows."""
        self._drop_cancelled()
        if not self.busy:
            return []
        if not self._running and not (self.frozen and self._packed):
            self._packed = None  # or there would be two of them for a moment
            self._packed = Packed(self.network, self.dtype)
        events = self._decode() if self._running else []
        if self._waiting and len(self._running) < self.max_rows:
            events += self._admit()
        return events

    def score(self, pairs: list[tuple[list[int], list[int]]]) -> list[list[float]]:
        """Log-probability (natural) of each token of the second list, given the first and what came before it.

        Pairs with the same first list share its computation.  Raises WuxingError for an empty first list and for a
        pair that is longer than the model's positions.
        """
        with torch.inference_mode():
            packed = self._packed if self._packed and (self.frozen or self.busy) else Packed(self.network, self.dtype)
            self._packed = packed
            return score_pairs(packed, pairs, self.network.max_positions)

    def _decode(self) -> list[Event]:
        assert self._packed is not None and self._cache is not None
        running = list(self._running)
        attend = self._cache.decode([r.stored for r in running])
        tokens_B = torch.tensor([r.tokens[-1] for r in running], device=self._cache.device)
        hidden_BD = self._packed.forward(tokens_B, attend.positions_B, attend)
        return self._take(running, self._packed.logits(hidden_BD))

    def _admit(self) -> list[Event]:
        """Fill free rows from the queue; equal prompts that are admitted together are computed once."""
        free = self.max_rows - len(self._running)
        new: list[_Running] = []
        prompts: dict[tuple[int, ...], int] = {}
        longest = 0
        while self._waiting and len(new) < free:
            request = self._waiting[0]
            longest = max(longest, len(request.tokens))
            if new and longest * (len(prompts) + 1) > PREFILL_TOKENS:
                break
            self._waiting.popleft()
            prompts.setdefault(tuple(request.tokens), len(prompts))
            sampling = Sampling(request.temperature, request.top_p, request.top_k, request.seed)
            limit = min(request.max_tokens, self.max_tokens - len(request.tokens))
            new.append(_Running(request, sampling, limit))
        new.sort(key=lambda r: prompts[tuple(r.request.tokens)])
        logits_UV = self._prefill([list(p) for p in prompts])
        sources = [prompts[tuple(r.request.tokens)] for r in new]
        first = len(self._running)
        assert self._cache is not None
        for place in reversed(range(len(new))):
            if sources[place] != place:
                self._cache.copy_row(first + sources[place], first + place, len(new[place].request.tokens))
        self._running += new
        return self._take(new, logits_UV[sources])

    def _prefill(self, prompts: list[list[int]]) -> Tensor:
        """Logits behind each prompt; keys and values go to the rows behind those that run."""
        assert self._packed is not None
        if self._cache is None:
            device = self.network.device
            dtype = torch.float32 if device.type == "cpu" else self.dtype
            self._cache = Cache(self.network.config, self.max_rows, self.max_tokens, device, dtype)
        device, width = self._cache.device, max(len(prompt) for prompt in prompts)
        tokens_BT = torch.tensor([prompt + [0] * (width - len(prompt)) for prompt in prompts], device=device)
        positions_N = torch.arange(width, device=device).repeat(len(prompts))
        attend = self._cache.prefill(len(self._running), len(prompts), width)
        hidden_ND = self._packed.forward(tokens_BT.flatten(), positions_N, attend)
        ends = [row * width + len(prompt) - 1 for row, prompt in enumerate(prompts)]
        return self._packed.logits(hidden_ND[ends])

    def _take(self, rows: list[_Running], logits_BV: Tensor) -> list[Event]:
        """Draw a token for each row, and free the rows of those that are done."""
        tokens_B, logprobs_B = sample(logits_BV, [r.sampling for r in rows], [len(r.tokens) for r in rows])
        events = []
        for running, token, logprob in zip(rows, tokens_B.tolist(), logprobs_B.tolist(), strict=True):
            running.tokens.append(token)
            running.logprobs.append(logprob)
            finish: Finish | None = None
            if token in running.request.stop_tokens:
                finish = "stop"
            elif len(running.tokens) >= running.limit:
                finish = "length"
            events.append(Event(running.request.id, token, logprob, finish))
            if finish:
                self._free(running, finish)
        return events

    def _free(self, running: _Running, finish: Finish) -> None:
        """The last row moves into the freed one, so that rows in use are always the first."""
        assert self._cache is not None
        row, last = next(i for i, r in enumerate(self._running) if r is running), len(self._running) - 1
        if row != last:
            mover = self._running[last]
            self._cache.copy_row(last, row, mover.stored + 1)  # one more where this step has not reached it yet
            self._running[row] = mover
        self._running.pop()
        self._replies.append(running.reply(finish))

    def _drop_cancelled(self) -> None:
        while self._cancelled:
            id = self._cancelled.popleft()
            for request in [r for r in self._waiting if r.id == id]:
                self._waiting.remove(request)
                self._replies.append(Reply(id, [], [], "cancelled"))
            for running in [r for r in self._running if r.request.id == id]:
                self._free(running, "cancelled")
