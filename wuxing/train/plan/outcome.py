"""Planned against actual, once a run is over: in its evidence, its summary, `plan.json`, and for the next plan."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wuxing.core.amount import bytes_text
from wuxing.core.evidence import Evidence
from wuxing.core.file import read_lines, write_json
from wuxing.train.plan.budget import TIMED_STEPS, WARM_STEPS, Start
from wuxing.train.plan.calibration import note
from wuxing.train.watch.left import run_left

if TYPE_CHECKING:
    from wuxing.train.run import Run

PLAN = "plan.json"


def forecast(lines: Sequence[Mapping[str, Any]], steps: int, start: Start | None = None) -> float:
    """Seconds of a run as its first steps and its first measurement let one expect; 0 without a step.

    The plan of a run whose budget needed no trial: nothing of what came later is used.  `start`: of a run whose steps
    grow on the way, so that the first ones do not stand for all.
    """
    if start is not None and start.stages:
        return _forecast_of_stages(lines, steps, start)
    seconds = [float(line["seconds"]) for line in lines if "loss" in line][: WARM_STEPS + TIMED_STEPS]
    measured = [float(line.get("seconds", 0.0)) for line in lines if "validation" in line]
    if not seconds:
        return 0.0
    timed = seconds[WARM_STEPS:] or seconds
    warm = sum(seconds[:WARM_STEPS]) if len(seconds) > WARM_STEPS else 0.0
    looks = measured[0] * len(measured) if measured else 0.0
    return warm + statistics.median(timed) * (steps - (WARM_STEPS if warm else 0)) + looks


def _forecast_of_stages(lines: Sequence[Mapping[str, Any]], steps: int, start: Start) -> float:
    """What the first steps took, and the middle of what `run_left` gives for the others."""
    first = list[Mapping[str, Any]]()
    for line in lines:
        if sum("loss" in one for one in first) == WARM_STEPS + TIMED_STEPS:
            break
        first.append(line)
    left = run_left(first, start, steps)
    return sum(float(line.get("seconds", 0.0)) for line in first) + sum(left) / 2 if left else 0.0


def leave_outcome(evidence: Evidence, run: Run, start: Start, length: int, home: Path, log: Path) -> dict[str, Any]:
    """Write planned and actual down; returns the errors for the summary (planned / actual - 1)."""
    lines = list(read_lines(log)) if log.exists() else []
    done = run.trainer.done
    trial = start.planned_seconds * done / max(1, start.steps)
    planned_seconds, actual_seconds = trial or forecast(lines, done, start), max(run.seconds, 1e-9)
    planned_bytes, actual_bytes = start.planned_bytes, run.memory.peak()
    energy, basis = run.memory.energy.watt_hours(actual_seconds)
    errors = {
        "memory_error": round(planned_bytes / actual_bytes - 1, 4) if actual_bytes else 0.0,
        "time_error": round(planned_seconds / actual_seconds - 1, 4),
    }
    whence = "from a trial" if trial else "from its own first steps"
    evidence.measure("memory_planned", planned_bytes, f"bytes: {bytes_text(planned_bytes)}")
    evidence.measure(
        "memory_actual", actual_bytes, f"bytes: {bytes_text(actual_bytes)}, the most beyond the process's start"
    )
    evidence.measure("memory_error", errors["memory_error"], "planned / actual - 1")
    evidence.measure("time_planned", round(planned_seconds, 1), f"seconds, {whence}")
    evidence.measure("time_actual", round(run.seconds, 1), "seconds of training and validation")
    evidence.measure("time_error", errors["time_error"], "planned / actual - 1")
    evidence.measure("energy", [round(value, 4) for value in energy], f"watt hours; {basis}")
    run.context.progress.say(
        f"{run.name}: {bytes_text(actual_bytes)} at the most, {bytes_text(planned_bytes)} planned "
        f"({errors['memory_error']:+.0%}); {actual_seconds:,.1f} s, {planned_seconds:,.1f} planned {whence} "
        f"({errors['time_error']:+.0%})"
    )
    shape = run.trainer.network.config
    flops = start.position_flops * run.trainer.positions
    write_json(
        log.with_name(PLAN),
        {
            "planned": {"memory_bytes": planned_bytes, "memory_parts": start.memory_parts, "seconds": planned_seconds},
            "actual": {
                "memory_bytes": actual_bytes,
                "seconds": actual_seconds,
                "watt_hours": list(energy),
                "energy_basis": basis,
                "flops": flops,
            },
            "error": {"memory": errors["memory_error"], "seconds": errors["time_error"]},
        },
    )
    note(
        home,
        {
            "raw_bytes": round(planned_bytes / start.memory_factor),
            "actual_bytes": actual_bytes,
            "planned_seconds": planned_seconds,
            "actual_seconds": actual_seconds,
            "flops": flops,
            "device": start.device,
            "width": int(shape["hidden_size"]),
            "layers": int(shape["num_hidden_layers"]),
            "length": length,
            "piece_tokens": start.piece_tokens,
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
        },
    )
    return errors
