"""What all tests share: the folder of real data, and one step made without a recipe."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from wuxing.core.artifact import Artifact
from wuxing.core.context import Context
from wuxing.core.digest import digest_of, digest_of_file, digest_of_files
from wuxing.core.file import write_json
from wuxing.core.step import Draft, StepKind

LONGEST = (
    "test_hosts.py", "test_planning.py", "test_fleet.py", "test_shard.py", "test_kill.py", "test_life.py",
    "test_run_attacked.py", "test_track.py", "test_model_kind.py", "test_together.py", "test_corpus_engine.py",
    "test_engine_cluster.py", "test_attack.py", "test_browse_page.py", "test_replay_together.py",
)  # fmt: skip
"""Files of tests that take longest, for `make test`: begun last, one would keep a single worker busy at the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.name, len(LONGEST)))


@pytest.fixture(scope="session")
def data_directory() -> Path:
    """The folder of real data that the Makefile names in WUXING_TEST_DATA."""
    path = Path(os.environ.get("WUXING_TEST_DATA", "no-such-folder"))
    if not path.is_dir():
        pytest.skip("real data are missing: set WUXING_TEST_DATA to their folder")
    return path


@pytest.fixture
def make_step(tmp_path: Path) -> Callable[..., Artifact]:
    """Make one step outside any store: `make_step(kind, config, parents={}, name="x", seed=7)` -> a signed Artifact."""

    def make(
        kind: StepKind[Any],
        config: Mapping[str, Any],
        parents: Mapping[str, Artifact] | None = None,
        name: str = "thing",
        seed: int = 7,
        context: Context | None = None,
    ) -> Artifact:
        parents = parents or {}
        values = kind.Config.model_validate({"make": kind.kind, **config})
        fingerprint = digest_of(
            [kind.kind, kind.content(values), {role: p.content for role, p in parents.items()}, seed]
        )
        path = tmp_path / "made" / kind.kind / name / fingerprint[:12]
        path.mkdir(parents=True, exist_ok=True)
        draft = Draft(path, kind.kind, name, fingerprint, seed)
        kind.make(values, parents, draft, context or Context(home=tmp_path))
        write_json(path / "evidence.json", draft.evidence.to_json())
        found = sorted(p for p in path.rglob("*") if p.is_file())
        files = {str(p.relative_to(path)): {"sha256": digest_of_file(p), "bytes": p.stat().st_size} for p in found}
        record = {
            "kind": kind.kind,
            "name": name,
            "version": 1,
            "fingerprint": fingerprint,
            "content": digest_of_files({name: entry["sha256"] for name, entry in files.items()}),
            "config": values.model_dump(mode="json"),
            "parents": {role: {"id": parent.id, "content": parent.content} for role, parent in parents.items()},
            "files": files,
            "failures": draft.evidence.failures(kind.required),
            "summary": draft.summary,
        }
        return Artifact(path, record)

    return make
