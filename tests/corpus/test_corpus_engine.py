"""The corpus engine: what is reused, what is made again, and that nobody sees a difference."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq
import pytest

from wuxing.core.context import Context
from wuxing.core.digest import digest_of_file
from wuxing.core.error import WuxingError
from wuxing.core.step import Draft
from wuxing.corpus.config import CorpusConfig
from wuxing.corpus.engine import plan as planning
from wuxing.corpus.engine.cache import ShardCache, remove_unused, unused
from wuxing.corpus.engine.executor import Setup, execute
from wuxing.corpus.engine.make import clean
from wuxing.corpus.kind import CorpusKind
from wuxing.source import open_source

CLEAN = ["repair", "normalise", {"quality": {"min_words": 20}}, "repetition", "privacy"]
Changes = Callable[[Path], None]


@pytest.fixture(scope="session")
def rows(data_directory: Path) -> list[str]:
    with gzip.open(data_directory / "text" / "wikipedia-leads-en.jsonl.gz", "rt", encoding="utf-8") as lines:
        return [line for line, _ in zip(lines, range(600), strict=False)]


@pytest.fixture
def folder(tmp_path: Path, rows: list[str]) -> Path:
    """Twelve files of real leads, with copies, near copies and broken lines among them."""
    place = tmp_path / "source"
    place.mkdir()
    for number in range(12):
        mine = rows[50 * number : 50 * number + 50]
        mine += rows[50 * number - 3 : 50 * number]  # the end of the file before, again
        near = json.loads(rows[40 * number])
        mine += [json.dumps({**near, "text": near["text"] + " A last word."}) + "\n", '{"text": "cut\n']
        (place / f"{number:02}.jsonl").write_text("".join(mine))
    return place


def configured(folder: Path, **changes: Any) -> CorpusConfig:
    source = {"files": str(folder), "fields": {"text": "text", "meta": ["title"]}, "license": "CC-BY-SA-4.0"}
    split = {"validation": 0.1, "test": 0.1}
    near = {"near_jaccard": 0.7}
    config = {"make": "corpus", "sources": [source], "clean": CLEAN, "split": split, "duplicates": near, **changes}
    return CorpusConfig.model_validate(config)


def made(config: CorpusConfig, place: Path, cache: Path, **options: Any) -> tuple[dict[str, str], str]:
    """The digests of all files of a corpus but `shards.json`, and how many shards were reused."""
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    draft = Draft(place, "corpus", "x", "0" * 64, 7)
    CorpusKind().make(config, {}, draft, Context(home=place, cache=cache, **options))
    assert draft.evidence.failures(CorpusKind.required) == []
    files = {p.relative_to(place).as_posix(): digest_of_file(p) for p in place.rglob("*") if p.is_file()}
    del files["shards.json"]
    return files, draft.summary["shards"]


@pytest.fixture
def small_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every file is a task of its own."""
    monkeypatch.setattr(planning, "TASK_PARTS", 1)


