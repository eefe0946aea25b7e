"""How a run is shown: from its files alone, at any moment, with what strangers wrote shown as text."""

from __future__ import annotations

import io
import statistics
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest
from rich.console import Console

from wuxing.commands.progress import dashboard
from wuxing.core.artifact import Artifact
from wuxing.core.error import WuxingError
from wuxing.core.file import append_line, read_json, read_lines
from wuxing.core.lease import is_held, lease
from wuxing.page.render import loaded_things
from wuxing.train.plan.budget import Start
from wuxing.train.watch.left import run_left, stretches, time_left
from wuxing.train.watch.page import TEXTS, clock, run_page
from wuxing.train.watch.view import CURVES, braille, find_run, lost_processes, view


def test_a_finished_run_is_what_its_files_say(base: Artifact) -> None:
    found, training = view(base.path, "base", gflops=1000.0), read_json(base.path / "training.json")
    lines = [line for line in read_lines(base.path / "log.jsonl") if "loss" in line]
    assert (found.state, found.step, found.steps, found.left) == ("finished", 24, 24, None)
    assert [step for step, _ in found.measured] == [line["step"] for line in training["validation"]]
    seconds = sum(line["seconds"] for line in lines)
    assert found.tokens_per_second == pytest.approx(sum(line["tokens"] for line in lines) / seconds)
    start = read_json(base.path / "start.json")
    assert found.utilisation == pytest.approx(found.tokens_per_second * start["position_flops"] / 1e12)
    assert 0 <= found.waited < 1 and found.curves["loss"] == [(line["step"], line["loss"]) for line in lines]


def test_a_run_is_running_while_its_lease_is_held_and_stopped_after(base: Artifact, tmp_path: Path) -> None:
    import shutil

    draft = tmp_path / "base" / ".partial-0"
    shutil.copytree(base.path, draft)
    (draft / "finished.json").unlink()
    append_line(draft / "adjusted.jsonl", {"step": 9, "knob": "steps", "value": 40, "who": "a", "why": "b", "time": ""})
    assert view(draft, "base").state == "stopped"
    with lease(tmp_path / "base" / ".lease", "model/base"):
        found = view(draft, "base")
    assert (found.state, found.steps) == ("running", 40) and found.left is not None and found.left[0] < found.left[1]
    assert not is_held(tmp_path / "base" / ".lease") and not is_held(tmp_path / "nothing")
    assert find_run(tmp_path / "base", [draft]) == draft
    with pytest.raises(WuxingError, match="no model called base"):
        find_run(tmp_path / "base", [])
    with pytest.raises(WuxingError, match="no log yet"):
        view(tmp_path, "base")


def test_the_time_left_holds_what_the_steps_say() -> None:
    steady = time_left([2.0] * 50, 10)
    assert steady == pytest.approx((20.0, 20.0))
    uneven = [1.0 if number % 10 < 5 else 3.0 for number in range(50)]
    low, high = time_left(uneven, 10)
    block = (2 + 4 / 9) * statistics.stdev([1.0, 3.0] * 5)  # of ten blocks; ten steps to come are two more
    wide = 10 * block * (1 / 10 + 1 / 2) ** 0.5
    assert (low, high) == pytest.approx((max(0.0, 20 - wide), 20 + wide))
    assert time_left([2.0], 10) == pytest.approx((20 - (10**2 + 50) ** 0.5, 20 + (10**2 + 50) ** 0.5))
    assert time_left(uneven, 0) == (0.0, 0.0)


