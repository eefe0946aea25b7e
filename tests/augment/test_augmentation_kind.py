"""The step `augmentation`: pure, recorded, held-out splits untouched; seeded faults; a model's paraphrases."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from random import Random
from typing import Any, ClassVar

import pyarrow.parquet as pq
import pytest
from small_corpus import corpus_of, digits, fashion, sentiment

from wuxing.augment.augmentation import Augmentation
from wuxing.augment.config import AugmentationConfig, OperationsConfig
from wuxing.augment.evidence import examine
from wuxing.augment.kind import AugmentationKind
from wuxing.augment.worker import draw, prepare
from wuxing.core.artifact import Artifact
from wuxing.core.context import Context
from wuxing.core.digest import digest_of_file
from wuxing.core.error import WuxingError
from wuxing.core.evidence import Evidence
from wuxing.core.record import Drop, Fates, Record
from wuxing.core.splits import read_records, write_records

Make = Callable[..., Artifact]
PICTURES = ["flip", "rotate", "crop", "colour_jitter", {"mixup": {"share": 0.3}}, {"cutmix": {"share": 0.3}}]
SOUNDS = ["time_shift", "noise", "time_mask", "frequency_mask", "speed"]
WORDS = ["typos", "deletion", "swap", {"mask": {"share": 0.3}}, {"template": {"templates": ["{text}", "So: {text}"]}}]


def made(make_step: Make, data: Artifact, steps: list[Any], **config: Any) -> Artifact:
    context = config.pop("context", None)
    artifact = make_step(AugmentationKind(), {"data": "x", "steps": steps, **config}, {"data": data}, context=context)
    assert not artifact.failures, artifact.failures
    return artifact


def files_of(directory: Path) -> dict[str, str]:
    paths = [path for path in directory.rglob("*") if path.is_file()]
    return {str(path.relative_to(directory)): digest_of_file(path) for path in paths}


@pytest.fixture
def films(data_directory: Path, tmp_path: Path) -> Artifact:
    records = sentiment(data_directory, count=300)
    return corpus_of(tmp_path / "films", records[:200], records[200:250], records[250:])


@pytest.fixture
def clothes(data_directory: Path, tmp_path: Path) -> Artifact:
    return corpus_of(tmp_path / "clothes", fashion(data_directory, "train", 60), fashion(data_directory, "test", 20))


@pytest.fixture
def numbers(data_directory: Path, tmp_path: Path) -> Artifact:
    records = digits(data_directory)[::20]
    return corpus_of(tmp_path / "numbers", records[:40], records[40:])


@pytest.mark.parametrize(("name", "steps"), [("films", WORDS), ("clothes", PICTURES), ("numbers", SOUNDS)])
def test_copies_stand_beside_their_records(
    make_step: Make, request: pytest.FixtureRequest, name: str, steps: list[Any], tmp_path: Path
) -> None:
    data: Artifact = request.getfixturevalue(name)
    artifact = made(make_step, data, steps, copies=2, workers=1)
    before = list(read_records(data.path, "train"))
    after = list(read_records(artifact.path, "train"))
    fates = {row["id"]: row["fate"] for row in pq.read_table(artifact.path / "fates.parquet").to_pylist()}
    expected = [id for r in before for id in (r.id, f"{r.id}~1", f"{r.id}~2") if fates[id] != "unchanged"]
    assert [record.id for record in after] == expected
    assert [record for record in after if "augmentation" not in record.meta] == before
    assert set(fates.values()) <= {"kept", "augmented", "unchanged"}
    for split in ("validation", "test"):
        assert (artifact.path / f"{split}.parquet").read_bytes() == (data.path / f"{split}.parquet").read_bytes()
    config = AugmentationConfig.model_validate({"make": "augmentation", "data": "x", "steps": steps})
    _assert_pure(config, data, after, tmp_path)


def _assert_pure(config: AugmentationConfig, data: Artifact, written: list[Record], tmp_path: Path) -> None:
    """Copies made one by one, in any order, without the step, are the written ones."""
    prepare(data.path, config, 7, tmp_path / "work")
    partners = list(read_records(tmp_path / "work", "train")) if config.operations.mixes else []
    augmentation = Augmentation(config.operations, 7, partners)
    copies = {record.id: record for record in written}
    records = list(read_records(data.path, "train"))
    Random(4).shuffle(records)
    for record in records[:15]:
        for epoch in (2, 1):
            copy = augmentation.apply(record, epoch)
            assert isinstance(copy, Record)
            assert copies.get(copy.id, copy) == copy
    one, two = (augmentation.apply(records[0], epoch) for epoch in (1, 2))
    assert one != two and Augmentation(config.operations, 8, partners).apply(records[0], 1) != one


@pytest.mark.parametrize(("name", "steps"), [("films", WORDS), ("clothes", PICTURES)])
def test_twice_gives_the_same_bytes_whatever_the_workers(
    make_step: Make, request: pytest.FixtureRequest, name: str, steps: list[Any]
) -> None:
    data: Artifact = request.getfixturevalue(name)
    one = made(make_step, data, steps, copies=2, workers=1).path
    first = files_of(one)
    for path in sorted(one.rglob("*"), reverse=True):
        path.unlink()
    assert files_of(made(make_step, data, steps, copies=2, workers=2).path) == first


def test_mixed_labels(make_step: Make, clothes: Artifact) -> None:
    artifact = made(make_step, clothes, [{"mixup": {"share": 1, "alpha": 1}}, {"cutmix": {"share": 0.5}}], partners=30)
    labels = {record.id: record.label for record in read_records(clothes.path, "train")}
    mixed = [record for record in read_records(artifact.path, "train") if "soft_label" in record.meta]
    assert len(mixed) == 60 and any(record.label != labels[record.id[:-2]] for record in mixed)
    for record in mixed:
        soft, story = record.meta["soft_label"], record.meta["augmentation"]["operations"]
        share = 1.0
        expected: dict[str | None, float] = {labels[record.id[:-2]]: 1.0}
        for operation in story:
            for drawn in operation.values():
                assert drawn["with"] != record.id[:-2]
                share = drawn["lambda"]
                expected = {label: part * share for label, part in expected.items()}
                expected[labels[drawn["with"]]] = expected.get(labels[drawn["with"]], 0) + 1 - share
        assert soft == pytest.approx(expected, abs=1e-5) and soft[record.label] == max(soft.values())


def test_partners_do_not_depend_on_the_order() -> None:
    records = [Record(str(i), "x", image=b"i") for i in range(200)]
    drawn = draw(iter(records), 20, 3)
    assert draw(iter(records[::-1]), 20, 3) == drawn and len(drawn) == 20
    assert draw(iter(records), 20, 4) != drawn
    assert len(draw(iter(records[:5]), 20, 3)) == 5


def test_dialogues_keep_their_replies(make_step: Make, tmp_path: Path) -> None:
    talk = [{"role": "user", "content": "how are you today my friend"}, {"role": "assistant", "content": "very well"}]
    data = corpus_of(tmp_path / "talk", [Record(str(i), "x", messages=talk) for i in range(30)], [])
    artifact = made(make_step, data, [{"deletion": {"rate": 0.3}}])
    copies = [record for record in read_records(artifact.path, "train") if "~" in record.id]
    assert copies and all(copy.messages and copy.messages[1]["content"] == "very well" for copy in copies)
    assert all(copy.messages != talk for copy in copies)


def test_what_cannot_be_augmented_has_a_fate(make_step: Make, clothes: Artifact, tmp_path: Path) -> None:
    records = list(read_records(clothes.path, "train"))
    odd = [Record("cut", "f", image=(records[0].image or b"")[:60]), Record("words", "f", text="no picture")]
    data = corpus_of(tmp_path / "odd", [*records, *odd], [])
    artifact = made(make_step, data, [{"flip": {"share": 0.5}}], keep_originals=False)
    counts = json.loads((artifact.path / "fates.json").read_text())["counts"]
    assert counts["unreadable:image"] == counts["filtered:no_image"] == 1
    assert counts["replaced"] == 62 and counts["augmented"] + counts["unchanged"] == 60
    assert {record.id[-2:] for record in read_records(artifact.path, "train")} == {"~1"}


def test_a_copy_that_equals_a_held_out_record_goes(make_step: Make, tmp_path: Path) -> None:
    data = corpus_of(
        tmp_path / "near",
        [Record("a", "x", text="good film"), Record("b", "x", text="a longer text here")],
        [Record("h", "x", text="film good")],
    )
    artifact = made(make_step, data, [{"swap": {"rate": 1}}])
    fates = {row["id"]: row["fate"] for row in pq.read_table(artifact.path / "fates.parquet").to_pylist()}
    assert fates == {"a": "kept", "a~1": "filtered:held_out", "b": "kept", "b~1": "augmented", "h": "kept"}


@pytest.mark.parametrize(
    ("fault", "check"),
    [
        ("held_out", "held_out_untouched"),
        ("label", "labels_kept"),
        ("soft", "labels_kept"),
        ("id", "ids_unique"),
        ("leak", "held_out_apart"),
        ("content", "replay_equal"),
        ("fates", "fates_sum"),
        ("nothing", "changed"),
    ],
)
def test_evidence_sees_a_seeded_fault(
    make_step: Make, clothes: Artifact, tmp_path: Path, fault: str, check: str
) -> None:
    steps = ["rotate", {"mixup": {"share": 0.5}}]
    artifact = made(make_step, clothes, steps)
    config = AugmentationConfig.model_validate({"make": "augmentation", "data": "x", "steps": steps})
    train = list(read_records(artifact.path, "train"))
    place = next(
        i for i, record in enumerate(train) if ("soft_label" in record.meta) == (fault == "soft") and "~" in record.id
    )
    held_out = next(read_records(clothes.path, "validation"))
    changes: dict[str, dict[str, Any]] = {
        "label": {"label": "other"},
        "soft": {"meta": {**train[place].meta, "soft_label": {"bag": 0.7, "coat": 0.7}}},
        "id": {"id": train[place - 1].id, "meta": {}},
        "leak": {"image": held_out.image},
        "content": {"image": train[0].image},
    }
    if fault in changes:
        train[place] = replace(train[place], **changes[fault])
        write_records(artifact.path, "train", train)
    if fault == "held_out":
        write_records(artifact.path, "test", train[:1])
    fates = Fates(140)
    fates.count("kept", 80)
    fates.count("augmented" if fault != "nothing" else "unchanged", 59 if fault == "fates" else 60)
    prepare(clothes.path, config, 7, tmp_path / "again")
    evidence = Evidence()
    examine(artifact.path, clothes, config, 7, fates, tmp_path / "again", tmp_path / "none", evidence)
    failed = {line.split(" is ")[0] for line in evidence.failures()}
    assert check in failed, evidence.failures()


def test_nothing_to_augment_is_refused(make_step: Make, films: Artifact) -> None:
    with pytest.raises(WuxingError, match="augments none of the train split: 200 filtered:no_image"):
        made(make_step, films, ["flip"])


def test_pages_say_what_was_done(make_step: Make, films: Artifact, clothes: Artifact, numbers: Artifact) -> None:
    from wuxing.page.render import loaded_things

    for data, steps in ((films, WORDS), (clothes, PICTURES), (numbers, SOUNDS)):
        artifact = made(make_step, data, steps)
        sampled = pq.read_table(artifact.path / "changed.parquet").to_pylist()
        for name, words in (("report.html", "Before and after"), ("report.zh.html", "前后对照")):
            html = (artifact.path / name).read_text(encoding="utf-8")
            assert words in html and sampled[0]["id"] in html and not loaded_things(html)
        assert len(sampled) == 24 and all(row["before"] != row["after"] for row in sampled)


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ([], "at least 1 item"),
        (["flip", "typos"], "one kind of content, not image and text"),
        (["template"], "templates"),
        (["paraphrase"], "paraphrase.model"),
        ([{"template": {"templates": ["no place"]}}], "must hold the place"),
        ([{"noise": {"min_snr_db": 30, "max_snr_db": 3}}], "is above max_snr_db"),
        ([{"rotate": {"degrees": 3}}], "degrees"),
    ],
)
def test_wrong_recipes_are_named(steps: list[Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AugmentationConfig.model_validate({"make": "augmentation", "data": "x", "steps": steps})


def test_mixing_needs_partners() -> None:
    with pytest.raises(ValueError, match="need partners"):
        Augmentation(OperationsConfig.model_validate({"steps": ["mixup"]}), 1)
    alone = Record("a", "x", image=b"not a picture")
    assert isinstance(Augmentation(OperationsConfig.model_validate({"steps": ["flip"]}), 1).apply(alone, 1), Drop)


# -------------------------------------------------------------------------------------------------------- a real server
class _Model(BaseHTTPRequestHandler):
    """Speaks the OpenAI protocol: turns the last line of the prompt round, word by word."""

    asked: ClassVar[list[dict[str, Any]]] = []
    fail: ClassVar[list[int]] = []

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.asked.append({**body, "authorization": self.headers.get("Authorization")})
        if self.fail:
            self.send_error(self.fail.pop())
            return
        words = body["messages"][0]["content"].split("\n")[-1].split()
        reply = json.dumps({"choices": [{"message": {"content": " ".join(words[::-1])}}]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(reply)))
        self.end_headers()
        self.wfile.write(reply)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Silent."""


