"""How a run is shown: from its files alone, at any moment, with what strangers wrote shown as text."""

from __future__ import annotations

import statistics
from pathlib import Path

import pytest

from wuxing.core.artifact import Artifact
from wuxing.core.error import WuxingError
from wuxing.core.file import append_line, read_json, read_lines
from wuxing.core.lease import is_held, lease
from wuxing.page.render import loaded_things
from wuxing.train.watch.page import TEXTS, clock, run_page
from wuxing.train.watch.view import CURVES, braille, find_run, time_left, view


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
    error = statistics.stdev([1.0, 3.0] * 5) / 10**0.5
    assert (low, high) == pytest.approx((20 - 20 * error, 20 + 20 * error))
    assert time_left([2.0], 10) == pytest.approx((0.0, 40.0))
    assert time_left(uneven, 0) == (0.0, 0.0)


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
    found.state, found.left = "running", (61.0, 3723.0)
    assert 'http-equiv="refresh"' in run_page(found, language, renew=True) and "1:02:03" in run_page(found)
    assert clock(5) == "0:05"
