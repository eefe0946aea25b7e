"""What a machine lacks besides libraries, and the exact command that mends it: limits, pages, fonts, extras."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from wuxing.compute.memory import memory_limit
from wuxing.core.amount import bytes_text

OPEN_FILES = 4096
"""Shards, checkpoints and connections of a large run; 1,024 is a usual limit."""
EXTRAS = {
    "fast-cpu": ("xllamacpp", "GGUF releases cannot be proved"),
    "ray": ("ray", "no --on ray"),
    "chinese": ("rjieba", "Chinese words are cut by a simple rule"),
    "voice": ("onnxruntime", "speech is found by a simple rule"),
    "sql": ("sqlalchemy", "no databases as sources"),
}
_THP = Path("/sys/kernel/mm/transparent_hugepage/enabled")


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.  `ok`: True, False (something will not work), or None (nice to have)."""

    name: str
    value: str
    ok: bool | None
    remedy: str | None = None


def limits() -> Iterator[Finding]:
    """Open files, memory of the control group, large pages, shared memory."""
    if platform.system() != "Windows":
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        low = 0 <= soft < OPEN_FILES
        most = min(OPEN_FILES, hard) if hard >= 0 else OPEN_FILES
        yield Finding("open files", f"{soft:,}", None if low else True, f"ulimit -n {most}" if low else None)
    limit = memory_limit()
    if limit is not None:
        small = limit < 4 * 10**9
        remedy = "Give the container 4 GB or more: docker run --memory 4g" if small else None
        yield Finding("memory limit", f"{bytes_text(limit)} by the control group", not small or None, remedy)
    if _THP.is_file():
        chosen = _THP.read_text().partition("[")[2].partition("]")[0]
        never = chosen == "never"
        remedy = f"echo madvise | sudo tee {_THP}" if never else None
        yield Finding("large pages", chosen, None if never else True, remedy)
    shared = Path("/dev/shm")
    if shared.is_dir():
        free = shutil.disk_usage(shared).total
        small = free < 256 * 10**6
        remedy = "docker run --shm-size 1g (processes on GPUs talk through it)" if small else None
        yield Finding("shared memory", bytes_text(free), None if small else True, remedy)


def extras() -> Iterator[Finding]:
    """What further packages would add."""
    for extra, (distribution, without) in EXTRAS.items():
        try:
            yield Finding(distribution, importlib.metadata.version(distribution), True)
        except importlib.metadata.PackageNotFoundError:
            yield Finding(distribution, f"missing: {without}", None, f"pip install 'wuxing[{extra}]'")


def fonts() -> Iterator[Finding]:
    """Whether pages with Chinese can be shown or printed on this machine."""
    lister = shutil.which("fc-list")
    if lister is None:
        return  # no desktop, or not Linux: nobody looks at pages here
    found = subprocess.run([lister, ":lang=zh", "family"], capture_output=True, text=True, timeout=20, check=False)
    names = sorted({line.split(",")[0].strip() for line in found.stdout.splitlines() if line.strip()})
    if names:
        yield Finding("fonts", f"{names[0]} and {len(names) - 1} more for Chinese", True)
    else:
        yield Finding("fonts", "none for Chinese: pages show boxes here", None, "apt-get install fonts-noto-cjk")


def locale() -> Iterator[Finding]:
    """Whether text in and out is UTF-8."""
    import sys

    encoding = (sys.stdout.encoding or "").lower().replace("-", "")
    if encoding != "utf8" and not os.environ.get("PYTHONUTF8"):
        yield Finding("encoding", encoding or "unknown", None, "export PYTHONUTF8=1")