@pytest.fixture
def endpoint() -> Iterator[str]:
    _Model.asked.clear()
    _Model.fail.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), _Model) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/v1"
        server.shutdown()


def test_a_model_paraphrases(
    make_step: Make, films: Artifact, endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODEL_KEY", "secret-9")
    _Model.fail[:] = [503, 429]
    settings = {"endpoint": endpoint, "model": "m", "key_variable": "MODEL_KEY", "concurrency": 4}
    context = Context(home=tmp_path)
    artifact = made(make_step, films, [{"paraphrase": settings}], context=context)
    copies = [record for record in read_records(artifact.path, "train") if "~" in record.id]
    texts = {record.id: record.text or "" for record in read_records(films.path, "train")}
    assert len(copies) > 180
    for copy in copies:
        last = texts[copy.id[:-2]].split("\n")[-1]
        assert copy.text == " ".join(last.split()[::-1])
    assert len(_Model.asked) == 202 and {question["authorization"] for question in _Model.asked} == {"Bearer secret-9"}
    assert len((artifact.path / "replies.jsonl").read_text().splitlines()) == 200
    assert "secret-9" not in "".join(path.read_text("utf-8", "replace") for path in artifact.path.iterdir())
    first = files_of(artifact.path)
    for path in artifact.path.iterdir():
        path.unlink()
    again = made(make_step, films, [{"paraphrase": {**settings, "concurrency": 1}}], context=context)
    assert len(_Model.asked) == 202  # replies are kept
    changed = {name for name, digest in files_of(again.path).items() if first[name] != digest}
    assert changed == set()


def test_a_silent_model_is_named(
    films: Artifact, make_step: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wuxing.augment.ask.PAUSE_SECONDS", 0.01)
    with pytest.raises(WuxingError, match="gives no paraphrase: it does not answer"):
        made(make_step, films, [{"paraphrase": {"endpoint": "http://127.0.0.1:9/v1", "model": "m"}}])
    settings = {"endpoint": "http://127.0.0.1:9/v1", "model": "m", "key_variable": "NO_SUCH_KEY"}
    with pytest.raises(WuxingError, match="environment has no NO_SUCH_KEY"):
        made(make_step, films, [{"paraphrase": settings}])


# --------------------------------------------------------------------------------------------------------------- killed
def test_killed_and_run_again_gives_the_same_bytes(films: Artifact, tmp_path: Path) -> None:
    """The whole command, killed with SIGKILL at several instants, ends with the bytes of an undisturbed run."""
    rows = [{"text": record.text, "label": record.label} for record in read_records(films.path, "train")]
    (tmp_path / "rows.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    (tmp_path / "recipe.yaml").write_text(
        "name: x\nseed: 3\nsteps:\n"
        "  films: {make: corpus, sources: [{files: rows.jsonl}], split: {validation: 0.2, test: 0.1}}\n"
        "  more: {make: augmentation, data: films, steps: [typos, deletion], copies: 20, workers: 2}\n"
    )
    command = [sys.executable, "-m", "wuxing", "run", "recipe.yaml"]

    def contents(home: str) -> dict[str, str]:
        found = {}
        for path in sorted((tmp_path / home).glob("*/*/v1/record.json")):
            record = json.loads(path.read_text())
            found[record["kind"]] = record["content"]
        return found

    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, cwd=tmp_path, env={**environment, "WUXING_HOME": "whole"}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    for seconds in (1.0, 2.0):
        process = subprocess.Popen(
            command,
            cwd=tmp_path,
            env={**environment, "WUXING_HOME": "killed"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        time.sleep(seconds)
        process.send_signal(signal.SIGKILL)
        process.wait()
    done = subprocess.run(
        command, cwd=tmp_path, env={**environment, "WUXING_HOME": "killed"}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert contents("killed") == contents("whole") and set(contents("whole")) == {"corpus", "augmentation"}
