"""Releases: every format proved by the program that reads it, every fault caught, the gate obeyed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_release import trained_network

from wuxing.core.artifact import Artifact
from wuxing.core.context import Context
from wuxing.core.digest import digest_of_file
from wuxing.core.error import UsageError, WuxingError
from wuxing.core.evidence import Evidence
from wuxing.core.step import Draft
from wuxing.model.network import Network
from wuxing.release import release
from wuxing.release.gguf_file import write_gguf
from wuxing.release.release import export, load_trained, prove
from wuxing.release.release_kind import ReleaseKind, ReleaseStep
from wuxing.text.tokenizer import Tokenizer

MakeParents = Callable[..., dict[str, Artifact]]
GATE = {"better_than": "base", "metric": "accuracy/sums", "alias": "production"}
CONFIG = {"model": "solver", "evaluation": "scores", "gate": GATE}
FAMILIES: list[dict[str, Any]] = [
    {"family": "llama"},
    {"family": "qwen3", "tied": False},
    {"family": "llama", "attention_bias": True},
    {"family": "qwen3", "rope_parameters": {"rope_type": "linear", "rope_theta": 5000.0, "factor": 2.0}},
    {
        "family": "llama",
        "rope_parameters": {
            "rope_type": "llama3",
            "rope_theta": 10000.0,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64,
        },
    },
]


def _exported(
    make_parents: MakeParents, tmp_path: Path, damage: Callable[[Path], object] | None = None, **changes: Any
) -> tuple[Evidence, dict[str, Any]]:
    """Export the model, damage the export, prove it."""
    config = ReleaseStep.model_validate({"make": "release", **CONFIG, **changes.pop("config", {})})
    model = make_parents(**changes)["model"]
    trained = load_trained(model, [])
    draft = Draft(tmp_path / "release", "release", "first", "0" * 64, 7)
    export(config, model, trained, draft.path, "first")
    if damage:
        damage(draft.path)
    parity = prove(config, trained, draft)
    return draft.evidence, parity


def _failed(evidence: Evidence) -> set[str]:
    return {check.name for check in evidence.checks if check.verdict == "failed"}


def _scale_column(values: torch.Tensor, column: int = 5) -> None:
    values[:, column] *= 1.05


def test_a_release_is_whole(make_parents: MakeParents, make_step: Callable[..., Artifact], tmp_path: Path) -> None:
    context = Context(home=tmp_path / "home", workers=1)
    made = make_step(ReleaseKind(), CONFIG, make_parents(), name="first", context=context)
    assert made.record["failures"] == []
    assert {name for name in made.record["files"] if not name.startswith("evidence")} == {
        *(f"model/{name}" for name in (*release.MODEL_FILES, "README.md")),
        *("model.gguf", "parity.json", "reference.json", "template.json", "manifest.json"),
    }
    assert made.record["summary"]["promote"] == {"alias": "production"}
    manifest = json.loads((made.path / "manifest.json").read_text())
    assert all(digest_of_file(made.path / entry["path"]) == entry["sha256"] for entry in manifest)
    assert {entry["path"] for entry in manifest} >= {"model/model.safetensors", "model.gguf", "model/README.md"}
    template = json.loads((made.path / "template.json").read_text())["digest"]
    assert template == Tokenizer.load(made.path / "model").template_digest
    assert list(json.loads((made.path / "reference.json").read_text())) == ["solver"]
    sources = made.evidence.value("licenses")
    assert {(one["name"], one["license"]) for one in sources} == {("wiki", "cc-by-sa-4.0"), ("sums", "generated")}
    card = (made.path / "model" / "README.md").read_text()
    assert (
        card.startswith("---\nlicense: other\n") and "corpus/articles@v1" in card and "| accuracy/sums | 0.4 " in card
    )
    parity = json.loads((made.path / "parity.json").read_text())["formats"]
    assert parity["transformers"]["logits"]["max_difference"] < 1e-4
    assert parity["llama.cpp"]["logits"]["max_difference"] < 1e-4


@pytest.mark.parametrize("settings", FAMILIES, ids=lambda s: "-".join(str(k) for k in s))
def test_other_families_and_shapes_are_equal_too(
    make_parents: MakeParents, tmp_path: Path, settings: dict[str, Any]
) -> None:
    evidence, _ = _exported(make_parents, tmp_path, **settings)
    assert _failed(evidence) == set()


@pytest.mark.parametrize(("precision", "worst"), [("f16", 0.05), ("bf16", 0.4)])
def test_half_precisions_are_equal_within_their_rounding(
    make_parents: MakeParents, tmp_path: Path, precision: str, worst: float
) -> None:
    evidence, parity = _exported(make_parents, tmp_path, config={"gguf_precision": precision})
    assert _failed(evidence) == set()
    assert 1e-4 < parity["formats"]["llama.cpp"]["logits"]["max_difference"] < worst
    size = (tmp_path / "release" / "model.gguf").stat().st_size
    assert size < 0.75 * (tmp_path / "release" / "model" / "model.safetensors").stat().st_size


@pytest.mark.parametrize("tensor", ["embed_tokens", "layers.2.self_attn.k_proj", "layers.0.mlp.down_proj"])
def test_a_perturbed_tensor_is_caught_in_safetensors(make_parents: MakeParents, tmp_path: Path, tensor: str) -> None:
    """Seeded fault: one column of one tensor of the export is scaled by 1.05."""

    def damage(directory: Path) -> None:
        tensors = load_file(directory / "model" / "model.safetensors")
        _scale_column(tensors[f"model.{tensor}.weight"])
        save_file(tensors, directory / "model" / "model.safetensors", metadata={"format": "pt"})

    evidence, parity = _exported(make_parents, tmp_path, damage, config={"formats": ["safetensors"]})
    assert {"parity_tensors", "parity_logits"} <= _failed(evidence)
    assert parity["formats"]["transformers"]["tensors"] == [f"model.{tensor}.weight"]


@pytest.mark.parametrize("precision", ["f32", "f16"])
def test_a_perturbed_tensor_is_caught_in_gguf(
    make_parents: MakeParents, tmp_path: Path, tokenizer: Tokenizer, precision: str
) -> None:
    def damage(directory: Path) -> None:
        network = trained_network(tokenizer)
        with torch.no_grad():
            _scale_column(network.model.layers[1].self_attn.o_proj.weight)
        write_gguf(network, tokenizer, directory / "model.gguf", "first", precision)

    evidence, parity = _exported(make_parents, tmp_path, damage, config={"gguf_precision": precision})
    assert "parity_tensors" in _failed(evidence)
    assert parity["formats"]["llama.cpp"]["tensors"] == ["blk.1.attn_output.weight"]
    assert parity["formats"]["transformers"]["tensors"] == []
    if precision == "f32":
        assert "parity_logits" in _failed(evidence)


def test_a_wrong_text_split_is_caught(make_parents: MakeParents, tmp_path: Path, tokenizer: Tokenizer) -> None:
    """Seeded fault: the GGUF file names GPT-2's way to split text, which keeps digits together."""

    def damage(directory: Path) -> None:
        wrong = Tokenizer(tokenizer.backend, tokenizer.config | {"pre_tokenizer": "gpt-2"}, tokenizer.template.source)
        write_gguf(trained_network(tokenizer), wrong, directory / "model.gguf", "first")

    evidence, parity = _exported(make_parents, tmp_path, damage)
    assert _failed(evidence) == {"parity_ids"}
    assert parity["formats"]["transformers"]["ids"] == [] and parity["formats"]["llama.cpp"]["ids"]


