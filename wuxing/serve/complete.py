"""Completions: a checked request becomes engine requests, their tokens an answer, the answer an exchange."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Any

from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from wuxing.core.exchange import Exchange, now
from wuxing.serve.answer import Answer, Piece
from wuxing.serve.error import ApiError
from wuxing.serve.log import log
from wuxing.serve.request import ChatRequest, CompletionRequest
from wuxing.serve.service import Service
from wuxing.serve.shape import Shape

if TYPE_CHECKING:
    from wuxing.generate.engine import Event
    from wuxing.serve.worker import Inbox, Ticket

COMPLETION_TOKENS = 16
"""OpenAI's default `max_tokens` of `/v1/completions`; a chat may go on to the limit."""
GONE = 499
"""The status, in logs and metrics only, of a request whose client left."""


@dataclass
class Job:
    """One HTTP request for one or more answers."""

    service: Service
    asked: ChatRequest | CompletionRequest
    key: str
    prompts: list[list[int]]
    messages: list[list[dict[str, str]]]
    """Per prompt, as the exchange keeps it."""
    max_tokens: list[int]
    """Per prompt."""
    id: str = ""
    seed: int = 0
    arrived: float = field(default_factory=time.monotonic)
    answers: list[Answer] = field(default_factory=list)
    first_token: list[float | None] = field(default_factory=list)

    def __post_init__(self) -> None:
        chat = isinstance(self.asked, ChatRequest)
        self.id = f"{'chatcmpl' if chat else 'cmpl'}-{secrets.token_hex(16)}"
        self.seed = self.asked.seed if self.asked.seed is not None else secrets.randbits(48)
        service = self.service
        logprobs = self.asked.logprobs if isinstance(self.asked, ChatRequest) else self.asked.logprobs is not None
        self.shape = Shape(
            self.id, int(time.time()), service.release.name, service.release.content[:16], chat, logprobs
        )
        count = len(self.prompts) * self.asked.n
        self.answers = [Answer(service.tokenizer, self.asked.stop, service.stop_tokens) for _ in range(count)]
        self.first_token = [None] * count

    @property
    def prompt_tokens(self) -> int:
        return sum(len(prompt) for prompt in self.prompts)

    def exchange_id(self, index: int) -> str:
        """The response's id for the first answer, `<id>-<index>` for the others."""
        return self.id if index == 0 else f"{self.id}-{index}"

    def seed_of(self, index: int) -> int:
        """The request's seed for the first answer; derived from it and the index for the others."""
        return self.seed if index == 0 else Random(f"{self.seed}/{index}").getrandbits(48)

    async def run(self, receive: Receive) -> AsyncIterator[tuple[int, Piece]]:
        """The pieces of all answers as they come.  Raises ApiError when it must; 499 when the client leaves."""
        inbox: Inbox = asyncio.Queue()
        tickets = self.service.worker.submit(self._requests(), inbox)
        watcher = asyncio.create_task(_watch(receive, inbox))
        open_answers = set(range(len(tickets)))
        try:
            while open_answers:
                index, event = await inbox.get()
                if isinstance(event, ApiError):
                    raise event
                if index in open_answers:
                    piece = self._push(index, event)
                    if piece.finish is not None:
                        open_answers.discard(index)
                        self._end(index, tickets[index], cancel=event.finish is None)
                    yield index, piece
        finally:
            watcher.cancel()
            for index in sorted(open_answers):
                self.answers[index].finish = "cancelled"
                self._end(index, tickets[index], cancel=True)

    def _requests(self) -> list[Any]:
        from wuxing.generate.engine import Request

        asked, n = self.asked, self.asked.n
        return [
            Request(
                id=self.exchange_id(index),
                tokens=self.prompts[index // n],
                max_tokens=self.max_tokens[index // n],
                temperature=asked.temperature if asked.top_p > 0 else 0.0,
                top_p=asked.top_p if asked.top_p > 0 else 1.0,
                seed=self.seed_of(index),
                stop_tokens=self.service.stop_tokens,
            )
            for index in range(len(self.answers))
        ]

    def _push(self, index: int, event: Event) -> Piece:
        if self.first_token[index] is None:
            self.first_token[index] = time.monotonic() - self.arrived
            self.service.metrics.first_token.observe(self.first_token[index] or 0.0)
        return self.answers[index].push(event)

    def _end(self, index: int, ticket: Ticket, cancel: bool) -> None:
        if cancel:
            self.service.worker.cancel(ticket)
        answer, metrics = self.answers[index], self.service.metrics
        metrics.finishes.labels(answer.finish).inc()
        metrics.tokens.labels("in").inc(len(self.prompts[index // self.asked.n]))
        metrics.tokens.labels("out").inc(len(answer.logprobs))
        first, seconds = self.first_token[index], time.monotonic() - self.arrived
        if first is None:
            return
        if seconds > first:
            metrics.speed.observe((len(answer.logprobs) - 1) / (seconds - first))
        write_exchange(self.service, self._exchange(index, first, seconds))

    def _exchange(self, index: int, first: float, seconds: float) -> Exchange:
        asked, answer, service, prompt = self.asked, self.answers[index], self.service, index // self.asked.n
        settings = {
            "temperature": asked.temperature,
            "top_p": asked.top_p,
            "max_tokens": self.max_tokens[prompt],
            "stop": asked.stop,
            "seed": self.seed_of(index),
        }
        signals = {
            "prompt_tokens": float(len(self.prompts[prompt])),
            "reply_tokens": float(len(answer.logprobs)),
            "mean_logprob": sum(answer.logprobs) / len(answer.logprobs),
            "seconds_to_first_token": round(first, 6),
            "seconds": round(seconds, 6),
        }
        return Exchange(
            self.exchange_id(index),
            now(),
            service.release.id,
            service.release.content,
            service.tokenizer.template_digest,
            self.messages[prompt],
            answer.text,
            answer.finish,
            settings,
            signals,
            self.key,
        )


def write_exchange(service: Service, exchange: Exchange) -> None:
    """Append to the exchange log.  A full disk must not cost the answer: it is counted, logged and shown by health."""
    try:
        service.log.write(exchange)
    except OSError as error:
        service.metrics.lost.inc()
        service.exchange_failure = f"exchanges cannot be written: {error.strerror}"
        log("exchange lost", error=error.strerror)
    else:
        service.metrics.exchanges.inc()
        service.exchange_failure = ""


async def prepare(service: Service, asked: ChatRequest | CompletionRequest, key: str) -> Job:
    """Tokenise and check the lengths; ApiError 400 or 404 for what cannot be answered."""
    if asked.model not in service.names:
        raise ApiError(
            404,
            "model_not_found",
            f"The model '{asked.model[:100]}' is not served here; '{service.release.name}' is.",
            "model",
        )
    prompts, messages = await run_in_threadpool(_tokenise, service, asked)
    if len(prompts) * asked.n > service.limits.choices:
        raise ApiError(400, "invalid_value", f"At most {service.limits.choices} answers at once.", "n")
    return Job(service, asked, key, prompts, messages, [_max_tokens(service, asked, len(prompt)) for prompt in prompts])


def _tokenise(
    service: Service, asked: ChatRequest | CompletionRequest
) -> tuple[list[list[int]], list[list[dict[str, str]]]]:
    tokenizer = service.tokenizer
    if isinstance(asked, ChatRequest):
        plain = [message.plain() for message in asked.messages]
        return [tokenizer.encode_chat(plain)], [plain]
    prompts: list[list[int]] = []
    texts: list[str] = []
    for prompt in asked.prompt:
        if isinstance(prompt, str):
            prompts.append(tokenizer.encode(prompt))
            texts.append(prompt)
            continue
        if max(prompt) >= tokenizer.vocab_size:
            raise ApiError(400, "invalid_value", f"Token ids must be below {tokenizer.vocab_size}.", "prompt")
        prompts.append(prompt)
        texts.append(tokenizer.decode(prompt, skip_special=False))
    return prompts, [[{"role": "prompt", "content": text}] for text in texts]


def _max_tokens(service: Service, asked: ChatRequest | CompletionRequest, prompt_tokens: int) -> int:
    """What was asked for, or the default; ApiError when prompt and answer do not fit the context."""
    chat = isinstance(asked, ChatRequest)
    param = "messages" if chat else "prompt"
    wanted = asked.max_tokens
    if isinstance(asked, ChatRequest):
        wanted = wanted or asked.max_completion_tokens
    if wanted is not None and wanted > service.limits.max_tokens:
        raise ApiError(400, "invalid_value", f"At most {service.limits.max_tokens} tokens per answer.", "max_tokens")
    free = service.context_tokens - prompt_tokens
    if free < (wanted or 1):
        raise ApiError(
            400,
            "context_length_exceeded",
            f"This model's context is {service.context_tokens} tokens; the request has {prompt_tokens} and asks for "
            f"{wanted or 'at least 1'} more.",
            param,
        )
    return wanted or min(free, service.limits.max_tokens if chat else COMPLETION_TOKENS)


async def _watch(receive: Receive, inbox: Inbox) -> None:
    """Tell the inbox when the client has gone."""
    while (await receive())["type"] != "http.disconnect":
        continue
    inbox.put_nowait((-1, ApiError(GONE, "gone", "The client left.")))


class Completion:
    """The ASGI response of a job: one JSON object, or a stream of server-sent events."""

    def __init__(self, job: Job):
        self.job = job

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        pieces = self.job.run(receive)
        try:
            if self.job.asked.stream:
                await self._stream(pieces, scope, receive, send)
            else:
                await self._whole(pieces, scope, receive, send)
        finally:
            await pieces.aclose()  # type: ignore[attr-defined]

    async def _whole(self, pieces: Any, scope: Scope, receive: Receive, send: Send) -> None:
        job = self.job
        tokens: list[list[dict[str, Any]]] = [[] for _ in job.answers]
        async for index, piece in pieces:
            tokens[index] += piece.tokens
        body = job.shape.whole(job.answers, tokens, job.prompt_tokens)
        await JSONResponse(body, headers={"cache-control": "no-store"})(scope, receive, send)

    async def _stream(self, pieces: Any, scope: Scope, receive: Receive, send: Send) -> None:
        """Nothing is sent before the first token, so that an error can still have its own status."""
        job, opened, begun = self.job, False, set()
        try:
            async for index, piece in pieces:
                if not opened:
                    await send(_start())
                    opened = True
                if index not in begun:
                    begun.add(index)
                    await self._send(send, job.shape.first(index))
                if piece.text or piece.finish or (job.shape.logprobs and piece.tokens):
                    await self._send(send, job.shape.piece(index, piece.text, piece.tokens, piece.finish))
        except ApiError as error:
            if not opened:
                raise
            await self._send(send, error.body())
        else:
            options = job.asked.stream_options
            if options is not None and options.include_usage:
                await self._send(send, job.shape.last(job.answers, job.prompt_tokens))
        await self._send_bytes(send, b"data: [DONE]\n\n", more=False)

    async def _send(self, send: Send, chunk: dict[str, Any] | None) -> None:
        if chunk is not None:
            # ASCII only: some clients split lines at U+2028 and its kin too
            text = json.dumps(chunk, separators=(",", ":"), allow_nan=False)
            await self._send_bytes(send, f"data: {text}\n\n".encode())

    async def _send_bytes(self, send: Send, body: bytes, more: bool = True) -> None:
        """A client that does not take a piece in time is treated as gone: it must not hold a row for ever."""
        message = {"type": "http.response.body", "body": body, "more_body": more}
        await asyncio.wait_for(send(message), self.job.service.limits.send_seconds)


def _start() -> dict[str, Any]:
    headers = [
        (b"content-type", b"text/event-stream; charset=utf-8"),
        (b"cache-control", b"no-store"),
        (b"x-accel-buffering", b"no"),
    ]
    return {"type": "http.response.start", "status": 200, "headers": headers}
