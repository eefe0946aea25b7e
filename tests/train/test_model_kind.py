"""The step kind `model`: evidence, files, refusals, and stopping at any step without a trace in the weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_run import base_config, base_parents, make_in, signed, solver_config, train_base, train_solver

from wuxing.core.artifact import Artifact
from wuxing.core.context import Context
from wuxing.core.error import Interrupted, WuxingError
from wuxing.core.file import read_json, read_lines, write_json
from wuxing.core.progress import Progress
from wuxing.train.config import ModelConfig
from wuxing.train.model_kind import ModelKind, tokens_name
from wuxing.train.save.checkpoint import Checkpoints
from wuxing.train.trainer import StepReport, Trainer

WEIGHTS = "model.safetensors"


def weights(artifact: Artifact | Path) -> bytes:
    path = artifact if isinstance(artifact, Path) else artifact.path
    return (path / WEIGHTS).read_bytes()


def stopped_after(steps: int, monkeypatch: pytest.MonkeyPatch, home: Path) -> Context:
    """A context whose stop signal comes while step `steps` of this attempt is made."""
    context, step, made = Context(home=home), Trainer.step, [0]

    def counted(self: Trainer) -> StepReport:
        made[0] += 1
        if made[0] == steps:
            context.stop.request()
        return step(self)

    monkeypatch.setattr(Trainer, "step", counted)
    return context


def test_it_learns_and_leaves_its_evidence(base: Artifact) -> None:
    assert base.record["failures"] == []
    value = base.evidence.value
    assert value("held_out_improved") < read_json(base.path / "training.json")["validation"][0]["bits_per_byte"] - 0.5
    assert value("step_cut") < 1e-6 and 0 < value("packed_equals_separate") < 1e-4
    assert value("resumable") == "step 24, every bit" and value("data_seen")["positions"] > 0
    assert value("memory_actual") > 0


def test_it_leaves_exactly_these_files(base: Artifact) -> None:
    found = {str(path.relative_to(base.path)) for path in base.path.rglob("*") if path.is_file()}
    assert {name for name in found if not name.startswith("cache/")} == {
        "plan.json",
        "config.json",
        "generation_config.json",
        WEIGHTS,
        "tokenizer.json",
        "tokenizer_config.json",
        "chat_template.jinja",
        "training.json",
        "log.jsonl",
        "start.json",
        "finished.json",
        "evidence.json",
        "summary.json",
    }


def test_the_log_has_one_line_a_step(base: Artifact) -> None:
    lines = [line for line in read_lines(base.path / "log.jsonl") if "loss" in line]
    assert [line["step"] for line in lines] == list(range(1, 25))
    keys = {"loss", "learning_rate", "gradient_norm", "tokens", "tokens_per_second", "seconds", "memory_bytes"}
    assert all(keys <= line.keys() for line in lines)
    training = read_json(base.path / "training.json")
    assert sum(line["tokens"] for line in lines) == training["positions"]
    assert sum(line["taught"] for line in lines) == training["taught"]
    assert [entry["id"] for entry in training["lineage"]["data"]] == ["corpus/articles@v1", "corpus/dialogues@v1"]


def test_the_same_seed_twice_gives_the_same_files(base: Artifact, world: dict[str, Artifact], tmp_path: Path) -> None:
    again = train_base(tmp_path / "base", world)
    for name in (WEIGHTS, "training.json", "config.json"):
        assert (again.path / name).read_bytes() == (base.path / name).read_bytes()


@pytest.mark.parametrize("step", [1, 11, 23])
def test_stopped_and_resumed_equals_never_stopped(
    base: Artifact, world: dict[str, Artifact], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    directory = tmp_path / "base"
    with monkeypatch.context() as patch:
        context = stopped_after(step, patch, tmp_path)
        with pytest.raises(Interrupted, match=f"saved a checkpoint at step {step}") as stopped:
            train_base(directory, world, context)
    assert stopped.value.exit_code == 130 and not (directory / WEIGHTS).exists()
    resumed = train_base(directory, world)
    assert weights(resumed) == weights(base) and resumed.record["failures"] == []
    lines = [line["step"] for line in read_lines(directory / "log.jsonl") if "loss" in line]
    assert lines == list(range(1, 25))
    assert read_json(directory / "training.json") == read_json(base.path / "training.json")


def test_reinforcement_stopped_and_resumed_equals_never_stopped(
    base: Artifact, world: dict[str, Artifact], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    straight = train_solver(tmp_path / "straight" / "solver", world, base)
    directory = tmp_path / "solver"
    for step in (3, 4):
        with monkeypatch.context() as patch, pytest.raises(Interrupted):
            train_solver(directory, world, base, stopped_after(step, patch, tmp_path))
    resumed = train_solver(directory, world, base)
    assert weights(resumed) == weights(straight) != weights(base)
    for name in ("rollouts/train.jsonl", "training.json"):
        assert (directory / name).read_bytes() == (straight.path / name).read_bytes()
    rollouts = read_lines(directory / "rollouts/train.jsonl")
    assert len(rollouts) == 12 * 4 * 4
    for line in rollouts:
        assert line["reward"] == line["scores"]["correct"] + 0.5 * line["scores"]["answered"]
    data = read_json(directory / "training.json")["lineage"]["data"]
    assert [entry["id"] for entry in data] == ["corpus/articles@v1", "corpus/dialogues@v1", "task/arithmetic@v1"]
    assert resumed.evidence.value("sampler_matches") < 0.02
    assert {"equal_groups", "not_collapsed"} <= {check.name for check in resumed.evidence.checks}


@pytest.mark.parametrize("pieces", [64, 320])
def test_pieces_and_worker_settings_do_not_enter_the_fingerprint(
    base: Artifact, world: dict[str, Artifact], tmp_path: Path, pieces: int
) -> None:
    changes = {"piece_tokens": pieces, "save_every_seconds": 0.01, "keep_checkpoints": 1}
    kind = ModelKind()
    plain, cut = (ModelConfig.model_validate({"make": "model", **base_config(**c)}) for c in ({}, changes))
    assert kind.content(plain) == kind.content(cut)
    other = load_file(train_base(tmp_path / "base", world, **changes).path / WEIGHTS)
    # bf16 products of other shapes round differently; 24 steps at this rate keep that below 2 % of each tensor
    for name, tensor in load_file(base.path / WEIGHTS).items():
        assert float((other[name] - tensor).norm() / tensor.norm()) < 0.02, name


def test_a_damaged_checkpoint_is_named_and_the_one_before_used(
    base: Artifact, world: dict[str, Artifact], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tmp_path / "base"
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        train_base(directory, world, stopped_after(9, patch, tmp_path), save_every_seconds=1e-6)
    newest = sorted((directory / "checkpoints").glob("step-*"))[-1]
    content = bytearray((newest / "optimizer.safetensors").read_bytes())
    content[len(content) // 2] ^= 1
    (newest / "optimizer.safetensors").write_bytes(content)
    said: list[str] = []
    context = Context(home=tmp_path, progress=Progress("lines"))
    monkeypatch.setattr(context.progress, "say", said.append)
    resumed = train_base(directory, world, context, save_every_seconds=1e-6)
    assert any("step-00000009 is damaged (optimizer.safetensors was changed" in line for line in said)
    going = next(line for line in said if "going on after step" in line)
    assert int(going.split("step ")[1].split()[0]) < 9
    assert weights(resumed) == weights(base)


def test_a_kill_between_the_last_file_and_the_signature_costs_nothing(
    world: dict[str, Artifact], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = train_base(tmp_path / "base", world)
    evidence = first.evidence.to_json()
    (tmp_path / "base" / "evidence.json").unlink()
    monkeypatch.setattr(Trainer, "step", lambda self: pytest.fail("trained again"))
    again = train_base(tmp_path / "base", world)
    assert again.evidence.to_json() == evidence and again.record["failures"] == []


def test_minutes_become_steps_once(world: dict[str, Artifact], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = tmp_path / "base"
    budget = {"budget": {"minutes": 0.15}}
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        # the trial takes 12 steps before the run's first one
        train_base(directory, world, stopped_after(15, patch, tmp_path), **budget)
    start = read_json(directory / "start.json")
    assert start["steps"] > 24 and start["planned_seconds"] <= 9
    write_json(directory / "start.json", {**start, "steps": 30})
    resumed = train_base(directory, world, **budget)
    assert read_json(resumed.path / "training.json")["steps"] == 30


def test_a_run_goes_on_with_the_threads_it_began_with(
    world: dict[str, Artifact], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tmp_path / "base"
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        train_base(directory, world, stopped_after(2, patch, tmp_path), budget={"steps": 4})
    write_json(directory / "start.json", {**read_json(directory / "start.json"), "threads": 2})
    seen: list[int] = []
    step = Trainer.step

    def watched(self: Trainer) -> StepReport:
        seen.append(torch.get_num_threads())
        return step(self)

    monkeypatch.setattr(Trainer, "step", watched)
    train_base(directory, world, budget={"steps": 4})
    assert set(seen) == {2} and torch.get_num_threads() == 1


def test_a_model_that_did_not_improve_fails_its_evidence(world: dict[str, Artifact], tmp_path: Path) -> None:
    made = train_base(tmp_path / "base", world, optimizer={"learning_rate": 1e-12}, budget={"steps": 2})
    assert any(line.startswith("held_out_improved") for line in made.record["failures"])


def test_leaking_attention_fails_the_evidence(
    world: dict[str, Artifact], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wuxing.model.network.document_mask", lambda documents, dtype, causal: None)
    made = train_base(tmp_path / "base", world, budget={"steps": 2})
    assert any(line.startswith("packed_equals_separate") for line in made.record["failures"])


def test_a_checkpoint_that_differs_fails_the_evidence(
    world: dict[str, Artifact], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = Checkpoints._write

    def wrong(self: Checkpoints, step: int, tensors: Any, state: dict[str, Any], best: bool = False) -> None:
        tensors["model"]["model.norm.weight"] += 1e-6
        write(self, step, tensors, state, best)

    monkeypatch.setattr(Checkpoints, "_write", wrong)
    made = train_base(tmp_path / "base", world, budget={"steps": 2})
    assert any("model.norm.weight differs" in line for line in made.record["failures"])


def test_a_model_too_large_for_memory_is_refused(world: dict[str, Artifact], tmp_path: Path) -> None:
    with pytest.raises(
        WuxingError, match=r"a model too large for memory: .* [MG]B are free. Choose an architecture.size"
    ):
        train_base(tmp_path / "base", world, architecture={"size": "100b"})


def test_a_start_with_nan_is_refused(base: Artifact, world: dict[str, Artifact], tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    for path in base.path.iterdir():
        if path.is_file():
            (broken / path.name).write_bytes(path.read_bytes())
    tensors = load_file(base.path / WEIGHTS)
    tensors["model.layers.1.mlp.up_proj.weight"][3, 3] = float("nan")
    save_file(tensors, broken / WEIGHTS, metadata={"format": "pt"})
    config = base_config(start_from="base", architecture=None, tokenizer=None, optimizer={"learning_rate": 0.01})
    parents = {name: a for name, a in base_parents(world).items() if name != "tokenizer"}
    parents["start_from"] = signed(broken, "model", "broken")
    with pytest.raises(WuxingError, match="not finite. Look at the model in start_from"):
        make_in(tmp_path / "chat", ModelKind(), config, parents, Context(home=tmp_path))


def test_a_checkpoint_of_other_data_is_refused(
    world: dict[str, Artifact], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tmp_path / "base"
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        train_base(directory, world, stopped_after(2, patch, tmp_path))
    with pytest.raises(WuxingError, match="another sample plan"):
        train_base(directory, world, data={"articles": 0.5, "dialogues": 0.5})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"start_from": "x"}, ["architecture and start_from contradict"]),
        ({"architecture": None}, ["neither architecture nor start_from"]),
        ({"tokenizer": None}, ["architecture needs a tokenizer"]),
        ({"task": "arithmetic"}, ["data and task contradict"]),
        ({"objective": "grpo", "data": None, "batch_tokens": None}, ["grpo needs task"]),
        ({"rollout": {"prompts": 1, "group": 2, "reply_tokens": 3}}, ["rollout and objective next_token contradict"]),
        ({"objective": {"next_token": {}, "grpo": {}}}, ["one of next_token, masked, grpo or classify"]),
        ({"objective": {"next_tokn": {}}}, ["next_tokn"]),
        ({"budget": {"steps": 3, "minutes": 1}}, ["steps and minutes given"]),
        ({"budget": {}}, ["none given"]),
        ({"budget": {"epochs": 1}}, ["budget.epochs and several data sets"]),
        ({"length_tokens": 2048}, ["length_tokens is above architecture.max_positions"]),
        ({"batch_tokens": 8}, ["batch_tokens is below length_tokens"]),
        ({"data": {"articles": 0.0}}, ["share of articles in data is 0"]),
        ({"schedule": {"warm_up": 1}}, ["warm_up"]),
    ],
)
def test_contradictions_name_both_keys(changes: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(ValueError) as error:
        ModelConfig.model_validate({"make": "model", **base_config(**changes)})
    assert all(word in str(error.value) for word in words)


def test_models_that_read_the_same_data_share_its_tokens() -> None:
    kind = ModelKind()
    base = ModelConfig.model_validate({"make": "model", **base_config()})
    assert kind.expand("base", base) == {
        "articles.vocabulary": {"make": "tokens", "tokenizer": "vocabulary", "data": "articles"},
        "dialogues.vocabulary": {"make": "tokens", "tokenizer": "vocabulary", "data": "dialogues"},
    }
    assert {role: parent.reference for role, parent in kind.parents(base).items()} == {
        "tokenizer": "vocabulary",
        "data.articles": "articles.vocabulary",
        "data.dialogues": "dialogues.vocabulary",
    }
    solver = ModelConfig.model_validate({"make": "model", **solver_config()})
    assert kind.expand("solver", solver) == {} and set(kind.parents(solver)) == {"start_from", "task"}
    assert tokens_name("corpus/articles@v3", "model/base@production") == "corpus-articles-v3.model-base-production"


def test_the_step_kind_imports_nothing_heavy() -> None:
    import subprocess
    import sys

    code = "import sys, wuxing.train.model_kind, wuxing.data.tokens_kind; print(json.dumps(sorted(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", f"import json; {code}"], capture_output=True, text=True, check=True)
    assert not {"torch", "numpy", "pyarrow", "transformers", "tokenizers"} & set(json.loads(out.stdout))
