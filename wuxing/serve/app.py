"""The HTTP app: OpenAI's paths, feedback, health, metrics and the chat page, all behind the gate."""

from __future__ import annotations

import asyncio
import json
import mmap
import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from wuxing.core.exchange import Judgement, now
from wuxing.serve.complete import GONE, Completion, prepare
from wuxing.serve.error import ApiError
from wuxing.serve.gate import Gate, enter
from wuxing.serve.page import login_page, page_file
from wuxing.serve.request import parse_chat, parse_completion, parse_feedback, parse_json
from wuxing.serve.service import Service

LOGIN_BYTES = 4096


def build_app(service: Service) -> ASGIApp:
    """The ASGI app over an open service."""
    return Gate(_App(service).starlette(), service)


class _App:
    def __init__(self, service: Service):
        self.service = service

    def starlette(self) -> Starlette:
        routes = [
            Route("/healthz", self.health),
            Route("/metrics", self.metrics),
            Route("/session", self.session, methods=["POST"]),
            Route("/v1/models", self.models),
            Route("/v1/models/{model:path}", self.model),
            Route("/v1/chat/completions", self.chat, methods=["POST"]),
            Route("/v1/completions", self.completion, methods=["POST"]),
            Route("/v1/feedback", self.feedback, methods=["POST"]),
            Route("/", self.page),
            Route("/page/{name}", self.page),
        ]
        handlers: dict[Any, Callable[..., Awaitable[Response]]] = {
            HTTPException: _http_error,
            ApiError: _api_error,
            Exception: _failure,
        }
        return Starlette(routes=routes, exception_handlers=handlers)

    async def health(self, request: Request) -> Response:
        service = self.service
        body = {
            "status": service.status,
            "release": service.release.id,
            "uptime_seconds": round(time.monotonic() - service.started, 1),
        }
        if service.exchange_failure:
            body["warning"] = service.exchange_failure
        return JSONResponse(body, 200 if service.status == "ok" else 503)

    async def metrics(self, request: Request) -> Response:
        return Response(self.service.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    async def session(self, request: Request) -> Response:
        """A browser shows its key, once, and gets a cookie."""
        form = parse_qs((await _read(request, LOGIN_BYTES, self.service.limits.body_seconds)).decode("latin-1"))
        keys = self.service.keys
        name = keys.name_of(form.get("key", [""])[0].strip()) if keys else None
        if name is None:
            return login_page("wrong")
        return enter(self.service, request.scope, self.service.sessions.open(name))

    async def models(self, request: Request) -> Response:
        return JSONResponse({"object": "list", "data": [self._model()]})

    async def model(self, request: Request) -> Response:
        if request.path_params["model"] not in self.service.names:
            raise ApiError(404, "model_not_found", "There is no model of this name here.", "model")
        return JSONResponse(self._model())

    def _model(self) -> dict[str, Any]:
        """OpenAI's fields, and what a client of ours may want to know."""
        service = self.service
        return {
            "id": service.release.name,
            "object": "model",
            "created": int((service.release.path / "manifest.json").stat().st_mtime),
            "owned_by": "wuxing",
            "artifact": service.release.id,
            "context_tokens": service.context_tokens,
            "max_tokens": min(service.limits.max_tokens, service.context_tokens - 1),
        }

    async def chat(self, request: Request) -> Any:
        asked = parse_chat(await self._json(request))
        return self._completion(request, await prepare(self.service, asked, request.state.key))

    async def completion(self, request: Request) -> Any:
        asked = parse_completion(await self._json(request))
        return self._completion(request, await prepare(self.service, asked, request.state.key))

    def _completion(self, request: Request, job: Any) -> Completion:
        request.state.details.update(exchange=job.id, prompt_tokens=job.prompt_tokens, stream=job.asked.stream)
        return Completion(job)

    async def feedback(self, request: Request) -> Response:
        """A thumb for an answer.  The newest judgement of an exchange counts."""
        asked = parse_feedback(await self._json(request))
        if not await run_in_threadpool(self._knows, asked.exchange):
            raise ApiError(404, "exchange_not_found", "There is no exchange of this id.", "exchange")
        try:
            self.service.log.judge(Judgement(asked.exchange, asked.thumb, now(), asked.comment, request.state.key))
        except OSError as error:
            raise ApiError(503, "not_kept", f"The judgement could not be kept: {error.strerror}.") from error
        self.service.metrics.thumbs.labels(asked.thumb).inc()
        return JSONResponse({"exchange": asked.exchange, "thumb": asked.thumb})

    def _knows(self, exchange: str) -> bool:
        """Whether an exchange was written, by this server or by another one of the same release name."""
        needle = f'{{"id": {json.dumps(exchange)}'.encode()  # inside a message the quotes would be escaped
        return any(_holds(path, needle) for path in reversed(self.service.log.files()))

    async def page(self, request: Request) -> Response:
        found = page_file(request.path_params.get("name", "chat.html"))
        if found is None:
            raise ApiError(404, "not_found", "There is no such file.")
        return found

    async def _json(self, request: Request) -> dict[str, Any]:
        limits = self.service.limits
        return parse_json(await _read(request, limits.body_bytes, limits.body_seconds))


async def _read(request: Request, most: int, seconds: float) -> bytes:
    """The body, never more than `most` bytes of it in memory, and not waited for longer than `seconds`."""
    too_large = ApiError(
        413, "body_too_large", f"The body may have at most {most} bytes.", headers={"connection": "close"}
    )
    announced = request.headers.get("content-length", "")
    if announced.isdigit() and int(announced) > most:
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(seconds):
            async for chunk in request.stream():
                body += chunk
                if len(body) > most:
                    raise too_large
    except TimeoutError as error:
        raise ApiError(
            408, "body_timeout", f"The body did not arrive within {seconds:g} s.", headers={"connection": "close"}
        ) from error
    except ClientDisconnect as error:
        raise ApiError(GONE, "gone", "The client left.") from error
    return bytes(body)


def _holds(path: Path, needle: bytes) -> bool:
    with open(path, "rb") as file:
        if os.fstat(file.fileno()).st_size == 0:
            return False
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return content.find(needle) >= 0


async def _api_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return error.response()


async def _failure(request: Request, error: Exception) -> Response:
    """Our own mistake: the client gets a 500 without a word of it; the server's log gets the place."""
    return ApiError(500, "internal_error", "The server failed on this request; the failure is in its log.").response()


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "http_error")
    message = {404: "There is no such path.", 405: f"{request.method} is not allowed here."}
    headers = dict(error.headers or {})
    return ApiError(
        error.status_code, code, message.get(error.status_code, str(error.detail)), headers=headers
    ).response()
