"""With what a run was begun, and what it says and keeps when it goes on with something else."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from small_run import train_base
from test_model_kind import stopped_after

from wuxing.core.artifact import Artifact
from wuxing.core.context import Context
from wuxing.core.error import Interrupted
from wuxing.core.file import append_line, read_json, read_lines, write_json
from wuxing.train.plan.origin import made_with, passage, told
from wuxing.train.run import Run, keep_lines


def test_only_what_changed_since_the_last_passage_is_a_new_one() -> None:
    begun = {"torch": "1", "numpy": "1", "processes": "1"}
    first = passage(begun, [], 5, {"torch": "2", "numpy": "1", "processes": "1"})
    assert first == [{"after": 5, "changed": {"torch": ["1", "2"]}}]
    assert passage(begun, first, 7, {"torch": "2", "numpy": "1", "processes": "1"}) == []
    back = passage(begun, first, 9, {"torch": "1", "numpy": "1", "processes": "2", "more": "x"})
    assert back == [{"after": 9, "changed": {"processes": ["1", "2"], "torch": ["2", "1"]}}]
    assert told([]) == "the same throughout"
    assert told([*first, *back]) == "after step 5: torch 1 → 2; after step 9: processes 1 → 2, torch 2 → 1"


def test_a_passage_is_kept_through_later_kills(
    base: Artifact, world: dict[str, Artifact], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tmp_path / "base"
    here = made_with(torch.device("cpu"))
    for step in (5, 6):
        with monkeypatch.context() as patch, pytest.raises(Interrupted):
            train_base(directory, world, stopped_after(step, patch, tmp_path))
        if step == 5:
            start = read_json(directory / "start.json")
            assert start["made_with"] == here
            write_json(directory / "start.json", {**start, "made_with": {**here, "torch": "0.1"}})
    made = train_base(directory, world)
    assert made.record["failures"] == []
    assert read_json(directory / "training.json")["passages"] == [
        {"after": 5, "changed": {"torch": ["0.1", here["torch"]]}}
    ]
    assert made.evidence.value("made_with") == f"after step 5: torch 0.1 → {here['torch']}"
    assert base.evidence.value("made_with") == "the same throughout"


def test_a_log_is_cut_without_losing_or_doubling_a_line(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    for step in range(4):
        append_line(log, {"step": step})
    with log.open("a") as file:
        file.write('{"step": 4, "lo')  # cut short by a power failure
    keep_lines(log, lambda line: line["step"] < 9)
    append_line(log, {"step": 4})
    assert [line["step"] for line in read_lines(log)] == [0, 1, 2, 3, 4]
    keep_lines(log, lambda line: line["step"] < 2)
    assert [line["step"] for line in read_lines(log)] == [0, 1]
    keep_lines(log, lambda line: False)
    assert not log.exists()
    keep_lines(log, lambda line: True)


def test_a_rewound_run_that_rewinds_again_after_a_kill_logs_it_once(tmp_path: Path) -> None:
    """Killed after the mark was written anew and before what came after it was taken away."""
    from test_offers import SPIKED, run_of
    from test_trainer import flat, trainer

    from wuxing.train.save.checkpoint import Checkpoints
    from wuxing.train.update.guard import Guard

    mark, steps = SPIKED - 4, SPIKED + 12

    def start(name: str) -> Run:
        one = trainer(steps=steps, strange_at=SPIKED - 1)
        one.guard = Guard(spike="rewind", rewind_steps=mark)
        found = run_of(one, tmp_path / name, [1.0], times=1, save_every_seconds=0.0)
        found.checkpoints.asynchronous = False  # else a slow disk leaves no checkpoint behind the mark
        return found

    def never(self: Checkpoints, step: int) -> None:
        self.wait()
        raise KeyboardInterrupt

    straight = start("straight")
    straight.finish()
    killed = start("killed")
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Checkpoints, "forget_after", never)
        killed.finish()
    again = start("killed")
    assert again.resume()
    assert mark < again.trainer.done < SPIKED
    again.finish()
    assert torch.equal(flat(again.trainer), flat(straight.trainer))
    logs = [read_lines(tmp_path / name / "log.jsonl") for name in ("straight", "killed")]
    kept = [[(line["step"], line.get("loss"), line.get("rewound")) for line in lines] for lines in logs]
    assert kept[0] == kept[1]


def test_a_closed_terminal_stops_and_an_ignored_hangup_does_not() -> None:
    import os
    import signal

    context = Context()
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with context.stop.listening():
            os.kill(os.getpid(), signal.SIGHUP)
            assert not context.stop.requested
    finally:
        signal.signal(signal.SIGHUP, before)
