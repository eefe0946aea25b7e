"""How long a run still takes, as an interval: its steps may grow on the way, and measuring takes time too."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from wuxing.data.plan import Stage
from wuxing.train.plan.budget import Start

BLOCK = 5
RECENT = 50
"""Steps that speed and time left are taken from."""
WARM_STEPS = 1
"""Of a size of step, not counted where there are more: the first one allocates."""
FIXED_SHARE = 0.5
"""Of a step's time, what does not grow with it at most: gradients, updates, the log."""
MORE = 1.15
"""A step so many times larger than its share of arithmetic says is the slowest to expect: caches are left behind."""


@dataclass(frozen=True)
class Stretch:
    """Steps of one size."""

    work: float
    """Arithmetic of a step, in any unit that all stretches share."""
    first: int
    """Steps before it."""
    last: float
    """Its last step; infinite for the last stretch."""


@dataclass(frozen=True)
class Pace:
    """Seconds of a step: least and most of their mean, and how uneven blocks of them are."""

    work: float
    least: float
    most: float
    uneven: float


def stretches(start: Start) -> list[Stretch]:
    """The sizes of a run's steps, one after the other."""
    stages = [Stage(*stage) for stage in start.stages] or [Stage(0, 1)]
    share, found, first = start.attention_share, list[Stretch](), 0
    for stage, after in pairwise([*stages, None]):
        assert stage is not None
        last = math.inf if after is None else first + (after.start - stage.start) // stage.rows
        found.append(Stretch(stage.rows * (1 - share + share / stage.parts), first, last))
        first = int(last) if after is not None else first
    return found


def time_left(seconds: Sequence[float], steps: int) -> tuple[float, float]:
    """Least and most seconds for so many steps, from those of the last ones: see `spread_of`."""
    mean, error, uneven = spread_of(seconds)
    wide = math.hypot(error * steps, uneven * math.sqrt(BLOCK * steps))
    return max(0.0, mean * steps - wide), mean * steps + wide


def spread_of(seconds: Sequence[float]) -> tuple[float, float, float]:
    """The mean, how far it may be off, and how far the mean of a block of steps to come may lie from it.

    A machine's load moves more slowly than its steps do, so both come from the deviation between blocks of five: twice
    it, and more where there are few blocks (as Student's t is wider).
    """
    blocks = [statistics.fmean(seconds[place : place + BLOCK]) for place in range(0, len(seconds), BLOCK)]
    mean = statistics.fmean(seconds)
    if len(blocks) < 2:
        return mean, mean / 2, mean / 2
    uneven = (2 + 4 / (len(blocks) - 1)) * statistics.stdev(blocks)
    return mean, uneven / math.sqrt(len(blocks)), uneven


def run_left(lines: Sequence[Mapping[str, Any]], start: Start, planned: int) -> tuple[float, float] | None:
    """Least and most seconds to the end of a run of `planned` steps that has written these lines; None before a step.

    Steps of a size that has been seen take what the last of them took.  Of larger ones that are still to come the time
    follows from two sizes that have been seen, or else lies between half growing and all growing with the arithmetic.
    """
    steps = [line for line in lines if "loss" in line]
    if not steps:
        return None
    done, paces = int(steps[-1]["step"]), list[Pace]()
    least = most = uneven = 0.0
    for stretch in stretches(start):
        seconds = [line["seconds"] for line in steps if stretch.first < line["step"] <= stretch.last][-RECENT:]
        if seconds:
            warm = WARM_STEPS if len(seconds) > 2 * WARM_STEPS else 0
            mean, error, of_blocks = spread_of(seconds[warm:])
            pace = Pace(stretch.work, max(0.0, mean - error), mean + error, of_blocks)
            paces.append(pace)
        elif paces:
            pace = _expected(paces, stretch.work)
        else:  # the run went back, past this stretch
            continue
        left = max(0, int(min(planned, stretch.last)) - max(done, stretch.first))
        least, most = least + left * pace.least, most + left * pace.most
        uneven = math.hypot(uneven, pace.uneven * math.sqrt(BLOCK * left))
    looks = _looks_left(lines, start, done, planned)
    middle, wide = (least + most) / 2, math.hypot((most - least) / 2, uneven)
    return max(0.0, middle - wide) + looks[0], middle + wide + looks[1]


def _expected(paces: Sequence[Pace], work: float) -> Pace:
    """The pace of a larger step that nobody has seen yet."""
    last = paces[-1]
    steepest = MORE * last.most / last.work
    before = next((pace for pace in reversed(paces[:-1]) if pace.work < last.work), None)
    if before is None:
        slopes = ((1 - FIXED_SHARE) * last.least / last.work, steepest)
    else:
        wide = last.work - before.work
        slopes = (last.least - before.most) / wide, (last.most - before.least) / wide
    grown = max(0.0, work - last.work)
    low, high = (min(max(slope, 0.0), steepest) for slope in slopes)
    return Pace(work, last.least + low * grown, last.most + high * grown, last.uneven * work / last.work)


def _looks_left(lines: Sequence[Mapping[str, Any]], start: Start, done: int, planned: int) -> tuple[float, float]:
    """Least and most seconds of the measurements that are still to come: held-out data, shares of a mixture."""
    least = most = 0.0
    for kind in ("validation", "mixture"):
        seen = [line for line in lines if kind in line and "seconds" in line]
        if not seen or done >= planned:
            continue
        count = start.measurements - len(seen) if kind == "validation" else 0
        if kind == "mixture" and len(seen) > 1:
            count = math.ceil((planned - seen[-1]["step"]) / (seen[-1]["step"] - seen[-2]["step"])) - 1
        recent = [float(line["seconds"]) for line in seen[-5:]]
        count = max(count, kind == "validation")  # the end is measured
        least, most = least + count * min(recent), most + count * max(recent)
    return least, most
