"""What an artifact was made with: interpreter, libraries, machine, commit.  Recorded, never part of a fingerprint."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

from wuxing.core.digest import digest_of


@cache
def environment() -> dict[str, Any]:
    """Python, platform, cores, all installed distributions, and the commit of Wuxing's own code where it has one."""
    packages = {str(d.metadata["Name"]).lower(): d.version for d in importlib.metadata.distributions()}
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cores": len(os.sched_getaffinity(0)),
        "packages": dict(sorted(packages.items())),
        "commit": commit_of(Path(__file__).parent),
    }


def commit_of(directory: Path) -> dict[str, str] | None:
    """The commit that `directory` stands on and the digest of what differs from it; None outside a checkout."""
    head = _git(directory, "rev-parse", "HEAD")
    if head is None:
        return None
    difference = _git(directory, "diff", "HEAD") or ""
    return {"commit": head.strip(), "uncommitted": digest_of(difference) if difference else ""}


def _git(directory: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", *arguments],
            cwd=directory,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=20,
            check=False,
        )
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None
