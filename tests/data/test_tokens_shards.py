"""Tokens in shards: any number of workers, kills, new versions, preferences, bounded memory, odd corpora."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wuxing.core.artifact import Artifact
from wuxing.core.context import Context
from wuxing.core.digest import digest_of_file
from wuxing.core.error import Interrupted, RefusedError, WuxingError
from wuxing.core.file import read_json
from wuxing.core.record import Record
from wuxing.core.splits import ROWS_PER_GROUP, write_records
from wuxing.core.step import Draft
from wuxing.core.store import Store
from wuxing.data import tokens_kind
from wuxing.data.pairs import open_pairs
from wuxing.data.tokens import open_tokens
from wuxing.data.tokens_kind import TokensKind
from wuxing.text.tokenizer import Tokenizer
from wuxing.text.train import train_tokenizer

WORDS = "river hill sea city engine island painter metal 五行 江湖 山水 12 + 7 = 19".split()  # noqa: SIM905
CONFIG = {"make": "tokens", "tokenizer": "vocabulary", "data": "corpus"}


def texts(count: int, seed: int = 0, words: int = 12) -> Iterator[Record]:
    source = random.Random(seed)
    for n in range(count):
        yield Record(f"text-{seed}-{n}", "s", text=" ".join(source.choices(WORDS, k=source.randint(0, words))))


def talks(count: int) -> Iterator[Record]:
    for n in range(count):
        messages = [{"role": "user", "content": f"river {n}?"}, {"role": "assistant", "content": f"sea {n}"}]
        yield Record(f"talk-{n}", "s", messages=messages)


def artifact(directory: Path, kind: str) -> Artifact:
    files = {path.name: {"sha256": "", "bytes": path.stat().st_size} for path in directory.iterdir()}
    return Artifact(directory, {"kind": kind, "name": kind, "version": 1, "content": directory.name, "files": files})


def corpus(directory: Path, train: list[Record], held_out: list[Record] | None = None) -> Artifact:
    directory.mkdir(parents=True)
    for split in ("train", "validation", "test"):
        write_records(directory, split, train if split == "train" else held_out or [])
    return artifact(directory, "corpus")


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    directory = tmp_path_factory.mktemp("made") / "vocabulary"
    directory.mkdir()
    train_tokenizer([" ".join(WORDS)] * 3, 320).save(directory)
    return artifact(directory, "tokenizer")


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """Three row groups, dialogues among the texts, so that there may be three shards."""
    records = list(texts(2 * ROWS_PER_GROUP)) + list(talks(2000))
    random.Random(3).shuffle(records)
    return corpus(tmp_path_factory.mktemp("large") / "corpus", records, list(texts(5, 9)))


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens_kind, "SHARD_BYTES", 1)


def make(path: Path, vocabulary: Artifact, data: Artifact, context: Context | None = None, **more: Any) -> Draft:
    path.mkdir(parents=True, exist_ok=True)
    draft = Draft(path, "tokens", "tokens", "0" * 64, 7)
    parents = {"tokenizer": vocabulary, "data": data}
    config = TokensKind.Config.model_validate({**CONFIG, **more})
    TokensKind().make(config, parents, draft, context or Context(home=path.parent, workers=1))
    assert draft.evidence.failures(TokensKind.required) == []
    return draft


def digests(directory: Path) -> dict[str, str]:
    return {str(p.relative_to(directory)): digest_of_file(p) for p in sorted(directory.rglob("*")) if p.is_file()}


def streams(directory: Path) -> list[bytes]:
    data = open_tokens(directory, "train")
    mask = b"" if data.mask is None else np.asarray(data.mask).tobytes()
    return [np.asarray(data.ids).tobytes(), mask, " ".join(data.names).encode(), data.start.tobytes()]


def test_workers_change_no_byte_and_shards_no_id(
    vocabulary: Artifact, large: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path / "whole", vocabulary, large)
    monkeypatch.setattr(tokens_kind, "SHARD_BYTES", 1)
    make(tmp_path / "one", vocabulary, large)
    monkeypatch.setattr(tokens_kind, "FEWEST_POOLED", 2)
    make(tmp_path / "three", vocabulary, large, Context(home=tmp_path, workers=3))
    assert digests(tmp_path / "one") == digests(tmp_path / "three")
    assert len(list((tmp_path / "one" / "train").glob("*.bin"))) == 3
    assert streams(tmp_path / "one") == streams(tmp_path / "whole")


def test_a_kill_makes_only_unfinished_shards_again(vocabulary: Artifact, large: Artifact, tmp_path: Path) -> None:
    """SIGKILL at random instants until it ends; a finished shard is never written again."""
    code = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import test_tokens_shards as t
t.tokens_kind.SHARD_BYTES = 1
t.make(Path(sys.argv[2]), t.artifact(Path(sys.argv[3]), "tokenizer"), t.artifact(Path(sys.argv[4]), "corpus"))
"""
    words = [str(Path(__file__).parent), str(tmp_path / "killed"), str(vocabulary.path), str(large.path)]
    written: dict[Path, int] = {}
    source, kills = random.Random(5), 0
    for _ in range(40):
        child = subprocess.Popen([sys.executable, "-c", code, *words])
        begun = time.monotonic()
        while not list((tmp_path / "killed").rglob(".*.draft")) and child.poll() is None:
            time.sleep(0.002)
            assert time.monotonic() - begun < 180
        if kills < 4:
            time.sleep(source.uniform(0, 0.15))
            child.kill()
            kills += 1
        ended = child.wait() == 0
        for note in (tmp_path / "killed").rglob("0*.json"):
            changed = note.with_suffix(".bin").stat().st_mtime_ns
            assert written.setdefault(note, changed) == changed
        if ended:
            break
    assert ended and kills
    make_small = Path(tmp_path / "never")
    subprocess.run([sys.executable, "-c", code, words[0], str(make_small), *words[2:]], check=True)
    assert digests(tmp_path / "killed") == digests(make_small)


