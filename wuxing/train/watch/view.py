"""Where a run stands, from what it has written: numbers for a terminal, a page, or another program.

Only files are read, so any process may look, while the job runs, after it, or after it was killed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from wuxing.core.error import WuxingError
from wuxing.core.file import read_json, read_lines
from wuxing.core.lease import is_held
from wuxing.train.fleet import ATTEMPTS
from wuxing.train.plan.budget import START, Start
from wuxing.train.run import LOG
from wuxing.train.watch.adjust import ADJUSTED
from wuxing.train.watch.left import RECENT, run_left

WAITS, NEAR, SMALL_PIECE = 0.05, 0.5, 1024
"""Shares of the time and of the products' rate, and positions, at which something is called the limit."""
CURVES = ("loss", "learning_rate", "gradient_norm", "tokens_per_second", "memory_bytes", "reward")


@dataclass
class View:
    """A run as it stands."""

    name: str
    state: str
    """`running`, `stopped` (killed or interrupted, resumable) or `finished`."""
    step: int
    steps: int
    last: dict[str, Any]
    """The log's last line of a step."""
    metric: str
    measured: list[tuple[int, float]]
    """(step, held-out measure), the start first."""
    tokens_per_second: float
    utilisation: float | None
    """Model FLOPs per second as a share of the measured rate of products; None where that is not known."""
    waited: float
    """Share of the time of recent steps that was spent waiting for batches."""
    limit: str
    """What holds it up most, in a line."""
    left: tuple[float, float] | None
    """Seconds to the end, least and most; None when it is over."""
    lost: list[dict[str, Any]] = field(default_factory=list)
    """Processes that were lost: who, after which step the run went on, with how many."""
    leaps: list[dict[str, Any]] = field(default_factory=list)
    """Steps whose loss leapt, with their records."""
    adjustments: list[dict[str, Any]] = field(default_factory=list)
    curves: dict[str, list[tuple[int, float]]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """For `--json`, without the curves."""
        return {name: value for name, value in asdict(self).items() if name != "curves"}


def view(directory: Path, name: str, gflops: float | None = None) -> View:
    """The run that writes, or wrote, `directory`.  Raises WuxingError where nothing has been trained yet."""
    start = Start.read(directory) if (directory / START).exists() else None
    if start is None or not (directory / LOG).exists():
        raise WuxingError(f"{name} has no log yet", "It is still being set up, or was not trained here")
    lines = list(read_lines(directory / LOG))
    steps = [line for line in lines if "loss" in line]
    held_out = [(line["step"], line["validation"]) for line in lines if "validation" in line]
    metric = next(iter(held_out[0][1]), "") if held_out else ""
    adjusted = list(read_lines(directory / ADJUSTED)) if (directory / ADJUSTED).exists() else []
    attempts = list(read_lines(directory / ATTEMPTS)) if (directory / ATTEMPTS).exists() else []
    planned = next((int(a["value"]) for a in reversed(adjusted) if a["knob"] == "steps"), start.steps)
    over = (directory / "finished.json").exists()
    state = "finished" if over else "running" if is_held(directory.parent / ".lease") else "stopped"
    done = steps[-1]["step"] if steps else 0
    recent = steps[-RECENT:]
    speed = _rate(recent)
    return View(
        name=name,
        state=state,
        step=done,
        steps=read_json(directory / "training.json")["steps"] if over else max(planned, done),
        last=steps[-1] if steps else {},
        metric=metric,
        measured=[(step, float(figures[metric])) for step, figures in held_out],
        tokens_per_second=speed,
        utilisation=speed * start.position_flops / (gflops * 1e9) if gflops and start.position_flops else None,
        waited=sum(line.get("loader_wait_seconds", 0.0) for line in recent) / max(1e-9, _seconds(recent)),
        limit=limit_of(recent, start, speed * start.position_flops / (gflops * 1e9) if gflops else None),
        left=None if over else run_left(lines, start, planned),
        lost=lost_processes(lines, attempts, state == "running"),
        leaps=[{"step": line["step"], "records": line["spike"]} for line in steps if "spike" in line],
        adjustments=adjusted,
        curves={key: [(line["step"], float(line[key])) for line in steps if key in line] for key in CURVES},
    )


def limit_of(recent: Sequence[Mapping[str, Any]], start: Start, share: float | None) -> str:
    """Whether recent steps waited for data, were cut up for memory, or computed; and how near to the machine's rate."""
    if not recent:
        return ""
    waited = sum(line.get("loader_wait_seconds", 0.0) for line in recent) / max(1e-9, _seconds(recent))
    if waited > WAITS:
        return f"the loader: {waited:.0%} of the time is spent waiting for batches; a faster disk or more cores help"
    if start.recompute:
        return "memory: blocks are computed again to fit, a third more arithmetic; smaller batch rows or cutting help"
    tokens = float(recent[-1]["tokens"])
    if 0 < start.piece_tokens < min(SMALL_PIECE, tokens):
        return f"memory: pieces of {start.piece_tokens:,} positions, too small for the products to reach their rate"
    if not share:
        return "compute; its share of the machine's rate is not known: wuxing doctor"
    if share >= NEAR:
        return f"the products themselves: {share:.0%} of the measured rate"
    return f"compute outside the products (attention, norms, traffic): they would reach {1 / share:,.1f} times as much"


def _seconds(lines: Sequence[Mapping[str, Any]]) -> float:
    return sum(float(line["seconds"]) for line in lines)


def _rate(lines: Sequence[Mapping[str, Any]]) -> float:
    return sum(line["tokens"] for line in lines) / max(1e-9, _seconds(lines)) if lines else 0.0


def lost_processes(
    lines: Sequence[Mapping[str, Any]], attempts: Sequence[Mapping[str, Any]], running: bool = False
) -> list[dict[str, Any]]:
    """Processes that were lost, oldest first, with the step after which the run went on: None where it has not yet.

    `attempts`: starts and losses as whoever watches the processes has noted them; under torchrun there are none.
    """
    told = [dict(line) for line in lines if "lost" in line]
    found = []
    for place, line in enumerate(attempts):
        if "lost" not in line:
            continue
        known = next((other for other in told if other["lost"] == line["lost"]), None)
        if known is not None:
            told.remove(known)
        began_again = running or any("attempt" in later for later in attempts[place + 1 :])
        step, processes = (known["step"], known["processes"]) if known else (None, None)
        found.append({"who": line["lost"], "step": step, "processes": processes, "replaced": began_again})
    alone = [{"who": o["lost"], "step": o["step"], "processes": o["processes"], "replaced": True} for o in told]
    return [*alone, *found]


def braille(points: Sequence[tuple[float, float]], columns: int, rows: int) -> list[str]:
    """A line drawn with dots of 2 x 4 to a character, the highest value above."""
    if not points:
        return [""] * rows
    xs, ys = [x for x, _ in points], [y for _, y in points]
    wide, high = (max(xs) - min(xs)) or 1.0, (max(ys) - min(ys)) or 1.0
    dots = [[0] * columns for _ in range(rows)]
    marks = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
    for x, y in _between(sorted(points), wide / (4 * columns)):
        column = min(2 * columns - 1, int((x - min(xs)) / wide * (2 * columns - 1) + 0.5))
        row = min(4 * rows - 1, int((max(ys) - y) / high * (4 * rows - 1) + 0.5))
        dots[row // 4][column // 2] |= marks[row % 4][column % 2]
    return ["".join(chr(0x2800 + cell) for cell in line) for line in dots]


def _between(points: Sequence[tuple[float, float]], gap: float) -> Iterator[tuple[float, float]]:
    """The points, and others on the straight lines between them where they are further apart than `gap`."""
    yield points[0]
    for (x, y), (next_x, next_y) in pairwise(points):
        parts = max(1, math.ceil((next_x - x) / gap)) * 4
        yield from ((x + (next_x - x) * n / parts, y + (next_y - y) * n / parts) for n in range(1, parts + 1))


def find_run(directory: Path, drafts: Sequence[Path]) -> Path:
    """The newest draft of a name, or its newest signed version.  Raises WuxingError when there is neither."""
    if drafts:
        return drafts[-1]
    signed = [path for path in directory.glob("v*") if (path / "record.json").exists()]
    if not signed:
        raise WuxingError(f"no model called {directory.name} was trained here", "Start it: wuxing run RECIPE")
    return max(signed, key=lambda path: int(path.name[1:]))
