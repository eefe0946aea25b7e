"""`serve`: one release behind an OpenAI-compatible HTTP server, from verification to a drained stop."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from wuxing.core.artifact import Artifact


def serve(
    release: Artifact,
    home: Path,
    host: str = "127.0.0.1",
    port: int = 8000,
    keys: bool = True,
    device: str = "auto",
    certificate: Path | None = None,
    private_key: Path | None = None,
    say: Callable[[str], None] = print,
) -> None:
    """Serve `release` until SIGINT or SIGTERM, then drain and return.  `limits` and more are in `wuxing.serve.limit`."""
    raise NotImplementedError