def clocked(start: Start, seconds: Callable[[float], float], noise: Random, steps: int, looks: int) -> list[Any]:
    """The log of a run whose steps take what their arithmetic says, with a machine that is 10 % uneven."""
    lines: list[Any] = [{"step": 0, "validation": {"b": 1.0}, "seconds": 0.5}]
    for step in range(1, steps + 1):
        work = next(part.work for part in stretches(start) if part.first < step <= part.last)
        lines.append({"step": step, "loss": 1.0, "seconds": seconds(work) * noise.uniform(0.9, 1.1)})
        if step % (steps // looks) == 0:
            lines.append({"step": step, "validation": {"b": 1.0}, "seconds": 0.5 * noise.uniform(0.9, 1.1)})
    return lines


RAMPED = {"stages": [[0, 2, 4], [40, 4, 2], [160, 8, 1]], "attention_share": 0.2, "measurements": 5}
"""20 steps of 2 rows in quarters, 30 of 4 in halves, then 8 whole ones."""


@pytest.mark.parametrize("fixed", [0.0, 0.2, 0.5])
def test_the_time_left_of_steps_that_grow_holds_the_true_end(base: Artifact, fixed: float) -> None:
    """Runs of 120 steps whose end is known; the part of a step that does not grow is nothing, a fifth or half of the
    first steps' time.  Steps counted alike would promise a third of the time at step 15."""
    start = Start(**{**read_json(base.path / "start.json"), **RAMPED})
    assert [(part.first, part.last) for part in stretches(start)] == [(0, 20), (20, 50), (50, float("inf"))]
    works = [part.work for part in stretches(start)]
    assert works == pytest.approx([2 * 0.85, 4 * 0.9, 8])
    held, wide = [], []
    for seed in range(20):
        lines = clocked(start, lambda w: fixed + (1 - fixed) * w / works[0], Random(seed), 120, 4)
        for at in (6, 15, 24, 45, 60, 90, 115):
            cut = next(place for place, line in enumerate(lines) if "loss" in line and line["step"] == at) + 1
            rest = sum(line["seconds"] for line in lines[cut:])
            found = run_left(lines[:cut], start, 120)
            assert found is not None
            held.append(found[0] <= rest <= found[1])
            wide.append((at, (found[1] - found[0]) / rest))
            counted = time_left([line["seconds"] for line in lines[:cut] if "loss" in line], 120 - at)
            assert at != 15 or counted[1] < 0.75 * rest
    assert sum(held) >= 0.9 * len(held), sum(held) / len(held)
    assert max(width for at, width in wide if at >= 90) < 0.3  # all sizes seen: the machine's noise alone
    assert run_left(lines[:1], start, 120) is None
    assert run_left(lines, start, 120) == (0.0, 0.0)


def test_who_was_lost_and_what_became_of_it(base: Artifact, tmp_path: Path) -> None:
    torchrun = "restart 1 by torchrun"
    lines = [{"step": 4, "lost": "rank 1 (a)", "processes": 2}, {"step": 9, "lost": torchrun, "processes": 4}]
    attempts = [{"attempt": 1}, {"lost": "rank 1 (a)"}, {"attempt": 2}, {"lost": "rank 0 (b)"}]
    found = lost_processes(lines, attempts)
    assert [(line["who"], line["step"], line["processes"], line["replaced"]) for line in found] == [
        (torchrun, 9, 4, True),
        ("rank 1 (a)", 4, 2, True),
        ("rank 0 (b)", None, None, False),
    ]
    assert lost_processes([], [*attempts[3:], {"attempt": 3}])[0]["replaced"]
    shown = view(base.path, "base")
    assert shown.lost == []
    shown.lost = [{**found[1], "who": "rank 1 (<b>, process 7) was ended by SIGKILL"}, found[2]]
    page = run_page(shown)
    assert "rank 1 (&lt;b&gt;, process 7) was ended by SIGKILL; 2 processes went on" in page
    assert "rank 0 (b); the same command goes on from the last save" in page
    console = Console(record=True, width=100, file=io.StringIO())
    console.print(dashboard(shown))
    text = " ".join(console.export_text().replace("│", " ").split())
    assert "SIGKILL: 2 processes went on after step 4" in text
    assert "rank 0 (b): the same command goes on from the last save" in text


def test_dots_lie_where_the_values_are() -> None:
    """Each column's dots, read back, hold the line's value there to within a dot."""
    points = [(float(x), float((x - 30) ** 2)) for x in range(61)]
    columns, rows = 40, 6
    drawn = braille(points, columns, rows)
    assert len(drawn) == rows and all(len(line) == columns for line in drawn)
    marks = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
    for column in range(2 * columns):
        x = column / (2 * columns - 1) * 60
        expected = (900 - (x - 30) ** 2) / 900 * (4 * rows - 1)
        lit = [
            row for row in range(4 * rows) if (ord(drawn[row // 4][column // 2]) - 0x2800) & marks[row % 4][column % 2]
        ]
        assert lit and min(abs(row - expected) for row in lit) <= 1.5
    assert braille([], 5, 2) == ["", ""] and braille([(0.0, 1.0)], 2, 1) != ["⠀⠀"]


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_page_shows_everything_and_runs_nothing(base: Artifact, language: str) -> None:
    found = view(base.path, "base")
    found.leaps = [{"step": 7, "records": ["<script>alert(1)</script>"]}]
    found.adjustments = [{"step": 9, "knob": "clip", "value": 0.5, "who": "<b>", "why": "&", "time": ""}]
    page = run_page(found, language)
    assert "<script>alert" not in page and "&lt;script&gt;" in page and "&lt;b&gt;" in page
    assert loaded_things(page) == [] and "refresh" not in page
    place = ("en", "zh").index(language)
    assert all(TEXTS[key][place] in page for key in CURVES if found.curves[key])
    row = page[page.rindex("<tr", 0, page.index("&lt;b&gt;")) : page.index("&lt;b&gt;")]
    assert ">10<" in row  # the step from which on it holds, as the terminal says
    found.state, found.left = "running", (61.0, 3723.0)
    assert 'http-equiv="refresh"' in run_page(found, language, renew=True) and "1:02:03" in run_page(found)
    assert clock(5) == "0:05"
