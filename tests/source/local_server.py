"""A small HTTP server for tests, with faults to order: it truncates, stalls, lies about lengths, redirects, dies."""

from __future__ import annotations

import hashlib
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

Fault = Callable[["Handler", bytes], bool]
"""Answers in place of the server, and says whether it did."""


class Site(ThreadingHTTPServer):
    """Files by path; a request log; faults by path, each of them used once."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.faults: dict[str, list[Fault]] = {}
        self.redirects: dict[str, str] = {}
        self.log: list[tuple[str, str, str]] = []
        self.ranges, self.tags, self.head_allowed = True, True, True
        self.over = threading.Event()
        self.extra: Callable[[Handler], bool] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def asked(self, path: str, method: str = "GET") -> list[str]:
        """The Range headers of the requests for a path."""
        return [given for verb, where, given in self.log if verb == method and where == path]


class Handler(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"
    server: Site

    def log_message(self, format: str, *args: object) -> None:
        """Be quiet."""

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, body: bool) -> None:
        site, path = self.server, unquote(urlsplit(self.path).path)
        site.log.append((self.command, path, self.headers.get("Range", "")))
        if site.extra is not None and site.extra(self):
            return
        if path in site.redirects:
            self.say(302, {"Location": site.redirects[path]})
            return
        if not body and not site.head_allowed:
            self.say(405, {})
            return
        if path not in site.files:
            self.index(path, body)
            return
        content = site.files[path]
        if body and site.faults.get(path) and site.faults[path].pop(0)(self, content):
            return
        self.send(content, body)

    def send(self, content: bytes, body: bool = True, headers: dict[str, str] | None = None) -> None:
        """The content, or the part of it that is asked for."""
        tag = '"' + hashlib.md5(content).hexdigest() + '"'
        said = {"ETag": tag} if self.server.tags else {}
        said |= {"Accept-Ranges": "bytes", **(headers or {})}
        start = self.start() if self.server.ranges else 0
        if start and self.headers.get("If-Range", tag) == tag:
            if start >= len(content):
                self.say(416, {"Content-Range": f"bytes */{len(content)}"})
                return
            said["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
            self.say(206, said, content[start:], body)
        else:
            self.say(200, said, content, body)

    def start(self) -> int:
        given = self.headers.get("Range", "")
        return int(given.removeprefix("bytes=").partition("-")[0]) if given.startswith("bytes=") else 0

    def say(self, code: int, headers: dict[str, str], content: bytes = b"", body: bool = True) -> None:
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name, value)
        if "Content-Length" not in headers:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if body:
            self.wfile.write(content)

    def json(self, value: object, code: int = 200) -> None:
        self.say(code, {"Content-Type": "application/json"}, json.dumps(value).encode(), self.command == "GET")

    def query(self) -> dict[str, str]:
        return {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}

    def index(self, path: str, body: bool) -> None:
        """A page of links, as servers print them."""
        if not path.endswith("/") or not any(name.startswith(path) for name in self.server.files):
            self.say(404, {})
            return
        below = sorted({name[len(path) :].partition("/")[0:2] for name in self.server.files if name.startswith(path)})
        links = "".join(f'<a href="{first}{slash}">{first}</a>\n' for first, slash in below)
        page = f'<html><a href="../">up</a><a href="?C=N">sort</a>{links}</html>'.encode()
        self.say(200, {"Content-Type": "text/html"}, page, body)

    def hang_up(self) -> None:
        """Close the connection in the middle."""
        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_RDWR)
        self.close_connection = True


def cut_after(count: int) -> Fault:
    """Send the right length, then only so many bytes, then hang up."""

    def fault(handler: Handler, content: bytes) -> bool:
        start = handler.start()
        rest = content[start:]
        handler.send_response(206 if start else 200)
        handler.send_header("ETag", '"' + hashlib.md5(content).hexdigest() + '"')
        if start:
            handler.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        handler.send_header("Content-Length", str(len(rest)))
        handler.end_headers()
        handler.wfile.write(rest[:count])
        handler.hang_up()
        return True

    return fault


def stall_after(count: int, seconds: float) -> Fault:
    """Send so many bytes, then be silent."""

    def fault(handler: Handler, content: bytes) -> bool:
        start = handler.start()
        handler.send_response(206 if start else 200)
        handler.send_header("ETag", '"' + hashlib.md5(content).hexdigest() + '"')
        if start:
            handler.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        handler.send_header("Content-Length", str(len(content) - start))
        handler.end_headers()
        handler.wfile.write(content[start : start + count])
        handler.wfile.flush()
        handler.server.over.wait(seconds)  # type: ignore[attr-defined]
        handler.close_connection = True
        return True

    return fault


def status(code: int, headers: dict[str, str] | None = None) -> Fault:
    """Answer with a code."""

    def fault(handler: Handler, content: bytes) -> bool:
        handler.say(code, headers or {})
        return True

    return fault


def short_length(missing: int) -> Fault:
    """Say, and send, too few bytes as if they were all."""

    def fault(handler: Handler, content: bytes) -> bool:
        rest = content[handler.start() :]
        handler.say(200, {"ETag": '"' + hashlib.md5(content).hexdigest() + '"'}, rest[: len(rest) - missing])
        return True

    return fault


@contextmanager
def serving() -> Iterator[Site]:
    site = Site()
    thread = threading.Thread(target=site.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield site
    finally:
        site.over.set()
        site.shutdown()
        site.server_close()
        thread.join()
