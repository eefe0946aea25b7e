"""`wuxing verify --replay`: a run says what it was, bit for bit, or the replay names the step."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from small_run import base_config, base_parents, make_in, solver_config

from wuxing.core.artifact import Artifact
from wuxing.core.context import Context
from wuxing.core.error import WuxingError
from wuxing.train.model_kind import ModelKind
from wuxing.train.save.replay import replay


def trained(
    directory: Path, config: dict[str, object], parents: dict[str, Artifact], context: Context
) -> tuple[Artifact, dict[str, Artifact]]:
    made = make_in(directory, ModelKind(), config, parents, context)
    whole = ModelKind.Config.model_validate({"make": "model", **config}).model_dump(mode="json")
    made.record.update(config=whole, slice={"seed": 7}, fingerprint="0" * 64)
    return made, parents


@pytest.fixture(scope="module")
def kept(world: dict[str, Artifact], tmp_path_factory: pytest.TempPathFactory) -> tuple[Artifact, dict[str, Artifact]]:
    """A model that keeps its checkpoints of steps 8 and 16, and has an average and a plateau."""
    home = tmp_path_factory.mktemp("kept")
    config = base_config(keep_for_replay=2, average=0.9, schedule={"shape": "plateau", "patience": 1})
    return trained(home / "base", config, base_parents(world), Context(home=home))


@pytest.mark.parametrize(("first", "steps", "weights"), [(0, 8, True), (8, 8, True), (16, 8, True), (8, 3, False)])
def test_a_replay_is_the_run(
    kept: tuple[Artifact, dict[str, Artifact]], first: int, steps: int, weights: bool, tmp_path: Path
) -> None:
    found = replay(*kept, steps, Context(home=tmp_path), first)
    assert found.differences == [] and (found.last, found.weights) == (first + steps, weights)
    assert {path.name for path in (kept[0].path / "checkpoints").iterdir()} == {"step-00000008", "step-00000016"}


def test_without_a_wish_it_starts_anywhere(kept: tuple[Artifact, dict[str, Artifact]], tmp_path: Path) -> None:
    starts = {replay(*kept, 1, Context(home=tmp_path)).first for _ in range(12)}
    assert starts <= {0, 8, 16} and len(starts) > 1  # once in 3^11 all twelve are the same


def test_a_run_that_says_something_else_is_caught(kept: tuple[Artifact, dict[str, Artifact]], tmp_path: Path) -> None:
    """One digit of one loss in the log, one element of the weights in a kept checkpoint."""
    import shutil

    from safetensors.torch import load_file, save_file

    from wuxing.core.digest import digest_of_file

    shutil.copytree(kept[0].path, tmp_path / "base")
    forged = Artifact(tmp_path / "base", kept[0].record)
    log = forged.path / "log.jsonl"
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    line = next(line for line in lines if line["step"] == 11 and "loss" in line)
    line["loss"] += 1e-12
    log.write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = replay(forged, kept[1], 8, Context(home=tmp_path), 8)
    assert len(found.differences) == 1 and found.differences[0].startswith("step 11: loss was")
    weights = forged.path / "checkpoints" / "step-00000016" / "model.safetensors"
    tensors = load_file(weights)
    tensors["model.norm.weight"][0] += 1e-6
    save_file(tensors, weights)
    digests = json.loads((weights.parent / "digest.json").read_text())
    digests["model.safetensors"] = digest_of_file(weights)
    (weights.parent / "digest.json").write_text(json.dumps(digests))
    found = replay(forged, kept[1], 8, Context(home=tmp_path), 8)
    assert found.differences[-1] == "step 16: model.norm.weight differs"


def test_a_changed_measurement_moment_and_model_are_caught(
    kept: tuple[Artifact, dict[str, Artifact]], tmp_path: Path
) -> None:
    """One digit of a held-out measure, one bit of a moment of the optimizer, one of the finished weights."""
    import shutil

    from safetensors.torch import load_file, save_file

    from wuxing.core.digest import digest_of_file

    shutil.copytree(kept[0].path, tmp_path / "base")
    forged = Artifact(tmp_path / "base", kept[0].record)
    log = forged.path / "log.jsonl"
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    line = next(line for line in lines if line["step"] == 16 and "validation" in line)
    line["validation"]["bits_per_byte"] += 1e-12
    log.write_text("".join(json.dumps(line) + "\n" for line in lines))
    moments = forged.path / "checkpoints" / "step-00000016" / "optimizer.safetensors"
    tensors = load_file(moments)
    name = next(name for name in tensors if name.endswith("momentum"))
    tensors[name].view(torch.int32)[0, 0] ^= 1
    save_file(tensors, moments)
    digests = json.loads((moments.parent / "digest.json").read_text())
    (moments.parent / "digest.json").write_text(json.dumps(digests | {moments.name: digest_of_file(moments)}))
    found = replay(forged, kept[1], 8, Context(home=tmp_path), 8)
    assert [line.split(":")[0] for line in found.differences] == ["step 16", "step 16"]
    assert "held-out" in found.differences[0] and name in found.differences[1]
    tensors = load_file(forged.path / "model.safetensors")
    tensors["model.norm.weight"].view(torch.int32)[3] ^= 1
    save_file(tensors, forged.path / "model.safetensors")
    found = replay(forged, kept[1], 24, Context(home=tmp_path), 0)
    assert found.differences[-1] == "step 24: model.norm.weight differs"


def test_another_place_is_named_and_so_are_processes_that_left_no_topology(
    kept: tuple[Artifact, dict[str, Artifact]], tmp_path: Path
) -> None:
    import shutil

    shutil.copytree(kept[0].path, tmp_path / "base")
    moved = Artifact(tmp_path / "base", kept[0].record)
    start = json.loads((moved.path / "start.json").read_text())
    start["made_with"]["torch"] = "1.0"
    (moved.path / "start.json").write_text(json.dumps(start))
    found = replay(moved, kept[1], 1, Context(home=tmp_path), 0)
    assert found.differences == [] and found.elsewhere.startswith("after step 0: torch 1.0 → ")
    start["made_with"]["processes"] = "2"
    (moved.path / "start.json").write_text(json.dumps(start))
    with pytest.raises(WuxingError, match="by 2 processes here and by others later"):
        replay(moved, kept[1], 1, Context(home=tmp_path), 0)


def test_other_data_is_refused(kept: tuple[Artifact, dict[str, Artifact]], tmp_path: Path) -> None:
    model, parents = kept
    with pytest.raises(WuxingError, match="another sample plan"):
        replay(model, {**parents, "data.articles": parents["data.dialogues"]}, 2, Context(home=tmp_path), 8)
    with pytest.raises(WuxingError, match="keeps no checkpoint of step 5"):
        replay(model, parents, 2, Context(home=tmp_path), 5)


def test_reinforcement_can_be_replayed(world: dict[str, Artifact], base: Artifact, tmp_path: Path) -> None:
    parents = {"start_from": base, "task": world["arithmetic"]}
    made, _ = trained(tmp_path / "solver", solver_config(), parents, Context(home=tmp_path))
    assert replay(made, parents, 3, Context(home=tmp_path), 0).differences == []
