"""The server of the browse page: one process, the loopback address, until Ctrl-C."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

from wuxing.core.error import UsageError


def serve_corpus(directory: Path, id: str, port: int, said: Callable[[str], None]) -> None:
    """Serve the browse page of one corpus; `said` is told its address.  UsageError when the port is taken."""
    import uvicorn

    from wuxing.console.app import build_app
    from wuxing.corpus.browse.query import Corpus

    app = build_app(Corpus(directory, id))
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("127.0.0.1", port))
        listener.listen(128)  # whoever reads the address may connect at once
    except OSError as error:
        listener.close()
        raise UsageError(
            f"port {port} of 127.0.0.1 cannot be had: {error.strerror}", "Give another --port, or 0"
        ) from error
    said(f"http://127.0.0.1:{listener.getsockname()[1]}/")
    settings = uvicorn.Config(
        app, log_level="warning", access_log=False, server_header=False, timeout_graceful_shutdown=1
    )
    uvicorn.Server(settings).run(sockets=[listener])
