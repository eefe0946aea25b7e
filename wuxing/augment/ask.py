"""Asking a model over the OpenAI protocol.  Every reply is kept, so that nothing is asked twice."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wuxing.augment.config import Paraphrase
from wuxing.core.digest import digest_of
from wuxing.core.error import WuxingError
from wuxing.core.file import append_line, read_lines

if TYPE_CHECKING:
    import httpx

TRIALS = 4
PAUSE_SECONDS = 1.0
"""Before the second trial; doubled before each further one."""


def key_of(settings: Paraphrase, prompt: str, seed: int) -> str:
    """What a reply depends on."""
    return digest_of([settings.model, settings.temperature, settings.max_tokens, prompt, seed])[:32]


class Asker:
    """Answers from `cache` (JSON lines of key and reply), or from the endpoint, and then kept there.

    Threads may share one.
    """

    def __init__(self, cache: Path):
        self._cache = cache
        self._known: dict[str, str] = {line["key"]: line["reply"] for line in read_lines(cache)}
        self._lock = threading.Lock()
        self._client: httpx.Client | None = None

    def __call__(self, settings: Paraphrase, prompt: str, seed: int) -> str:
        """The reply; WuxingError when the endpoint does not answer."""
        key = key_of(settings, prompt, seed)
        if key not in self._known:
            reply = _asked(self._opened(), settings, prompt, seed)
            with self._lock:
                append_line(self._cache, {"key": key, "reply": reply})
                self._known[key] = reply
        return self._known[key]

    def _opened(self) -> httpx.Client:
        """One client for all threads: it keeps its connections."""
        import httpx

        with self._lock:
            if self._client is None:
                self._client = httpx.Client()
            return self._client


def _asked(client: httpx.Client, settings: Paraphrase, prompt: str, seed: int) -> str:
    import httpx

    body = {
        "model": settings.model,
        "messages": [{"role": "user", "content": prompt}],
        "temperature": settings.temperature,
        "max_tokens": settings.max_tokens,
        "seed": seed,
    }
    where = f"{settings.endpoint.rstrip('/')}/chat/completions"
    why = ""
    for trial in range(TRIALS):
        if trial:
            time.sleep(PAUSE_SECONDS * 2 ** (trial - 1))
        try:
            answer = client.post(where, json=body, headers=_headers(settings), timeout=settings.timeout_seconds)
        except httpx.TransportError as error:
            why = f"it does not answer ({type(error).__name__})"
            continue
        if answer.status_code == 200:
            return _content(answer.json(), where)
        why = f"it says {answer.status_code}: {answer.text[:200]}"
        if answer.status_code not in (408, 429) and answer.status_code < 500:
            break
    raise WuxingError(
        f"{where} gives no paraphrase: {why}",
        "Check endpoint, model and key_variable; replies so far are kept, and the same command goes on",
    )


def _headers(settings: Paraphrase) -> dict[str, str]:
    if settings.key_variable is None:
        return {}
    key = os.environ.get(settings.key_variable)
    if not key:
        raise WuxingError(f"paraphrase: the environment has no {settings.key_variable}", "Set it to the endpoint's key")
    return {"Authorization": f"Bearer {key}"}


def _content(answer: Any, where: str) -> str:
    try:
        return str(answer["choices"][0]["message"]["content"] or "")
    except (KeyError, IndexError, TypeError) as error:
        raise WuxingError(f"{where} does not answer as the OpenAI protocol does", "Check endpoint") from error
