"""Files behind HTTP: what the server says of them, their bytes from any place on, the links of its index pages."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from html.parser import HTMLParser
from typing import TYPE_CHECKING
from urllib.parse import unquote, urldefrag, urljoin, urlsplit

from wuxing.core.error import WuxingError
from wuxing.source.download import Changed, Known, Passing, persistent
from wuxing.source.row import NotThere
from wuxing.source.secret import filled, shown

if TYPE_CHECKING:
    import httpx

PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
MAX_PAGES = 1000
"""Index pages that are followed below a pattern's fixed part."""


@dataclass(frozen=True)
class WebFile:
    """One file of a web server."""

    url: str
    timeout_seconds: int = 60

    def at(self, url: str) -> WebFile:
        """Another file of such a server."""
        return WebFile(url, self.timeout_seconds)

    def known(self) -> Known:
        """Length and ETag (or date) by HEAD; where that is not allowed, by the head of a GET."""
        with _client(self.timeout_seconds) as client, _mapped(self.url):
            answer = client.head(filled(self.url))
            if answer.status_code in (400, 403, 405, 501):  # a URL signed for GET alone says 403
                with client.stream("GET", filled(self.url)) as answer:
                    pass
            _check(answer, self.url)
            return _known(answer)

    def read(self, start: int, known: Known) -> Iterator[bytes]:
        """The bytes from `start` on, as they were sent."""
        headers = {"Accept-Encoding": "identity"}
        if start:
            headers["Range"] = f"bytes={start}-"
            if known.tag and not known.tag.startswith("W/"):
                headers["If-Range"] = known.tag
        with (
            _client(self.timeout_seconds) as client,
            _mapped(self.url),
            client.stream("GET", filled(self.url), headers=headers) as answer,
        ):
            if answer.status_code == 416 or (start and answer.status_code == 200):
                raise Changed("the server does not send from the middle")
            _check(answer, self.url)
            now = _known(answer)
            if known.tag and now.tag and now.tag != known.tag:
                raise WuxingError(f"{shown(self.url)} changed since it was listed", "Run again, to list it anew")
            if start and _range_start(answer) != start:
                raise Changed("the server sends another part than was asked for")
            yield from answer.iter_raw()


def _client(seconds: int) -> httpx.Client:
    """Follows redirects, never from HTTPS to HTTP; logins come from ~/.netrc, proxies from the environment."""
    import httpx

    def guard(answer: httpx.Response) -> None:
        target = answer.next_request
        if target is not None and answer.url.scheme == "https" and target.url.scheme != "https":
            raise WuxingError(
                f"{shown(str(answer.url))} leads from https to {target.url.scheme}", "Give the last address"
            )

    return httpx.Client(
        timeout=seconds, follow_redirects=True, max_redirects=10, event_hooks={"response": [guard]}, auth=_netrc()
    )


def _netrc() -> httpx.Auth | None:
    import os
    from pathlib import Path

    import httpx

    place = Path(os.environ.get("NETRC") or Path.home() / ".netrc")
    return httpx.NetRCAuth(str(place)) if place.is_file() else None


@contextmanager
def _mapped(url: str) -> Iterator[None]:
    """What goes wrong on the way, as passing or final."""
    import httpx

    try:
        yield
    except (httpx.TooManyRedirects, httpx.UnsupportedProtocol, httpx.InvalidURL) as error:
        raise WuxingError(f"{shown(url)} cannot be read: {shown(str(error))}", "Check the address") from error
    except httpx.TimeoutException as error:
        raise Passing("the server is silent") from error
    except httpx.HTTPError as error:
        raise Passing(shown(str(error)) or type(error).__name__) from error


def _check(answer: httpx.Response, url: str) -> None:
    """Raises Passing or WuxingError for an answer that is none."""
    code = answer.status_code
    if code in PASSING:
        wait = answer.headers.get("Retry-After", "")
        raise Passing(f"the server answers {code}", float(wait) if wait.isdigit() else None)
    if code >= 400:
        if code in (404, 410):
            raise NotThere(f"{shown(url)} answers {code}", "Check the address")
        remedy = {401: "Put a login into ~/.netrc", 403: "Put a login into ~/.netrc, or ask for access"}
        raise WuxingError(f"{shown(url)} answers {code}", remedy.get(code, "Check the address"))


def _known(answer: httpx.Response) -> Known:
    headers = answer.headers
    packed = headers.get("Content-Encoding", "identity") != "identity"
    length = headers.get("Content-Length") if not packed else None
    whole = re.fullmatch(r"bytes \d+-\d+/(\d+)", headers.get("Content-Range", ""))
    tag = headers.get("ETag") or headers.get("Last-Modified") or ""
    return Known(int(whole[1]) if whole else int(length) if length and length.isdigit() else None, tag)


def _range_start(answer: httpx.Response) -> int:
    found = re.match(r"bytes (\d+)-", answer.headers.get("Content-Range", ""))
    return int(found[1]) if found else -1


class _Links(HTMLParser):
    """The targets of a page's links."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "a":
            self.found += [value for name, value in attrs if name == "href" and value]


def listed(url: str, seconds: int) -> list[tuple[str, str]]:
    """(name, URL) of the files that a URL names: itself, or below a directory those that fit its pattern.

    A directory's files are the links of its index page that lie below it, as servers print them.
    """
    path = urlsplit(url).path
    if not any(mark in path for mark in "*[") and not path.endswith("/"):
        return [(unquote(path.rsplit("/", 1)[-1]) or "index", url)]
    if urlsplit(url).query:
        raise WuxingError(f"{shown(url)} has both a pattern and a query", "Name the files one by one")
    fixed = re.split(r"[*\[]", url, maxsplit=1)[0].rsplit("/", 1)[0] + "/"
    pattern = url[len(fixed) :] or "**"
    found: dict[str, str] = {}
    waiting, seen = [fixed], {fixed}
    while waiting and len(seen) <= MAX_PAGES:
        page = waiting.pop(0)
        for link in _links(page, seconds):
            name = unquote(link[len(fixed) :])
            if not link.startswith(fixed) or link in seen or not name:
                continue
            if link.endswith("/"):
                if "**" in pattern or name.count("/") < pattern.count("/") + 1:
                    seen.add(link)
                    waiting.append(link)
            elif fits(name, pattern):
                found[name] = link
    return sorted(found.items())


def fits(name: str, pattern: str) -> bool:
    """Whether a path fits a glob: `**` over directories, `*` within one."""
    if "**" in pattern:
        regex = re.escape(pattern).replace(r"\*\*/", "(?:.*/)?").replace(r"\*\*", ".*").replace(r"\*", "[^/]*")
        return re.fullmatch(regex, name) is not None
    parts, wanted = name.split("/"), pattern.split("/")
    return len(parts) == len(wanted) and all(fnmatch.fnmatchcase(a, b) for a, b in zip(parts, wanted, strict=True))


def _links(page: str, seconds: int) -> list[str]:
    def once() -> tuple[str, str]:
        with _client(seconds) as client, _mapped(page):
            answer = client.get(filled(page))
            _check(answer, page)
            return answer.text, page

    text, base = persistent(once, page)
    parser = _Links()
    parser.feed(text)
    return [urldefrag(urljoin(base, link)).url for link in parser.found if "?" not in link]
