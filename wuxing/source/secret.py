"""URLs with secrets: `${NAME}` is filled in where a connection is made, and nowhere else; logs and cards show none."""

from __future__ import annotations

import os
import re

from wuxing.core.error import WuxingError

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_LOGIN = re.compile(r"(?<=://)[^/@\s'\"]+@")
_QUERY = re.compile(r"(?<=[?&])([^=&\s'\"]+)=[^&\s'\"]*")


def filled(url: str) -> str:
    """The URL with the environment's values; WuxingError names the variable that is not set."""

    def value(match: re.Match[str]) -> str:
        found = os.environ.get(match[1])
        if found is None:
            raise WuxingError(
                f"the environment has no {match[1]}, which {shown(url)} needs", f"Set it: export {match[1]}=..."
            )
        return found

    return _VARIABLE.sub(value, url)


def shown(text: str) -> str:
    """A URL, or a message with URLs in it, without logins and without the values of its query."""
    return _QUERY.sub(r"\1=…", _LOGIN.sub("", text))


def hidden(message: str, url: str) -> str:
    """A message of some library about a URL, without the values that stand behind its `${NAME}`s."""
    for name in _VARIABLE.findall(url):
        if value := os.environ.get(name):
            message = message.replace(value, "…")
    return shown(message)
