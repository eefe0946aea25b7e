"""`watch`: what a release was asked and answered, how fast, and whether it still looks like its evaluation."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Watch:
    """Traffic, latency, thumbs and drift of one release name."""

    def to_json(self) -> dict[str, Any]:
        raise NotImplementedError


def watch(home: Path, release_name: str, reference: dict[str, Any], since: datetime | None = None) -> Watch:
    """Read the exchanges of `release_name` (only those at or after `since`) and judge them against `reference`."""
    raise NotImplementedError
