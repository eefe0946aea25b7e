"""The errors a user sees: one line that says what is wrong, where, and what mends it."""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable


class WuxingError(ValueError):
    """A mistake or a limit that its reader can mend.  `str(error)` is the whole line to print."""

    exit_code = 1

    def __init__(self, what: str, remedy: str | None = None):
        self.what, self.remedy = what, remedy
        super().__init__(f"{what}. {remedy}" if remedy else what)


class UsageError(WuxingError):
    """Wrong usage or a wrong recipe (exit code 2)."""

    exit_code = 2


class RefusedError(WuxingError):
    """Evidence or a gate says no (exit code 3)."""

    exit_code = 3


class Interrupted(WuxingError):
    """Stopped by Ctrl-C or SIGTERM with its state saved (exit code 130)."""

    exit_code = 130


def disk_trouble(error: OSError) -> str:
    """What is the matter with the disk, in words; empty when the error is another one."""
    words = {
        errno.ENOSPC: "the disk is full",
        errno.EDQUOT: "the quota of the disk is used up",
        errno.EFBIG: "a file would be larger than is allowed here (ulimit -f)",
        errno.EROFS: "the disk is read-only",
        errno.EIO: "the disk does not give back what was written",
    }
    return words.get(error.errno or 0, "")


def nearest(word: str, known: Iterable[str]) -> str:
    """`; did you mean "x"?` for the known word closest to `word`, or the list of what is known."""
    known = sorted(known)
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    if close:
        return f'Did you mean "{close[0]}"?'
    return f"Known: {', '.join(known)}" if known else "None is known"
