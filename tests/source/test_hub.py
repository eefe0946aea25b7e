"""Data sets of a hub: a local server that speaks the Hugging Face protocol: large files, tokens, branches, deaths."""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from local_server import Handler, Site, cut_after, serving

from wuxing.core.context import Context
from wuxing.core.error import WuxingError
from wuxing.source import download, open_source, rows_in, source_digest
from wuxing.source.config import SourceConfig
from wuxing.source.fields import Mapper
from wuxing.source.hub import split_of_path

COMMIT, OTHER = "a" * 40, "b" * 40


def table(*texts: str) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table({"text": list(texts)}), sink)
    return sink.getvalue()


class Hub:
    """Repositories: name → commit → path → content.  Files over 100 bytes are large (LFS)."""

    def __init__(self, site: Site, store: Site):
        self.site, self.store, self.token = site, store, ""
        self.repositories: dict[str, dict[str, dict[str, bytes]]] = {}
        self.branches = {"main": COMMIT}
        site.extra = self.answer

    def answer(self, handler: Handler) -> bool:
        path = handler.path.partition("?")[0]
        if self.token and handler.headers.get("Authorization") != f"Bearer {self.token}":
            handler.say(401, {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"})
            return True
        if found := re.fullmatch(r"/api/datasets/(.+?)(?:/(revision|tree)/([^/]+))?", path):
            self.api(handler, found[1], found[2], found[3] or "main")
            return True
        if found := re.fullmatch(r"/datasets/(.+?)/resolve/([^/]+)/(.+)", path):
            self.resolve(handler, found[1], found[2], found[3])
            return True
        return False

    def at(self, handler: Handler, name: str, revision: str) -> tuple[str, dict[str, bytes]] | None:
        if name not in self.repositories:
            handler.say(404, {"X-Error-Code": "RepoNotFound"})
            return None
        commit = self.branches.get(revision, revision)
        if commit not in self.repositories[name]:
            handler.say(404, {"X-Error-Code": "RevisionNotFound"})
            return None
        return commit, self.repositories[name][commit]

    def api(self, handler: Handler, name: str, verb: str | None, revision: str) -> None:
        if (found := self.at(handler, name, revision)) is None:
            return
        commit, files = found
        if verb == "tree":
            handler.json([self.entry(path, content) for path, content in sorted(files.items())])
        else:
            handler.json({"id": name, "sha": commit, "siblings": [{"rfilename": path} for path in files]})

    @staticmethod
    def entry(path: str, content: bytes) -> dict[str, object]:
        blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        entry: dict[str, object] = {"type": "file", "oid": blob, "size": len(content), "path": path}
        if len(content) > 100:
            digest = hashlib.sha256(content).hexdigest()
            entry["lfs"] = {"oid": digest, "size": len(content), "pointerSize": 130}
        return entry

    def resolve(self, handler: Handler, name: str, revision: str, path: str) -> None:
        if (found := self.at(handler, name, revision)) is None:
            return
        commit, files = found
        if path not in files:
            handler.say(404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit})
            return
        content, entry = files[path], self.entry(path, files[path])
        said = {"X-Repo-Commit": commit, "ETag": f'"{entry["oid"]}"'}
        if "lfs" not in entry:
            handler.say(200, said, content, handler.command == "GET")
            return
        digest = hashlib.sha256(content).hexdigest()
        self.store.files[f"/lfs/{digest}"] = content
        said |= {
            "X-Linked-Size": str(len(content)),
            "X-Linked-Etag": f'"{digest}"',
            "Location": f"{self.store.url}/lfs/{digest}",
        }
        handler.say(302, said)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.setattr(download, "FIRST_PAUSE_SECONDS", 0.001)
    with serving() as site, serving() as store:
        monkeypatch.setenv("HF_ENDPOINT", site.url)
        monkeypatch.delenv("HF_TOKEN", raising=False)
        made = Hub(site, store)
        files = {
            "README.md": b"---\nlicense: mit\n---\n# A set\n",
            "data/train-00000-of-00002.parquet": table("a", "b"),
            "data/train-00001-of-00002.parquet": table("c"),
            "data/test-00000-of-00001.parquet": table("t"),
            ".gitattributes": b"x",
        }
        made.repositories["org/set"] = {COMMIT: files, OTHER: {**files, "data/test-00000-of-00001.parquet": table("u")}}
        yield made


def texts(home: Path, **asked: str) -> list[str]:
    source = SourceConfig.model_validate({"hub": {"dataset": "org/set", **asked}})
    return [row.value["text"] for row in rows_in(source, Context(home=home))]


def test_splits_revisions_and_the_commit_on_the_card(hub: Hub, tmp_path: Path) -> None:
    assert texts(tmp_path, split="train") == ["a", "b", "c"]
    assert texts(tmp_path, split="test") == ["t"] and texts(tmp_path, split="test", revision=OTHER) == ["u"]
    assert texts(tmp_path) == ["t", "a", "b", "c"]
    source = SourceConfig.model_validate({"hub": {"dataset": "org/set", "split": "test"}})
    card = open_source(source, Context(home=tmp_path)).card
    assert card["commit"] == COMMIT and card["files"] == {"data/test-00000-of-00001.parquet": len(table("t"))}
    with pytest.raises(WuxingError, match='no split tets. Did you mean "test"'):
        texts(tmp_path, split="tets")


def test_a_branch_that_moves_is_a_new_version_and_a_commit_pins(hub: Hub, tmp_path: Path) -> None:
    moving = SourceConfig.model_validate({"hub": {"dataset": "org/set", "split": "test"}})
    pinned = SourceConfig.model_validate({"hub": {"dataset": "org/set", "split": "test", "revision": COMMIT}})
    context = Context(home=tmp_path)
    assert source_digest(moving, context) == COMMIT and source_digest(pinned, context) is None
    hub.branches["main"] = OTHER
    assert source_digest(moving, context) == OTHER
    assert [row.value["text"] for row in rows_in(moving, context)] == ["u"]


def test_a_pinned_data_set_that_was_read_needs_no_network(hub: Hub, tmp_path: Path) -> None:
    first = texts(tmp_path, split="train", revision=COMMIT)
    asked = len(hub.site.log)
    hub.site.extra = lambda handler: handler.hang_up() is None
    assert texts(tmp_path, split="train", revision=COMMIT) == first == ["a", "b", "c"]
    assert len(hub.site.log) == asked
    with pytest.raises(WuxingError, match="cannot be read"):
        texts(tmp_path, split="test", revision=COMMIT)


@pytest.mark.parametrize("at", [0, 10, 300])
def test_a_server_that_dies_in_a_download(hub: Hub, tmp_path: Path, at: int) -> None:
    big = table(*(f"line {n}" for n in range(5000)))
    hub.repositories["org/set"][COMMIT]["data/train-00001-of-00002.parquet"] = big
    hub.store.faults[f"/lfs/{hashlib.sha256(big).hexdigest()}"] = [cut_after(at), cut_after(at)]
    assert texts(tmp_path, split="train")[2:] == [f"line {n}" for n in range(5000)]


def test_other_bytes_than_announced_are_never_taken(hub: Hub, tmp_path: Path) -> None:
    right = hub.repositories["org/set"][COMMIT]["data/test-00000-of-00001.parquet"]
    wrong = right[:50] + b"\xff" + right[51:]

    def lie(handler: Handler, content: bytes) -> bool:
        handler.send(wrong)
        return True

    path = f"/lfs/{hashlib.sha256(right).hexdigest()}"
    hub.store.faults[path] = [lie]
    assert texts(tmp_path, split="test") == ["t"]
    hub.store.faults[f"/lfs/{hashlib.sha256(table('u')).hexdigest()}"] = [
        lambda handler, content: handler.send(table("v")) is None
    ] * 20
    with pytest.raises(WuxingError, match="other bytes than announced"):
        texts(tmp_path, split="test", revision=OTHER)


def test_the_card_says_which_files_are_which_split(hub: Hub, tmp_path: Path) -> None:
    files = hub.repositories["org/set"][COMMIT]
    files["README.md"] = b"""---
configs:
- config_name: plain
  default: true
  data_files:
  - {split: train, path: "odd/*.parquet"}
  - {split: extra, path: [data/test-*.parquet]}
- config_name: other
  data_files: data/train-00001-*
---
"""
    files["odd/x.parquet"] = table("odd")
    assert texts(tmp_path, split="train") == ["odd"] and texts(tmp_path, split="extra") == ["t"]
    assert texts(tmp_path, config="other") == ["c"]
    assert texts(tmp_path, files="data/t*t-*.parquet") == ["t"]
    with pytest.raises(WuxingError, match="no configuration plian"):
        texts(tmp_path, config="plian")


def test_tokens_come_from_the_environment_alone(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.token = "hush-4711"
    with pytest.raises(WuxingError, match="Check name, revision and HF_TOKEN"):
        texts(tmp_path, split="test")
    monkeypatch.setenv("HF_TOKEN", "hush-4711")
    assert texts(tmp_path, split="test") == ["t"]
    assert not [p for p in tmp_path.rglob("*") if p.is_file() and b"hush" in p.read_bytes()]


def test_what_is_not_there_is_said_at_once(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(WuxingError, match="is not at"):
        texts(tmp_path, dataset="org/none")
    with pytest.raises(WuxingError, match="is not at"):
        texts(tmp_path, revision="c" * 40)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(WuxingError, match="cannot be read"):
        texts(tmp_path, split="train")


def test_pictures_with_the_names_of_their_classes(hub: Hub, tmp_path: Path) -> None:
    features = {"info": {"features": {"label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}}}
    picture = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    columns = {
        "image": pa.array([{"bytes": b"\x89PNG1", "path": None}, {"bytes": b"\x89PNG2", "path": "x.png"}], picture),
        "label": pa.array([1, 0]),
    }
    made = pa.table(columns).replace_schema_metadata({"huggingface": json.dumps(features)})
    sink = io.BytesIO()
    pq.write_table(made, sink)
    hub.repositories["org/pets"] = {COMMIT: {"train.parquet": sink.getvalue()}}
    source = SourceConfig.model_validate({"hub": {"dataset": "org/pets", "split": "train"}})
    mapper = Mapper(source)
    records = [mapper.record(row) for row in rows_in(source, Context(home=tmp_path))]
    assert [(r.label, r.image) for r in records] == [("dog", b"\x89PNG1"), ("cat", b"\x89PNG2")]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("path", "split"),
    [
        ("data/train-00000-of-00001.parquet", "train"),
        ("validation.jsonl", "validation"),
        ("en/dev.csv", "validation"),
        ("test/part-0.parquet", "test"),
        ("contest/train/x.parquet", "train"),
        ("corpus.jsonl", "train"),
    ],
)
def test_words_of_a_path_name_its_split(path: str, split: str) -> None:
    assert split_of_path(path) == split
