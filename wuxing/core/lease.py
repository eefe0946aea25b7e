"""Leases: one process at a time makes versions of one name.  The kernel frees a dead process's lease."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from wuxing.core.error import WuxingError


@contextmanager
def lease(path: Path, what: str) -> Iterator[None]:
    """Hold the exclusive lease file `path`; WuxingError names the holder when another process has it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise WuxingError(
                f"{what} is being made by another process ({_holder(handle)})",
                "Wait until it is done, or work in another home (--home)",
            ) from None
        os.ftruncate(handle, 0)
        os.pwrite(handle, json.dumps({"pid": os.getpid(), "since": f"{datetime.now():%H:%M:%S}"}).encode(), 0)
        yield
    finally:
        os.close(handle)


def is_held(path: Path) -> bool:
    """Whether a living process holds the lease file `path`; looking changes nothing."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


@contextmanager
def lock(path: Path) -> Iterator[None]:
    """Wait for the exclusive lock file `path`: for moments, such as choosing a version number."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _holder(handle: int) -> str:
    try:
        said = json.loads(os.pread(handle, 200, 0))
    except ValueError:
        return "it has not said which"
    return f"process {said['pid']}, since {said['since']}"
