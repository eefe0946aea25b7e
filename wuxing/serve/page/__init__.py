"""The chat page: plain files, sent as they are."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from starlette.responses import Response

TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_DIRECTORY = Path(__file__).parent


@cache
def page_files() -> dict[str, tuple[bytes, str]]:
    """Name → (content, media type) of every file of the page."""
    return {
        path.name: (path.read_bytes(), TYPES[path.suffix])
        for path in sorted(_DIRECTORY.iterdir())
        if path.suffix in TYPES
    }


def page_file(name: str) -> Response | None:
    """A file of the page, None when there is none of this name."""
    if name not in page_files():
        return None
    content, kind = page_files()[name]
    return Response(content, media_type=kind)


def login_page(problem: str) -> Response:
    """401 with the form that asks for a key: all that somebody without one gets to see.

    `problem` is empty, `wrong` (key) or `used` (ticket).  The form carries its style in itself, allowed by digest,
    because no other path answers without a key.
    """
    import base64
    import hashlib
    import re

    html = page_files()["login.html"][0].decode()
    style = re.search(r"<style>(.*?)</style>", html, re.S)
    assert style is not None
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    policy = (
        f"default-src 'none'; style-src 'sha256-{digest}'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    )
    body = html.replace('class="problem"', f'class="problem {problem}"')
    headers = {"content-security-policy": policy, "www-authenticate": "Bearer"}
    return Response(body, 401, headers, media_type="text/html")
