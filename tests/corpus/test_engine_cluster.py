"""Corpora on a Ray cluster of two nodes on this machine: the same bytes, also when a node dies."""

from __future__ import annotations

import gzip
import json
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from wuxing.core.context import Context
from wuxing.core.digest import digest_of_file
from wuxing.core.error import WuxingError
from wuxing.core.step import Draft
from wuxing.corpus.engine import plan as planning
from wuxing.corpus.kind import CorpusKind

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two nodes with one core each; the second can be lost."""
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    memory = {"object_store_memory": 100 << 20}
    here = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False, **memory})
    here.add_node(num_cpus=1, **memory)
    ray.init(address=here.address, log_to_driver=False)
    yield here
    ray.shutdown()
    here.shutdown()


@pytest.fixture
def folder(tmp_path: Path, data_directory: Path) -> Path:
    place = tmp_path / "source"
    place.mkdir()
    with gzip.open(data_directory / "text" / "wikipedia-leads-en.jsonl.gz", "rt", encoding="utf-8") as lines:
        rows = [line for line, _ in zip(lines, range(2000), strict=False)]
    for number in range(10):
        (place / f"{number}.jsonl").write_text("".join(rows[190 * number : 190 * number + 200]))
    return place


def made(folder: Path, place: Path, cache: Path, on: str, **changes: Any) -> tuple[dict[str, str], str]:
    config = CorpusKind.Config.model_validate(
        {
            "make": "corpus",
            "sources": [{"files": str(folder), "fields": {"text": "text"}}],
            "clean": ["repair", "normalise", {"quality": {"min_words": 20}}, "repetition", "privacy"],
            "duplicates": {"near_jaccard": 0.7},
            "split": {"validation": 0.1, "test": 0.1},
            **changes,
        }
    )
    place.mkdir()
    draft = Draft(place, "corpus", "x", "0" * 64, 7)
    CorpusKind().make(config, {}, draft, Context(home=place, cache=cache, on=on))
    files = {p.relative_to(place).as_posix(): digest_of_file(p) for p in place.rglob("*") if p.is_file()}
    del files["shards.json"]
    return files, draft.summary["shards"]


def test_a_cluster_makes_the_same_bytes_and_outlives_a_node(
    cluster: Any, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planning, "TASK_PARTS", 1)
    truth, _ = made(folder, tmp_path / "local", tmp_path / "cache", "local")
    spread, said = made(folder, tmp_path / "spread", tmp_path / "cache-ray", "ray")
    assert spread == truth and said == "0 of 10 reused"
    assert made(folder, tmp_path / "again", tmp_path / "cache-ray", "ray")[1] == "10 of 10 reused"

    lost = cluster.add_node(num_cpus=1, object_store_memory=100 << 20)
    shards = tmp_path / "cache-lost"

    def lose_it() -> None:
        while not list(shards.rglob("*.shard")):
            time.sleep(0.005)
        cluster.remove_node(lost, allow_graceful=False)

    watcher = threading.Thread(target=lose_it)
    watcher.start()
    survived, _ = made(folder, tmp_path / "lost", shards, "ray")
    watcher.join()
    assert survived == truth


def test_an_error_on_a_node_is_the_line_that_it_is_here(cluster: Any, folder: Path, tmp_path: Path) -> None:
    (folder / "x.jsonl").write_text(json.dumps({"other": 1}) + "\n")
    refuse = [{"files": str(folder), "fields": {"text": "text"}, "missing": "refuse"}]
    with pytest.raises(WuxingError, match=r'source: row x.jsonl#0 has no "text". Set missing: drop'):
        made(folder, tmp_path / "out", tmp_path / "cache", "ray", sources=refuse)
