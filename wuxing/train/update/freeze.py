"""Which parameters learn, and from when on."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable

from pydantic import Field

from wuxing.core.error import UsageError, nearest
from wuxing.core.step import Config

_LAYER = re.compile(r"\.layers\.(\d+)\.")


class Freeze(Config):
    """Parameters that do not learn."""

    names: tuple[str, ...] = ()
    """Patterns of parameter names that never learn, such as `model.embed_tokens.*` or `model.layers.0.*`."""
    thaw_every: float | None = Field(default=None, gt=0, le=1)
    """Gradual unfreezing (Howard and Ruder 2018): the last block learns from the start, and after each such share of
    the steps one more block below it; embeddings last."""


def learning(names: Iterable[str], freeze: Freeze, step: int, steps: int) -> set[str]:
    """The parameters that learn in step `step` (counted from 0) of `steps`."""
    every = list(names)
    left = {name for name in every if not any(fnmatch.fnmatchcase(name, pattern) for pattern in freeze.names)}
    if freeze.thaw_every is None:
        return left
    layers = 1 + max((layer_of(name) for name in every), default=0)
    thawed = 1 + int(step / max(1.0, freeze.thaw_every * steps))
    return {name for name in left if _depth(name, layers) < thawed}


def _depth(name: str, layers: int) -> int:
    """0 for the last block and what stands above it, one more for each block below, most for embeddings."""
    if _LAYER.search(name):
        return layers - 1 - layer_of(name)
    return layers if "embed" in name else 0


def layer_of(name: str) -> int:
    """The number of the block that a parameter belongs to; 0 for others."""
    found = _LAYER.search(name)
    return int(found[1]) if found else 0


def check_names(names: Iterable[str], freeze: Freeze, rates: Iterable[str] = ()) -> None:
    """Raises UsageError for a pattern that matches nothing, or when nothing is left to learn."""
    every = list(names)
    for pattern in rates:
        if not fnmatch.filter(every, pattern):
            raise UsageError(f'optimizer.rates: no parameter is called "{pattern}"', nearest(pattern, every))
    for pattern in freeze.names:
        if not fnmatch.filter(every, pattern):
            raise UsageError(f'freeze.names: no parameter is called "{pattern}"', nearest(pattern, every))
    if not learning(every, Freeze(names=freeze.names), 0, 1):
        raise UsageError("freeze.names leaves nothing to learn", "Take a pattern out")