def test_a_damaged_shard_is_made_again(
    vocabulary: Artifact, large: Artifact, tmp_path: Path, small_shards: None
) -> None:
    make(tmp_path / "a", vocabulary, large)
    expected = digests(tmp_path / "a")
    path = tmp_path / "a" / "train" / "00001.bin"
    path.write_bytes(path.read_bytes()[:-2])
    (tmp_path / "a" / "train" / "00002.parquet").unlink()
    make(tmp_path / "a", vocabulary, large)
    assert digests(tmp_path / "a") == expected


def test_a_stop_keeps_finished_shards(
    vocabulary: Artifact, large: Artifact, tmp_path: Path, small_shards: None
) -> None:
    context = Context(home=tmp_path, workers=1)
    context.stop.request()
    with pytest.raises(Interrupted, match="finished shards are kept"):
        make(tmp_path / "a", vocabulary, large, context)
    assert len(list((tmp_path / "a" / "train").glob("0*.json"))) == 1


def version(store: Store, vocabulary: Artifact, data: Artifact, number: int) -> tuple[Artifact, Draft]:
    config = TokensKind.Config.model_validate(CONFIG)
    with store.making("tokens", "t", str(number) * 64, 7, keep=True) as draft:
        TokensKind().make(config, {"tokenizer": vocabulary, "data": data}, draft, Context(home=store.home, workers=1))
        return store.sign(draft, {"failures": [], "parents": {}}), draft


def test_a_new_version_encodes_only_new_records(vocabulary: Artifact, tmp_path: Path) -> None:
    store = Store(tmp_path / "home")
    old = [*texts(300), *talks(100), *pairs(50)]
    first, draft = version(store, vocabulary, corpus(tmp_path / "c1", old), 1)
    assert "reused" not in draft.summary
    new = list(texts(40, 1))
    mixed = [*new[:20], *old, *new[20:]]
    random.Random(1).shuffle(mixed)
    second, draft = version(store, vocabulary, corpus(tmp_path / "c2", mixed), 2)
    documents = len(mixed) + 50
    fresh = make(tmp_path / "fresh", vocabulary, artifact(tmp_path / "c2", "corpus"))
    known = {record.text for record in old}
    assert draft.summary["reused"] == documents - sum(record.text not in known for record in new)
    theirs = digests(fresh.path)
    ours = {name: digest for name, digest in digests(second.path).items() if name in theirs}
    assert ours == theirs
    (first.path / "train" / "00000.bin").write_bytes(b"damaged")
    (second.path / "train" / "00000.bin").write_bytes(b"damaged")
    third, draft = version(store, vocabulary, corpus(tmp_path / "c3", mixed), 3)
    assert "reused" not in draft.summary and digests(third.path)["train/00000.bin"] == theirs["train/00000.bin"]


def pairs(count: int) -> Iterator[Record]:
    for n in range(count):
        asked = [{"role": "user", "content": f"hill {n}?"}]
        yield Record(f"pair-{n}", "s", messages=asked, chosen=f"city {n}", rejected="sea " * (n % 5) + "metal")


