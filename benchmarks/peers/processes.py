"""A measurement in several processes of one group on this host."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any


def answers(script: str, ranks: int, words: Sequence[str], settings: Mapping[str, str]) -> list[dict[str, Any]]:
    """The line of JSON that `script --rank ...` prints in each of `ranks` fresh processes with these variables."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = []
    for rank in range(ranks):
        place = {"RANK": rank, "WORLD_SIZE": ranks, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        environment = {**os.environ, **settings, **{name: str(value) for name, value in place.items()}}
        command = [sys.executable, script, "--rank", *words]
        processes.append(subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True))
    said = [process.communicate()[0] for process in processes]
    return [json.loads(line) for line in said]
