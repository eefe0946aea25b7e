"""Exchanges: what a served model was asked and answered, in append-only files that `serve` writes and others read.

`<home>/exchanges/<release name>/<day>-<writer>.jsonl` holds the answers, `judgements-<day>-<writer>.jsonl` beside it
the thumbs.  Every process appends to files of its own, so no writer ever waits for another, and none appends to a line
that a killed one left half written (a restarted container has its old process id again: ids would not do).
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from wuxing.core.file import append_line, read_lines


@dataclass(frozen=True)
class Exchange:
    """One answered request."""

    id: str
    time: str
    """ISO 8601, UTC."""
    artifact: str
    """The release that answered: `release/first-model@v3`."""
    model: str
    """Content digest of that release."""
    template: str
    """Digest of the chat template that rendered the prompt."""
    messages: list[dict[str, str]]
    """The conversation as asked; a plain completion is one message of role `prompt`."""
    reply: str
    finish: str
    """`stop`, `length` or `cancelled`."""
    settings: dict[str, Any]
    """temperature, top_p, max_tokens, seed, … as used."""
    signals: dict[str, float]
    """What drift is measured on: prompt_tokens, reply_tokens, mean_logprob, seconds_to_first_token, seconds."""
    key: str = ""
    """The name of the API key, never the key."""


@dataclass(frozen=True)
class Judgement:
    """What a person thought of one answer."""

    exchange: str
    thumb: Literal["up", "down"]
    time: str
    comment: str = ""
    key: str = ""


@dataclass
class ExchangeLog:
    """The exchanges of one release name inside a store."""

    home: Path
    release: str
    directory: Path = field(init=False)

    def __post_init__(self) -> None:
        self.directory = self.home / "exchanges" / self.release

    def write(self, exchange: Exchange) -> None:
        """Append one exchange to this process's own file."""
        append_line(self.directory / f"{_day()}-{_writer()}.jsonl", asdict(exchange))

    def judge(self, judgement: Judgement) -> None:
        """Append one judgement; the newest judgement of an exchange counts."""
        append_line(self.directory / f"judgements-{_day()}-{_writer()}.jsonl", asdict(judgement))

    def files(self) -> list[Path]:
        """The exchange files, oldest day first."""
        return sorted(p for p in self.directory.glob("*.jsonl") if not p.name.startswith("judgements-"))

    def exchanges(self) -> Iterator[Exchange]:
        """Every exchange, in order of file and line."""
        for path in self.files():
            yield from (Exchange(**line) for line in read_lines(path))

    def judgements(self) -> dict[str, Judgement]:
        """Exchange id → its newest judgement."""
        lines = [line for path in sorted(self.directory.glob("judgements-*.jsonl")) for line in read_lines(path)]
        return {line["exchange"]: Judgement(**line) for line in sorted(lines, key=lambda line: line["time"])}


def now() -> str:
    """The time of an event, ISO 8601 in UTC with microseconds."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


def _writer() -> str:
    """A random name of this process, another one after a fork."""
    if _writers[0] != os.getpid():
        _writers[:] = [os.getpid(), secrets.token_hex(6)]
    return str(_writers[1])


_writers: list[int | str] = [0, ""]


def _day() -> str:
    return datetime.now(UTC).strftime("%Y%m%d")