def test_the_cut_into_tasks_and_workers_changes_no_byte(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configured(folder)
    truth, _ = made(config, tmp_path / "out", tmp_path / "cache")
    assert len(truth) >= 12
    for parts in (1, 5):
        monkeypatch.setattr(planning, "TASK_PARTS", parts)
        again, said = made(config, tmp_path / "out", tmp_path / f"cache-{parts}")
        assert again == truth and said == f"0 of {-(-12 // parts)} reused"
    workers, _ = made(configured(folder, workers=2), tmp_path / "out", tmp_path / "cache-workers")
    assert workers == truth


def test_big_files_are_cut_and_the_cut_changes_no_byte(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = folder / "00.jsonl"
    for path in sorted(folder.glob("*.jsonl"))[1:]:
        with whole.open("a") as file:
            file.write(path.read_text())
        path.unlink()
    truth, _ = made(configured(folder), tmp_path / "out", tmp_path / "cache")
    monkeypatch.setattr(planning, "STRETCH_BYTES", 50_000)
    monkeypatch.setattr("wuxing.source.format.cut.cut.__defaults__", (50_000,))
    monkeypatch.setattr(planning, "TASK_BYTES", 60_000)
    again, said = made(configured(folder), tmp_path / "out", tmp_path / "cache-2")
    assert again == truth
    assert int(said.split()[2]) > 3


def test_new_files_are_the_only_ones_that_are_cleaned(
    folder: Path, tmp_path: Path, rows: list[str], small_tasks: None
) -> None:
    config, cache = configured(folder), tmp_path / "cache"
    made(config, tmp_path / "out", cache)
    (folder / "05b.jsonl").write_text(rows[599].upper() + '{"text": null}\n')
    (folder / "zz.jsonl").write_text(json.dumps({"title": "new", "text": "A new text stands here. " * 20}) + "\n")
    updated, said = made(config, tmp_path / "out", cache)
    assert said == "12 of 14 reused"
    fresh, said = made(config, tmp_path / "out", tmp_path / "other")
    assert said == "0 of 14 reused"
    assert updated == fresh
    assert made(config, tmp_path / "out", cache) == (fresh, "14 of 14 reused")


def test_small_files_share_a_shard_that_stays_when_files_are_added(
    folder: Path, tmp_path: Path, rows: list[str]
) -> None:
    config, cache = configured(folder), tmp_path / "cache"
    assert made(config, tmp_path / "out", cache)[1] == "0 of 1 reused"
    for number in range(12):
        (folder / f"{number:02}-new.jsonl").write_text(rows[599 - number].replace("the", "THE"))
    updated, said = made(config, tmp_path / "out", cache)
    assert said == "1 of 2 reused"
    assert updated == made(config, tmp_path / "out", tmp_path / "other")[0]
    (folder / "03.jsonl").unlink()
    assert made(config, tmp_path / "out", cache)[0] == made(config, tmp_path / "out", tmp_path / "third")[0]


def test_only_what_decides_a_shard_makes_it_new(folder: Path, tmp_path: Path, small_tasks: None) -> None:
    cache = tmp_path / "cache"
    made(configured(folder), tmp_path / "out", cache)
    for same in (
        {"duplicates": {"near_jaccard": 0.9}},
        {"duplicates": {"near_jaccard": 0.7, "exact": False}},
        {"split": {"validation": 0.2, "test": 0}},
        {"workers": 1},
    ):
        place, files = tmp_path / "out", configured(folder, **same)
        shutil.rmtree(place)
        place.mkdir()
        draft = Draft(place, "corpus", "x", "0" * 64, 7)
        CorpusKind().make(files, {}, draft, Context(home=place, cache=cache))
        assert draft.summary["shards"] == "12 of 12 reused", same
    assert made(configured(folder, clean=CLEAN[:-1]), tmp_path / "out", cache)[1] == "0 of 12 reused"
    assert made(configured(folder, dropped_samples=3), tmp_path / "out", cache)[1] == "0 of 12 reused"


@pytest.mark.parametrize("harm", ["cut", "flip", "empty", "foreign"])
def test_a_damaged_shard_is_made_again(folder: Path, tmp_path: Path, small_tasks: None, harm: str) -> None:
    config, cache = configured(folder), tmp_path / "cache"
    truth, _ = made(config, tmp_path / "out", cache)
    path = sorted(cache.rglob("*.shard"))[4]
    raw = bytearray(path.read_bytes())
    raw[len(raw) * 2 // 3] ^= 4
    harmed = {"cut": bytes(raw[: len(raw) // 2]), "flip": bytes(raw), "empty": b"", "foreign": b"PAR1" * 100}
    path.write_bytes(harmed[harm])
    assert made(config, tmp_path / "out", cache) == (truth, "11 of 12 reused")
    assert made(config, tmp_path / "out", cache) == (truth, "12 of 12 reused")


def test_a_file_that_cannot_be_read_is_tried_again(folder: Path, tmp_path: Path, small_tasks: None) -> None:
    whole = (folder / "03.jsonl").read_bytes()
    (folder / "03.jsonl").unlink()
    (folder / "03.jsonl.gz").write_bytes(gzip.compress(whole)[:-900])
    config = configured(folder)
    first, _ = made(config, tmp_path / "out", tmp_path / "cache")
    assert made(config, tmp_path / "out", tmp_path / "cache") == (first, "11 of 12 reused")


def test_a_file_that_changes_or_vanishes_while_it_is_read_ends_in_one_line(folder: Path, tmp_path: Path) -> None:
    config = configured(folder)
    context, cache = Context(home=tmp_path, cache=tmp_path / "cache"), ShardCache(tmp_path / "cache" / "shards")
    origins = [open_source(config.sources[0], context)]

    def planned() -> Any:
        found = planning.plan(config, origins, cache, None, context)
        return Setup(config, tuple(found.settings), None, tmp_path, tmp_path, cache.directory), found.tasks

    setup, tasks = planned()
    with (folder / "07.jsonl").open("a") as file:
        file.write('{"text": "grown"}\n')
    with pytest.raises(WuxingError, match=r"source: 07.jsonl changed while it was being read. Type the same command"):
        list(execute(setup, tasks, context, 1))
    setup, tasks = planned()
    (folder / "07.jsonl").unlink()
    with pytest.raises(WuxingError, match=r"source: 07.jsonl vanished while it was being read"):
        list(execute(setup, tasks, context, 1))
    assert not list(cache.directory.rglob("*.shard"))


def heavy(folder: Path, times: int = 8) -> None:
    """Each file large enough that its cleaning takes a moment."""
    for path in folder.glob("*.jsonl"):
        lines = [json.loads(line) for line in path.read_text().splitlines()[:-1]]
        with path.open("w") as file:
            for turn in range(times):
                file.writelines(json.dumps({**line, "text": f"{turn} {line['text']}"}) + "\n" for line in lines)


def workers_of(parent: int) -> list[psutil.Process]:
    return [p for p in psutil.Process(parent).children(recursive=True) if "spawn_main" in command_of(p)]


def command_of(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:  # it has ended since it was listed
        return ""


def test_a_killed_worker_is_replaced(folder: Path, tmp_path: Path, small_tasks: None) -> None:
    """SIGKILL, as the kernel does when memory runs out: what was under way runs again, and nothing is lost."""
    heavy(folder)
    killed: list[int] = []

    def kill_one() -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and not killed:
            if list((tmp_path / "cache").rglob("*.shard")) and (there := workers_of(os.getpid())):
                killed.append(there[0].pid)
                there[0].kill()
            time.sleep(0.01)

    watcher = threading.Thread(target=kill_one)
    watcher.start()
    survived, _ = made(configured(folder, workers=2), tmp_path / "out", tmp_path / "cache")
    watcher.join()
    assert killed
    assert survived == made(configured(folder), tmp_path / "out", tmp_path / "other")[0]


def test_a_worker_that_is_killed_twice_ends_in_one_line(folder: Path, tmp_path: Path) -> None:
    heavy(folder)
    done = threading.Event()

    def kill_all() -> None:
        while not done.is_set():
            for worker in workers_of(os.getpid()):
                with suppress(psutil.NoSuchProcess):
                    worker.kill()
            time.sleep(0.05)

    watcher = threading.Thread(target=kill_all)
    watcher.start()
    try:
        with pytest.raises(WuxingError, match=r"that cleans source/00.jsonl.* was killed twice; memory may have run"):
            made(configured(folder, workers=2), tmp_path / "out", tmp_path / "cache")
    finally:
        done.set()
        watcher.join()


PROGRAM = """
import json, sys
from pathlib import Path
from wuxing.core.context import Context
from wuxing.core.step import Draft
from wuxing.corpus.engine import plan
from wuxing.corpus.kind import CorpusKind
plan.TASK_PARTS = 1
place = Path(sys.argv[2])
config = CorpusKind.Config.model_validate_json(sys.argv[1])
CorpusKind().make(config, {}, Draft(place, "corpus", "x", "0" * 64, 7), Context(home=place, cache=Path(sys.argv[3])))
"""


def begin(config: CorpusConfig, place: Path, cache: Path, **options: Any) -> subprocess.Popen[str]:
    place.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-c", PROGRAM, config.model_dump_json(exclude_defaults=True), str(place), str(cache)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, **options)


def test_a_killed_run_cleans_only_what_was_not_done(folder: Path, tmp_path: Path, small_tasks: None) -> None:
    heavy(folder)
    cache = tmp_path / "cache"
    process = begin(configured(folder), tmp_path / "killed", cache)
    while len(list(cache.rglob("*.shard"))) < 4:
        assert process.poll() is None
        time.sleep(0.005)
    process.kill()
    process.communicate()
    kept = len(list(cache.rglob("*.shard")))
    planning.code_digest.cache_clear()  # somebody may be editing the code since this process began
    again, said = made(configured(folder), tmp_path / "out", cache)
    assert said == f"{kept} of 12 reused" and 4 <= kept < 12
    assert again == made(configured(folder), tmp_path / "out", tmp_path / "other")[0]


def test_two_runs_at_once_share_a_cache(folder: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    both = [begin(configured(folder), tmp_path / name, cache) for name in ("a", "b")]
    assert [process.communicate()[1] for process in both] == ["", ""]
    digests = []
    for name in ("a", "b"):
        files = [p for p in (tmp_path / name).iterdir() if p.is_file()]
        digests.append({p.name: digest_of_file(p) for p in files})
    assert digests[0] == digests[1]
    assert not list(cache.rglob("*.tmp"))


def test_a_full_disk_is_one_line_and_the_next_run_goes_on(folder: Path, tmp_path: Path, small_tasks: None) -> None:
    """RLIMIT_FSIZE stands for a full disk: a write fails in the middle of a file."""
    import resource

    def little_room() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    config, cache = configured(folder), tmp_path / "cache"
    process = begin(config, tmp_path / "full", cache, preexec_fn=little_room)
    said = process.communicate()[1]
    assert process.returncode and "OSError" in said.splitlines()[-1] and "File too large" in said
    assert all(path.suffix != ".tmp" for path in cache.rglob("*"))
    assert made(config, tmp_path / "out", cache)[0] == made(config, tmp_path / "out", tmp_path / "other")[0]


def test_shards_that_nothing_is_made_of_can_go(folder: Path, tmp_path: Path, small_tasks: None) -> None:
    cache = tmp_path / "cache"
    made(configured(folder, clean=CLEAN[:2]), tmp_path / "old", cache)
    made(configured(folder), tmp_path / "new", cache)
    used = {name: set(shards) for name, shards in json.loads((tmp_path / "new" / "shards.json").read_text()).items()}
    spare = unused(cache / "shards", used)
    assert len(spare) == 12
    with ShardCache(cache / "shards").reading(), pytest.raises(WuxingError, match="is being made from the shards"):
        remove_unused(cache / "shards", used)
    assert remove_unused(cache / "shards", used) == sum(size for _, size in spare)
    assert made(configured(folder), tmp_path / "new", cache)[1] == "12 of 12 reused"


def test_what_the_summary_says_is_what_was_done(folder: Path, tmp_path: Path, small_tasks: None) -> None:
    """Counted apart from the cache: the tasks that reach a worker."""
    config, context = configured(folder), Context(home=tmp_path, cache=tmp_path / "cache")
    cache = ShardCache(tmp_path / "cache" / "shards")
    origins = [open_source(config.sources[0], context)]
    assert clean(config, origins, cache, None, context)[1] == "0 of 12 reused"
    (folder / "new.jsonl").write_text('{"title": "t", "text": "x"}\n')
    origins = [open_source(config.sources[0], context)]
    tasks = planning.plan(config, origins, cache, None, context).tasks
    assert [part.blob.name for task in tasks for part in task.parts] == ["new.jsonl"]


def test_statistics_and_samples_say_what_happened(folder: Path, tmp_path: Path) -> None:
    made(configured(folder), tmp_path / "out", tmp_path / "cache")
    found = json.loads((tmp_path / "out" / "statistics.json").read_text())
    fates = pq.read_table(tmp_path / "out" / "fates.parquet").column("fate").value_counts().to_pylist()
    assert found["fates"] == {item["values"]: item["counts"] for item in fates}
    assert sum(found["fates"].values()) == found["rows"] == 12 * 52 + 11 * 3
    reached = [step["records"] - sum(step["dropped"].values()) for step in found["steps"]]
    assert reached[:-1] == [step["records"] for step in found["steps"]][1:]
    duplicates = found["duplicates"]
    assert duplicates["exact"]["dropped"] == found["fates"]["duplicate"] >= 33
    assert duplicates["near"]["dropped"] == found["fates"]["near_duplicate"]
    assert sum(split["records"] for split in found["splits"].values()) == found["kept"]
    card = json.loads((tmp_path / "out" / "card.json").read_text())
    assert found["splits"]["train"]["characters"] == card["sizes"]["train"]["characters"]
    words = found["steps"][2]["measures"]["words"]
    assert words["count"] == found["steps"][2]["records"] == sum(words["counts"])
    dropped = pq.read_table(tmp_path / "out" / "dropped.parquet").to_pylist()
    assert {row["fate"] for row in dropped} == set(found["fates"]) - {"kept", "duplicate"}
