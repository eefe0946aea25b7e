"""What several processes trained is replayed by as many, bit for bit; with a line where they cannot be had."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from small_run import base_config, base_parents
from test_replay import trained
from test_together import several

from wuxing.core.artifact import Artifact
from wuxing.core.context import Context
from wuxing.core.digest import digest_of_file
from wuxing.core.error import RefusedError
from wuxing.core.file import read_json
from wuxing.train.plan.budget import Start
from wuxing.train.save.replay import processes_at, replay


@pytest.fixture(scope="module", params=["replicate", "shard"])
def kept(
    request: pytest.FixtureRequest, world: dict[str, Artifact], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Artifact, dict[str, Artifact]]:
    """A model of two processes that keeps its checkpoint of step 6 of 12."""
    home = tmp_path_factory.mktemp(request.param)
    config = base_config(
        keep_for_replay=1,
        average=0.9,
        sharding=request.param,
        budget={"steps": 12},
        validation={"times": 2, "tokens": 512},
    )
    with several(Context(home=home), 2) as context:
        return trained(home / "base", config, base_parents(world), context)


def test_two_processes_replay_what_two_have_trained(kept: tuple[Artifact, dict[str, Artifact]], tmp_path: Path) -> None:
    """One bit of one moment in a checkpoint of shares is found; what is whole is the same."""
    model, parents = kept
    if "00001-of-00002" not in "".join(model.record["files"]):
        found = replay(model, parents, 6, Context(home=tmp_path), 6)
        assert (found.differences, found.elsewhere, found.until) == ([], "", "")
        assert (found.last, found.weights, found.processes) == (12, True, 2)
        return
    shutil.copytree(model.path, tmp_path / "base")
    file = max((tmp_path / "base" / "checkpoints" / "step-00000006").glob("optimizer*"))
    with safe_open(file, "pt") as opened:
        metadata = opened.metadata()
    tensors = load_file(file)
    name = next(name for name in tensors if name.endswith("momentum"))
    tensors[name].view(torch.int32)[0, 0] ^= 1
    save_file(tensors, file, metadata)
    digests = read_json(file.parent / "digest.json")
    (file.parent / "digest.json").write_text(json.dumps(digests | {file.name: digest_of_file(file)}))
    found = replay(Artifact(tmp_path / "base", model.record), parents, 6, Context(home=tmp_path), 0)
    assert (found.differences, found.processes) == ([f"step 6: {name} differs"], 2)


def test_a_topology_that_cannot_be_had_is_refused(kept: tuple[Artifact, dict[str, Artifact]], tmp_path: Path) -> None:
    shutil.copytree(kept[0].path, tmp_path / "base")
    moved = Artifact(tmp_path / "base", kept[0].record)
    start = read_json(moved.path / "start.json")
    whole: dict[str, Any] = {**start, "planned_bytes": 1 << 60}
    (moved.path / "start.json").write_text(json.dumps(whole))
    with pytest.raises(RefusedError, match="2 processes, which need .* [MGT]B together; this host"):
        replay(moved, kept[1], 1, Context(home=tmp_path), 0)


def test_who_trained_a_step_is_known_from_the_passages(kept: tuple[Artifact, dict[str, Artifact]]) -> None:
    start = Start.read(kept[0].path)
    assert start is not None
    passages = [
        {"after": 4, "changed": {"torch": ["1", "2"]}},
        {"after": 8, "changed": {"processes": ["2", "1"]}},
        {"after": 16, "changed": {"processes": ["1", "4"]}},
    ]
    assert [processes_at(start, passages, step) for step in (0, 4, 7, 8, 15, 16, 20)] == [2, 2, 2, 1, 1, 4, 4]
