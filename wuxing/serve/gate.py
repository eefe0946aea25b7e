"""The gate before every path: who asks, how often, how much; and what is counted, logged and added to each answer.

Denied by default: without a valid key or session only `/healthz` answers.  `POST /session` and `/?ticket=` are how a
browser shows its key or its one-time ticket, and answer 401 to anything else.
"""

from __future__ import annotations

import time
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from wuxing.serve.complete import GONE
from wuxing.serve.error import ApiError
from wuxing.serve.log import log
from wuxing.serve.page import login_page
from wuxing.serve.service import Service
from wuxing.serve.session import HOURS

OPEN_PATHS = ("/healthz",)
KNOWN_PATHS = (
    "/",
    "/healthz",
    "/metrics",
    "/session",
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/feedback",
    "/v1/models",
)
LOOPBACK = ("127.0.0.1", "localhost", "::1")
ANYBODY = "anybody"
"""The name in exchanges and logs when the server runs without keys."""
SECURITY = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",  # with no-referrer a browser would send its own form as `Origin: null`
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}


class Gate:
    """ASGI middleware around the whole app."""

    def __init__(self, app: ASGIApp, service: Service):
        self.app, self.service = app, service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        visit = Visit(scope, self.service)
        self.service.metrics.in_flight.inc()
        try:
            await self._answer(visit, scope, receive, send)
        finally:
            self.service.metrics.in_flight.dec()
            visit.record()

    async def _answer(self, visit: Visit, scope: Scope, receive: Receive, send: Send) -> None:
        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                visit.answered(message)
            await send(message)

        try:
            response = self._admit(visit, scope)
            await (response or self.app)(scope, receive, counted)
        except ApiError as error:
            if visit.status:
                visit.status = error.status
            else:
                await error.response()(scope, receive, counted)
        except TimeoutError:  # the client stopped reading its answer
            visit.status = GONE
            log("client too slow", path=visit.path)
            raise

    def _admit(self, visit: Visit, scope: Scope) -> Response | None:
        """None when the request may go on; a response of our own for the page's door; ApiError otherwise."""
        if visit.path in OPEN_PATHS:
            return None
        if self.service.keys is None:
            _refuse_strangers(visit)
            visit.name = ANYBODY
        else:
            query = parse_qs(scope.get("query_string", b"").decode("latin-1"))
            if visit.path == "/" and scope["method"] == "GET" and "ticket" in query:
                cookie = self.service.sessions.redeem(query["ticket"][0])
                return enter(self.service, scope, cookie) if cookie else login_page("used")
            if visit.path == "/session" and scope["method"] == "POST":
                _refuse_foreign_origin(visit)
                return None
            name = self._name(visit, scope)
            if name is None:
                return _denied(visit, scope)
            visit.name = name
        self._slow_down(visit, scope)
        scope.setdefault("state", {})["key"] = visit.name
        return None

    def _name(self, visit: Visit, scope: Scope) -> str | None:
        """The name of the key or session that came with the request."""
        keys = self.service.keys
        assert keys is not None
        scheme, _, key = visit.headers.get("authorization", "").partition(" ")
        if scheme:
            return keys.name_of(key.strip()) if scheme.lower() == "bearer" else None
        entry = self.service.sessions.who(read_cookie(visit.headers, scope))
        if entry is None or (entry[1] and not keys.holds(entry[0])):
            return None
        if scope["method"] not in ("GET", "HEAD"):
            _refuse_foreign_origin(visit)
        return entry[0]

    def _slow_down(self, visit: Visit, scope: Scope) -> None:
        if scope["method"] != "POST":
            return
        wait = self.service.rate.take(visit.name)
        if wait > 0:
            limit = self.service.limits.requests_per_minute
            raise ApiError(
                429,
                "rate_limit_exceeded",
                f"This key may send {limit} requests a minute. Try again in {wait:.0f} s.",
                headers={"retry-after": str(max(1, round(wait)))},
            )


class Visit:
    """One request as metrics and logs see it."""

    def __init__(self, scope: Scope, service: Service):
        self.service, self.path, self.method = service, scope["path"], scope["method"]
        self.headers = Headers(scope=scope)
        self.name, self.status, self.begun = "", 0, time.monotonic()
        self.details: dict[str, Any] = scope.setdefault("state", {}).setdefault("details", {})

    def answered(self, message: Message) -> None:
        self.status = message["status"]
        headers = MutableHeaders(scope=message)
        for name, value in SECURITY.items():
            headers.setdefault(name, value)
        headers.setdefault("cache-control", "no-store")
        if self.name:
            headers["x-wuxing-artifact"] = self.service.release.id

    def record(self) -> None:
        seconds = time.monotonic() - self.begun
        path = self.path if self.path in KNOWN_PATHS else "/page/" if self.path.startswith("/page/") else "other"
        metrics, status = self.service.metrics, self.status or 500
        metrics.requests.labels(path, str(status)).inc()
        metrics.seconds.labels(path).observe(seconds)
        if self.path not in ("/healthz", "/metrics"):
            log(
                "request",
                method=self.method,
                path=path,
                status=status,
                seconds=round(seconds, 4),
                key=self.name,
                **self.details,
            )


def enter(service: Service, scope: Scope, cookie: str) -> Response:
    """Send the browser to the page with its new session; the ticket does not stay in the address bar."""
    response = RedirectResponse("/", 303)
    response.set_cookie(
        cookie_name(scope), cookie, max_age=HOURS * 3600, httponly=True, samesite="strict", secure=service.secure
    )
    return response


def cookie_name(scope: Scope) -> str:
    """Browsers share cookies between the ports of a host; two servers must not push each other out."""
    server = scope.get("server")
    return f"wuxing_session_{server[1] if server else 0}"


def read_cookie(headers: Headers, scope: Scope) -> str:
    """The session of the request, or an empty text."""
    try:
        cookies = SimpleCookie(headers.get("cookie", ""))
    except CookieError:
        return ""
    found = cookies.get(cookie_name(scope))
    return found.value if found else ""


def _denied(visit: Visit, scope: Scope) -> Response:
    """401: a form for a browser that wants the page, OpenAI's error for everybody else."""
    if visit.path == "/" and scope["method"] == "GET" and "text/html" in visit.headers.get("accept", ""):
        return login_page("")
    raise ApiError(
        401,
        "invalid_api_key",
        "This needs a valid API key: Authorization: Bearer wx-...",
        headers={"www-authenticate": "Bearer"},
    )


def _refuse_foreign_origin(visit: Visit) -> None:
    """Another site, or another port of this machine, must not act with the browser's session."""
    origin = visit.headers.get("origin")
    if origin is not None and urlsplit(origin).netloc != visit.headers.get("host"):
        raise ApiError(403, "foreign_origin", "This request comes from another site.")


def _refuse_strangers(visit: Visit) -> None:
    """Without keys only this machine's own pages may ask: no other site, and no name that was re-pointed here."""
    try:
        host = urlsplit(f"//{visit.headers.get('host', '')}").hostname
    except ValueError:
        host = None
    if host not in LOOPBACK:
        raise ApiError(403, "foreign_host", "Without keys this server answers only to 127.0.0.1 and localhost.")
    _refuse_foreign_origin(visit)
