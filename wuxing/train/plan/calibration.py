"""What runs on this machine took beside what was planned: the next plan is corrected by it."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from wuxing.core.file import append_line, read_lines

WORTH = 2.0
"""Runs that the uncorrected plan is worth: few runs correct it a little, many wholly."""
MOST = 1.5
"""Larger corrections are not believed: something else took the memory."""
RECENT = 40


def path_of(home: Path) -> Path:
    """The file of this machine."""
    from wuxing.compute.measure import machine_digest

    directory = Path(os.environ.get("WUXING_CACHE") or home / "cache")
    return directory / f"planned-{machine_digest()[:16]}.jsonl"


def note(home: Path, entry: dict[str, Any]) -> None:
    """Keep what a finished run took."""
    path = path_of(home)
    path.parent.mkdir(parents=True, exist_ok=True)
    append_line(path, entry)


def entries(home: Path) -> list[dict[str, Any]]:
    """The last runs on this machine, the newest last."""
    path = path_of(home)
    return list(read_lines(path))[-RECENT:] if path.is_file() else []


def memory_factor(runs: Sequence[dict[str, Any]], planned_bytes: float, device: str) -> float:
    """What a plan of so many bytes is to be multiplied with: the errors of runs of about that size, averaged."""
    total = weight = 0.0
    for run in runs:
        raw, actual = float(run.get("raw_bytes") or 0), float(run.get("actual_bytes") or 0)
        if run.get("device") != device or raw <= 0 or actual <= 0:
            continue
        near = math.exp(-(math.log(planned_bytes / raw) ** 2))
        total, weight = total + near * math.log(actual / raw), weight + near
    return min(MOST, max(1 / MOST, math.exp(total / (weight + WORTH))))
