"""Logs in trackers, profiles and replays, as a user has them: a real recipe, the real command, the real trackers."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from small_run import sentences

from wuxing.core.error import UsageError, WuxingError
from wuxing.core.file import append_line
from wuxing.train.watch.mirror import Mirror, Subject, flat
from wuxing.train.watch.profile import kind_of
from wuxing.train.watch.tracker import make_tracker

Figures = dict[str, list[tuple[int, float]]]

RECIPE: dict[str, Any] = {
    "name": "watched",
    "seed": 3,
    "steps": {
        "text": {"make": "corpus", "sources": [{"files": "text.jsonl"}], "split": {"validation": 0.1, "test": 0.1}},
        "ids": {"make": "tokenizer", "corpus": "text", "vocab_size": 300},
        "small": {
            "make": "model",
            "architecture": {"size": "60k", "max_positions": 64},
            "tokenizer": "ids",
            "data": {"text": 1.0},
            "objective": "next_token",
            "length_tokens": 32,
            "batch_tokens": 128,
            "budget": {"steps": 8},
            "validation": {"times": 2, "tokens": 512},
        },
    },
}


def figures_in_tensorboard(place: Path) -> Figures:
    """Read back by TensorBoard itself."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (run,) = {path.parent for path in place.rglob("events.out.*")}
    events = EventAccumulator(str(run), size_guidance={"scalars": 0})
    events.Reload()
    return {tag: [(one.step, one.value) for one in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def wandb_records(content: bytes) -> Iterator[bytes]:
    """An offline file: 7 bytes, then LevelDB's log format, blocks of 32 KiB of pieces of (checksum, size, type)."""
    place, held = 7, b""
    while place + 7 <= len(content):
        room = 32768 - place % 32768
        if room < 7:
            place += room
            continue
        _, size, kind = struct.unpack("<IHB", content[place : place + 7])
        held += content[place + 7 : place + 7 + size]
        if len(content) < place + 7 + size:
            return  # still being written
        place += 7 + size
        if kind in (1, 4):  # whole, or the last piece
            yield held
            held = b""


def figures_in_wandb(place: Path) -> Figures:
    """Every record that an offline run would send."""
    from wandb.proto import wandb_internal_pb2

    found: Figures = defaultdict(list)
    for path in sorted(place.rglob("run-*.wandb")):
        ended = time.monotonic() + 30  # its own process may still be writing when `finish` returns
        while True:
            records = [wandb_internal_pb2.Record.FromString(raw) for raw in wandb_records(path.read_bytes())]
            if any(record.WhichOneof("record_type") == "exit" for record in records):
                break
            assert time.monotonic() < ended, "the file has no end"
            time.sleep(0.05)
        for record in records:
            if record.WhichOneof("record_type") != "history":
                continue
            items = {item.nested_key[0] if item.nested_key else item.key: item for item in record.history.item}
            step = int(json.loads(items["step"].value_json))
            for name, item in items.items():
                if name.startswith(("train/", "validation/")):
                    found[name].append((step, float(json.loads(item.value_json))))
    return dict(found)


def figures_in_mlflow(place: Path) -> Figures:
    """Asked of its client."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=place.resolve().as_uri())
    known = client.get_experiment_by_name("wuxing")
    assert known is not None
    (run,) = client.search_runs([known.experiment_id])
    return {
        name: [(one.step, one.value) for one in client.get_metric_history(run.info.run_id, name)]
        for name in run.data.metrics
    }


READERS: Mapping[str, Callable[[Path], Figures]] = {
    "tensorboard": figures_in_tensorboard,
    "wandb": figures_in_wandb,
    "mlflow": figures_in_mlflow,
}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    place = tmp_path / "run"
    place.mkdir()
    (place / "start.json").write_text('{"steps": 6, "checks": {"step_cut": 0.0}}')
    return place


def step(number: int, loss: float) -> dict[str, Any]:
    return {"step": number, "loss": loss, "seconds": 0.5, "tokens": 64}


def measured(number: int, value: float) -> dict[str, Any]:
    return {"step": number, "validation": {"bits_per_byte": value, "bits_per_byte/text": value}}


def follow(run: Path, to: str) -> int:
    """What a process does that is started anew each time."""
    subject = Subject("small", "0123456789abcdef")
    tracker = make_tracker(to, str(run.parent / to), "wuxing")
    mirror = Mirror(run, subject, tracker, run.parent / "state" / f"{to}.json")
    count = mirror.follow()
    mirror.end(False)
    return count


@pytest.mark.parametrize("to", READERS)
def test_each_line_arrives_once(run: Path, to: str) -> None:
    """A log that grows, is cut off by a resume, is written again, and goes back: each figure of the path once."""
    log = run / "log.jsonl"
    for line in (measured(0, 4.0), step(1, 3.5), step(2, 3.25)):
        append_line(log, line)
    with log.open("a") as half:
        half.write('{"step": 3, "los')  # killed in the middle of a line
    assert follow(run, to) == 4 and follow(run, to) == 0
    log.write_text("".join(json.dumps(line) + "\n" for line in (measured(0, 4.0), step(1, 3.5))))
    assert follow(run, to) == 0
    for line in (step(2, 3.25), step(3, 3.0), measured(3, 2.5)):
        append_line(log, line)
    append_line(run / "adjusted.jsonl", {"step": 3, "knob": "clip", "value": 0.5, "who": "me", "why": "leaps"})
    assert follow(run, to) == 3
    found = READERS[to](run.parent / to)
    assert found["train/loss"] == [(1, 3.5), (2, 3.25), (3, 3.0)]
    assert found["validation/bits_per_byte"] == [(0, 4.0), (3, 2.5)]
    split = "validation/bits_per_byte.text" if to == "mlflow" else "validation/bits_per_byte/text"
    assert found[split] == [(0, 4.0), (3, 2.5)]


def test_a_rewound_path_is_taken_back(run: Path) -> None:
    log = run / "log.jsonl"
    for line in (step(1, 3.5), step(2, 3.25), step(3, 9.0)):
        append_line(log, line)
    follow(run, "tensorboard")
    lines = [step(1, 3.5), {"step": 1, "rewound": {"step": 3, "records": ["a"]}}, step(2, 3.125), step(3, 3.0)]
    log.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert follow(run, "tensorboard") == 3 and follow(run, "tensorboard") == 0
    assert figures_in_tensorboard(run.parent / "tensorboard")["train/loss"] == [(1, 3.5), (2, 3.125), (3, 3.0)]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("comet", None, "wuxing"), "there is no tracker called"),
        (("tensorboard", "http://somewhere", "wuxing"), "writes into a directory"),
        (("mlflow", None, "wuxing", True), "contradict"),
    ],
)
def test_a_wrong_wish_is_one_line(given: tuple[Any, ...], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        make_tracker(*given)


def test_what_is_not_installed_is_named(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    append_line(run / "log.jsonl", step(1, 3.5))
    monkeypatch.setitem(sys.modules, "mlflow", None)  # as Python itself marks a module that is not there
    with pytest.raises(WuxingError, match="MLflow is not installed") as caught:
        follow(run, "mlflow")
    assert caught.value.remedy == "pip install 'wuxing[track]'"


def test_flat_and_kinds() -> None:
    assert flat({"a": {"b": 1, "c": None}, "d": [1, 2]}) == {"a.b": 1, "d": "[1, 2]"}
    known = {"aten::mm": "products", "aten::_softmax": "attention", "aten::copy_": "copies and casts"}
    assert {name: kind_of(name) for name in known} == known and kind_of("aten::mul_") == "element by element"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("watched")
    lines = [json.dumps({"text": text}) for text in sentences(5, 200)]
    (place / "text.jsonl").write_text("\n".join(lines) + "\n")
    (place / "recipe.yaml").write_text(yaml.safe_dump(RECIPE, sort_keys=False))
    return place


def wuxing(world: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "WUXING_HOME": str(world / "store")}
    command = [sys.executable, "-m", "wuxing", *words]
    return subprocess.run(command, cwd=world, env=environment, capture_output=True, text=True, timeout=240)


@pytest.fixture(scope="module")
def made(world: Path) -> Iterator[Path]:
    done = wuxing(world, "run", "recipe.yaml", "--track", "tensorboard:events")
    assert done.returncode == 0, done.stderr
    yield world


def test_a_run_is_mirrored_while_it_runs(made: Path) -> None:
    """Every figure of the log, though the run was shorter than the mirror's first look; later, nothing twice."""
    log = [json.loads(line) for line in (made / "store/model/small/v1/log.jsonl").read_text().splitlines()]
    found = figures_in_tensorboard(made / "events")
    losses = [(line["step"], pytest.approx(line["loss"], rel=1e-6)) for line in log if "loss" in line]
    assert found["train/loss"] == losses and len(losses) == 8
    assert [place for place, _ in found["validation/bits_per_byte"]] == [0, 4, 8]
    again = wuxing(made, "track", "small", "--to", "tensorboard", "--into", "events", "--json")
    assert json.loads(again.stdout) == {"small": 0}
    lost = wuxing(made, "track", "large", "--to", "tensorboard")
    assert lost.returncode == 1 and lost.stderr.count("\n") == 1 and "nothing was trained here as large" in lost.stderr


def test_where_the_time_goes(made: Path) -> None:
    """Parts add up to the step; the trace opens; the store is as it was; a recipe and a model give the same parts."""
    before = {path: path.stat().st_mtime_ns for path in (made / "store/model").rglob("*")}
    done = wuxing(made, "profile", "recipe.yaml", "--steps", "2", "--trace", "trace.json", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert set(found["parts"]) == {"data", "blocks", "loss", "backward", "optimizer", "rest"}
    assert all(found["parts"][part] > 0 for part in ("blocks", "loss", "backward", "optimizer"))
    assert found["kinds"]["products"] > 0 and found["operations"][0]["milliseconds"] > 0
    assert found["tokens_per_second"] > 0 and found["gflops"] > 0
    names = {event.get("name") for event in json.loads((made / "trace.json").read_text())["traceEvents"]}
    assert "aten::mm" in names
    text = wuxing(made, "profile", "small", "--steps", "1")
    assert text.returncode == 0 and "part of a step" in text.stdout and "USDT" not in text.stderr
    assert {path: path.stat().st_mtime_ns for path in (made / "store/model").rglob("*")} == before
    wrong = wuxing(made, "profile", "recipe.yaml", "large")
    assert wrong.returncode == 2 and 'has no model called "large". It has small' in wrong.stderr
    nowhere = wuxing(made, "profile", "small", "--trace", "none/trace.json")
    assert nowhere.returncode == 1 and "the directory none is not there" in nowhere.stderr


def test_a_trained_model_is_replayed_by_the_command(made: Path) -> None:
    done = wuxing(made, "verify", "small", "--replay", "3", "--json")
    assert done.returncode == 0 and json.loads(done.stdout)["same"], done.stdout + done.stderr