def test_another_template_is_caught(make_parents: MakeParents, tmp_path: Path) -> None:
    """Seeded fault: the released template greets where the trained one does not."""

    def damage(directory: Path) -> None:
        path = directory / "model" / "chat_template.jinja"
        path.write_text("Hi! " + path.read_text())

    evidence, _ = _exported(make_parents, tmp_path, damage, config={"formats": ["safetensors"]})
    assert _failed(evidence) == {"parity_template"}


def test_another_networks_answers_are_caught(make_parents: MakeParents, tmp_path: Path, tokenizer: Tokenizer) -> None:
    def damage(directory: Path) -> None:
        other: Network = trained_network(tokenizer).initialise(99)
        write_gguf(other, tokenizer, directory / "model.gguf", "first")

    evidence, _ = _exported(make_parents, tmp_path, damage)
    assert {"parity_answers", "parity_logits", "parity_tensors"} == _failed(evidence)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("modeling_evil.py", "print(1)"),
        ("pytorch_model.bin", "x"),
        ("config.json", {"auto_map": {"AutoModel": "modeling_evil.Evil"}}),
    ],
)
def test_code_in_a_release_is_caught(tmp_path: Path, tokenizer: Tokenizer, name: str, content: Any) -> None:
    draft = Draft(tmp_path, "release", "first", "0" * 64, 7)
    tokenizer.save(tmp_path / "model")
    (tmp_path / "model" / "config.json").write_text("{}")
    path = tmp_path / "model" / name
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    release._judge_directory(draft, tokenizer)
    assert _failed(draft.evidence) == {"loads_without_code"}