def test_preferences_leave_aligned_streams_and_come_in_pairs(vocabulary: Artifact, tmp_path: Path) -> None:
    liked = Record("liked", "s", messages=next(talks(1)).messages, liked=False)
    data = corpus(tmp_path / "c", [*texts(3), *pairs(20), liked, *talks(2)])
    made = make(tmp_path / "t", vocabulary, data)
    words = Tokenizer.load(vocabulary.path)
    better, worse = open_tokens(made.path, "train"), open_tokens(made.path, "train.rejected")
    assert (
        [better.names[i] for i in np.flatnonzero(better.pair)] == list(worse.names) == [f"pair-{n}" for n in range(20)]
    )
    assert better.liked.tolist() == [-1] * 23 + [0] + [-1] * 2
    both = open_pairs(made.path, "train", 64)
    assert both.rows == 20 and both.fates == {"kept": 20, "truncated": 0, "fully_masked": 0, "no_pair": 6}
    for row in (0, 7, 19):
        said = [words.decode(side.labels_T[side.labels_T >= 0].tolist()) for side in both[row]]
        assert said == [f"city {row}", ("sea " * (row % 5) + "metal").strip()]
        prompts = [side.tokens_T[side.labels_T < 0][:4].tolist() for side in both[row]]
        assert prompts[0] == prompts[1]
    from wuxing.data.source import PackedSource

    source = PackedSource({"p": both}, {"p": 1.0}, 7, step_rows=4, piece_rows=3, ahead=2)
    seen = [sample for _ in range(5) for piece in next(source) for sample in piece.sample_ids]
    assert seen == [n for n in range(20) for _ in range(2)]
    batch = source.batch([3])
    assert [int(t) for t in batch.tokens_BT[0]] != [int(t) for t in batch.tokens_BT[1]]
    short = open_pairs(made.path, "train", 12)
    assert (sum(short.fates.values()) == len(better) and short.rows < 20) or short.fates["truncated"]
    with pytest.raises(WuxingError, match="no preferences"):
        open_pairs(made.path, "validation", 64)


@pytest.mark.parametrize("records", [[], [Record("one", "s", text="")], [Record("one", "s", text="river")]])
def test_hardly_any_rows(vocabulary: Artifact, tmp_path: Path, records: list[Record]) -> None:
    held_out = list(texts(3))
    draft = make(tmp_path / "t", vocabulary, corpus(tmp_path / "c", records, held_out))
    data = open_tokens(draft.path, "train")
    assert len(data) == len(records) and len(data.ids) == 1 + int(data.tokens.sum())
    assert read_json(draft.path / "fates.json")["total"] == len(records) + 2 * len(held_out)


def test_a_hundred_thousand_empty_documents(vocabulary: Artifact, tmp_path: Path) -> None:
    started = time.process_time()
    records = [Record(str(n), "s", text="") for n in range(100_000)]
    data = corpus(tmp_path / "c", records, list(texts(2)))
    begun = time.process_time()
    draft = make(tmp_path / "t", vocabulary, data)
    assert len(open_tokens(draft.path, "train")) == 100_000
    assert time.process_time() - begun < 20 + (begun - started)


def test_pictures_are_refused_or_counted(vocabulary: Artifact, tmp_path: Path) -> None:
    picture = Record("p", "s", image=b"PNG")
    with pytest.raises(RefusedError, match="holds no text"):
        make(tmp_path / "a", vocabulary, corpus(tmp_path / "c", [picture]))
    draft = make(tmp_path / "b", vocabulary, corpus(tmp_path / "d", [picture, *texts(4)], list(texts(2))))
    assert read_json(draft.path / "fates.json")["counts"]["no_text"] == 1


def test_a_number_that_no_record_has_is_refused(vocabulary: Artifact, tmp_path: Path) -> None:
    data = corpus(tmp_path / "c", list(texts(4)))
    with pytest.raises(RefusedError, match='no record of .* has a number "qualty"'):
        make(tmp_path / "t", vocabulary, data, scores=["qualty"])


def test_a_corpus_of_another_format_is_named(tmp_path: Path) -> None:
    (tmp_path / "tokens.json").write_text(json.dumps({"splits": {"train": {}}}))
    with pytest.raises(WuxingError, match="another version of Wuxing"):
        open_tokens(tmp_path, "train")


def test_memory_does_not_grow_with_the_corpus(vocabulary: Artifact, tmp_path: Path) -> None:
    """The most that a process holds itself grows by less than a fifth with five times the text.

    Pages of mapped files are the system's: it keeps them as long as nobody needs the room.
    """
    code = """
import sys, threading, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import test_tokens_shards as t
t.tokens_kind.SHARD_BYTES = 8 << 20
most = 0
def watch():
    global most
    while True:
        line = next(line for line in open("/proc/self/status") if line.startswith("RssAnon"))
        most = max(most, int(line.split()[1]))
        time.sleep(0.002)
threading.Thread(target=watch, daemon=True).start()
t.make(Path(sys.argv[2]), t.artifact(Path(sys.argv[3]), "tokenizer"), t.artifact(Path(sys.argv[4]), "corpus"))
print(most)
"""
    peaks = []
    for times in (8, 40):  # from two whole shards on: with one the peak is not yet reached
        data = corpus(tmp_path / f"c{times}", list(texts(9000 * times, words=100)), list(texts(2)))
        words = [str(Path(__file__).parent), str(tmp_path / f"t{times}"), str(vocabulary.path), str(data.path)]
        done = subprocess.run(
            [sys.executable, "-c", code, *words], check=True, capture_output=True, text=True, env={**os.environ}
        )
        peaks.append(int(done.stdout))
    assert peaks[1] < 1.2 * peaks[0], peaks
