"""The HTTP app of the browse page: reads one corpus, writes nothing, answers only pages of its own.

It needs no key because it listens on the loopback address, so it must not serve as another site's hand: a name that is
not this machine's (DNS rebinding) and a request that another site's page makes are refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from wuxing.core.error import WuxingError
from wuxing.corpus.browse.query import Corpus, Query
from wuxing.corpus.preview import kind_of, picture
from wuxing.page.render import TEMPLATES

PAGE = Path(__file__).parent / "page"
FILES = {
    "base.css": (TEMPLATES / "page.css", "text/css"),
    "browse.css": (PAGE / "browse.css", "text/css"),
    "browse.js": (PAGE / "browse.js", "text/javascript"),
    "words.js": (PAGE / "words.js", "text/javascript"),
}
PAGE_ROWS = 40
LOCAL = re.compile(r"(127\.0\.0\.1|localhost|\[::1\])(:\d{1,5})?")
HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "x-frame-options": "DENY",
    "cache-control": "no-store",
}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; media-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def build_app(corpus: Corpus) -> ASGIApp:
    """The app over one corpus."""
    return _Gate(_App(corpus).starlette())


class _Gate:
    """Lets in only GET and HEAD from this machine's own pages, and puts the safety headers on every answer."""

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        site = headers.get("sec-fetch-site", "none")
        refused = None
        if not LOCAL.fullmatch(headers.get("host", "")):
            refused = (421, "This page is only served to this machine, by its own name.")
        elif scope["method"] not in ("GET", "HEAD"):
            refused = (405, "Only GET is answered: this page changes nothing.")
        elif site not in ("none", "same-origin") and scope["path"] != "/":
            refused = (403, "Another site's page may not read this one.")

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                there = {name for name, _ in message["headers"]}
                extra = {**HEADERS, "content-security-policy": POLICY}
                named = ((name.encode(), value.encode()) for name, value in extra.items())
                message["headers"] = [*message["headers"], *(pair for pair in named if pair[0] not in there)]
            await send(message)

        answer: ASGIApp = self.app if refused is None else JSONResponse({"error": refused[1]}, refused[0])
        await answer(scope, receive, guarded)


class _App:
    def __init__(self, corpus: Corpus):
        self.corpus = corpus

    def starlette(self) -> Starlette:
        routes = [
            Route("/", self.page),
            Route("/page/{name}", self.file),
            Route("/report/{language}", self.report),
            Route("/api/overview", self.overview),
            Route("/api/records", self.records),
            Route("/api/record", self.record),
            Route("/media", self.media),
        ]
        handlers: dict[Any, Callable[..., Awaitable[Response]]] = {WuxingError: _mistake, HTTPException: _not_found}
        return Starlette(routes=routes, exception_handlers=handlers)

    async def page(self, request: Request) -> Response:
        return HTMLResponse((PAGE / "browse.html").read_text(encoding="utf-8"))

    async def file(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name not in FILES:
            raise HTTPException(404)
        path, kind = FILES[name]
        return Response(path.read_bytes(), media_type=kind)

    async def report(self, request: Request) -> Response:
        """The data report; it carries a stricter policy of its own."""
        name = {"en": "report.html", "zh": "report.zh.html"}.get(request.path_params["language"])
        path = self.corpus.directory / name if name else None
        if path is None or not path.is_file():
            raise HTTPException(404)
        policy = (
            "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:; media-src data:"
        )
        return HTMLResponse(path.read_bytes(), headers={"content-security-policy": policy})

    async def overview(self, request: Request) -> Response:
        found = await run_in_threadpool(self.corpus.overview)
        found["reports"] = [n for n, f in (("en", "report.html"), ("zh", "report.zh.html")) if self._has(f)]
        return JSONResponse(found)

    def _has(self, name: str) -> bool:
        return (self.corpus.directory / name).is_file()

    async def records(self, request: Request) -> Response:
        asked = request.query_params
        query, cursor = query_of(dict(asked)), asked.get("cursor") or None
        return await run_in_threadpool(self._records, query, cursor)

    def _records(self, query: Query, cursor: str | None) -> Response:
        page = self.corpus.find(query, cursor, PAGE_ROWS)
        pictures = [entry["place"] for entry in page.entries if entry["kind"] == "image" and entry["place"]]
        for place, data in self.corpus.media_of(pictures).items():
            small = picture(data)
            for entry in page.entries:
                if entry["place"] == place and small:
                    entry["thumb"] = small.uri
        return _json({"entries": page.entries, "next": page.next, "scanned": page.scanned})

    async def record(self, request: Request) -> Response:
        found = await run_in_threadpool(self.corpus.record, request.query_params.get("id", ""))
        if found is None:
            raise HTTPException(404)
        return _json(found)

    async def media(self, request: Request) -> Response:
        """A picture or a sound; of bytes that are neither, only that they are octets."""
        data = await run_in_threadpool(self.corpus.media, request.query_params.get("place", ""))
        if data is None:
            raise HTTPException(404)
        return _ranged(data, kind_of(data), request.headers.get("range", ""))


def query_of(given: dict[str, str]) -> Query:
    """A query from the words of an address; empty ones are not given."""
    words = {name: value for name, value in given.items() if value}
    numbers: dict[str, int | None] = {}
    for name in ("min_length", "max_length"):
        value = words.get(name, "")
        numbers[name] = int(value) if value.isascii() and value.isdigit() and len(value) < 12 else None
    texts = {name: words.get(name) for name in ("fate", "step", "grep", "label", "language", "source")}
    return Query(
        view=words.get("view", "kept"), min_length=numbers["min_length"], max_length=numbers["max_length"], **texts
    )


def _json(value: Any) -> Response:
    """JSON that holds any text: lone halves of surrogate pairs stay escapes."""
    return Response(json.dumps(value, ensure_ascii=True, default=str), media_type="application/json")


def _ranged(data: bytes, kind: str, asked: str) -> Response:
    """The bytes, or the one range that a player asks for when it seeks."""
    headers = {"accept-ranges": "bytes"}
    if kind == "application/octet-stream":
        headers["content-disposition"] = "attachment"
    match = re.fullmatch(r"bytes=(\d{1,15})-(\d{0,15})", asked)
    if not match:
        return Response(data, media_type=kind, headers=headers)
    start, end = int(match[1]), min(int(match[2] or len(data) - 1), len(data) - 1)
    if start > end:
        return Response(status_code=416, headers={"content-range": f"bytes */{len(data)}"})
    headers["content-range"] = f"bytes {start}-{end}/{len(data)}"
    return Response(data[start : end + 1], 206, media_type=kind, headers=headers)


async def _mistake(request: Request, error: Exception) -> Response:
    assert isinstance(error, WuxingError)
    return JSONResponse({"error": error.what, "remedy": error.remedy}, 400)


async def _not_found(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": "There is nothing here."}, error.status_code)