def test_a_missing_reader_is_missing_evidence(
    make_parents: MakeParents, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(release, "has_llama", lambda: False)
    evidence, _ = _exported(make_parents, tmp_path)
    assert _failed(evidence) == {"readers"}
    assert "pip install wuxing[fast-cpu]" in evidence.failures()[0]


def test_a_refused_gate_is_signed_evidence_and_promotes_nothing(
    make_parents: MakeParents, make_step: Callable[..., Artifact], tmp_path: Path
) -> None:
    config = CONFIG | {"formats": ["safetensors"]}
    context = Context(home=tmp_path / "home")
    made = make_step(ReleaseKind(), config, make_parents(gain=0.05), name="first", context=context)
    assert len(made.record["failures"]) == 1 and made.record["failures"][0].startswith("gate is ")
    assert "promote" not in made.record["summary"] and (made.path / "model" / "model.safetensors").exists()
    assert made.evidence.value("gate")["gain"] == pytest.approx(0.05)


def test_licenses_can_be_demanded(
    make_parents: MakeParents, make_step: Callable[..., Artifact], tmp_path: Path
) -> None:
    config = CONFIG | {"formats": ["safetensors"], "allowed_licenses": ["generated", "mit"]}
    context, parents = Context(home=tmp_path / "home"), make_parents()
    made = make_step(ReleaseKind(), config, parents, name="first", context=context)
    assert len(made.record["failures"]) == 1 and "cc-by-sa-4.0" in made.record["failures"][0]
    enough = config | {"allowed_licenses": ["generated", "CC-BY-SA-4.0"]}
    assert make_step(ReleaseKind(), enough, parents, name="second", context=context).record["failures"] == []


def test_mistakes_are_said_before_anything_is_computed(
    make_parents: MakeParents, make_step: Callable[..., Artifact], tmp_path: Path
) -> None:
    parents = make_parents()
    for gate, message in {
        "accuracy/sum": 'by "accuracy/sum". Did you mean "accuracy/sums"',
        "accuracy/arithmetic": "no comparison",
    }.items():
        with pytest.raises(UsageError, match=message):
            make_step(ReleaseKind(), CONFIG | {"gate": GATE | {"metric": gate}}, parents)
    with pytest.raises(UsageError, match='better than "bass".*Did you mean "base"'):
        make_step(ReleaseKind(), CONFIG | {"gate": GATE | {"better_than": "bass"}}, parents)
    with pytest.raises(UsageError, match="better than itself"):
        make_step(ReleaseKind(), CONFIG | {"gate": GATE | {"better_than": "solver"}}, parents)
    stranger = Artifact(parents["model"].path, parents["model"].record | {"name": "stranger"})
    with pytest.raises(WuxingError, match="did not evaluate model/stranger@v1"):
        make_step(ReleaseKind(), CONFIG, parents | {"model": stranger})
    assert not list((tmp_path / "made").rglob("*.safetensors"))
    with pytest.raises(ValueError, match="formats must hold safetensors"):
        ReleaseStep.model_validate({"make": "release", **CONFIG, "formats": ["gguf"]})


def test_a_tokenizer_without_a_name_has_no_gguf(tokenizer: Tokenizer, tmp_path: Path) -> None:
    config = {key: value for key, value in tokenizer.config.items() if key != "pre_tokenizer"}
    nameless = Tokenizer(tokenizer.backend, config, tokenizer.template.source)
    with pytest.raises(WuxingError, match="llama.cpp has no name"):
        write_gguf(trained_network(tokenizer), nameless, tmp_path / "model.gguf", "first")
    assert list(tmp_path.iterdir()) == []
