"""Model directories: what is written is what is read, and what is wrong gets one clear line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from wuxing.core.error import WuxingError
from wuxing.model.architecture import Architecture, resolve
from wuxing.model.files import load_network, save_network
from wuxing.model.network import Network


def _saved(directory: Path, tied: bool = True) -> Network:
    architecture = Architecture(size="100k", width=32, layers=2, max_positions=64, tie_embeddings=tied)
    network = Network(resolve(architecture, 200, 0, 2)).initialise(7)
    save_network(network, directory)
    return network


@pytest.mark.parametrize("tied", [True, False])
def test_round_trip_is_exact_and_writes_these_files(tmp_path: Path, tied: bool) -> None:
    network = _saved(tmp_path, tied)
    assert {p.name for p in tmp_path.iterdir()} == {"config.json", "generation_config.json", "model.safetensors"}
    again = load_network(tmp_path)
    ours, theirs = network.state_dict(), again.state_dict()
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert torch.equal(again.cos, network.cos) and all(p.requires_grad for p in again.parameters())
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    save_network(again, tmp_path)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before
    assert json.loads((tmp_path / "generation_config.json").read_text())["eos_token_id"] == [2, 0]


def test_shards_and_older_spellings_are_read(tmp_path: Path) -> None:
    network = _saved(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    names = sorted(tensors)
    parts = {"a.safetensors": names[:5], "b.safetensors": names[5:]}
    for file, part in parts.items():
        save_file({name: tensors[name] for name in part}, tmp_path / file)
    (tmp_path / "model.safetensors").unlink()
    index = {"weight_map": {name: file for file, part in parts.items() for name in part}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    config = json.loads((tmp_path / "config.json").read_text())
    theta = config.pop("rope_parameters")["rope_theta"]
    (tmp_path / "config.json").write_text(json.dumps(config | {"rope_theta": theta, "rope_scaling": None}))
    row = torch.arange(20)[None]
    assert torch.equal(load_network(tmp_path)(row), network(row))


def _config(**changes: object) -> Callable[[Path], None]:
    def damage(directory: Path) -> None:
        config = json.loads((directory / "config.json").read_text()) | changes
        (directory / "config.json").write_text(json.dumps(config))

    return damage


def _tensors(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], None]:
    def damage(directory: Path) -> None:
        tensors = load_file(directory / "model.safetensors")
        change(tensors)
        save_file(tensors, directory / "model.safetensors")

    return damage


def _pickled(directory: Path) -> None:
    (directory / "model.safetensors").rename(directory / "pytorch_model.bin")


def _cut(directory: Path) -> None:
    path = directory / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


NORM = "model.norm.weight"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda d: (d / "config.json").unlink(), "config.json is missing"),
        (lambda d: (d / "config.json").write_text("{"), "is not JSON"),
        (_config(model_type="mamba"), 'describes a "mamba" model, which Wuxing does not know. Known: qwen3, llama'),
        (_config(rope_parameters={"rope_type": "yarn", "factor": 4.0}), 'rope scaling "yarn".*Known: default, linear'),
        (_config(hidden_act="gelu"), "sets hidden_act to 'gelu'"),
        (_config(use_sliding_window=True), "sets use_sliding_window to True"),
        (_config(quantization_config={"bits": 4}), "quantised weights"),
        (_config(hidden_size=None), "does not give hidden_size"),
        (_config(num_hidden_layers=3), "lacks tensor model.layers.2.input_layernorm.weight and 10 more"),
        (_config(num_hidden_layers=1), "unexpected tensor model.layers.1.input_layernorm.weight and 10 more"),
        (_config(intermediate_size=64), "gate_proj.weight of shape .128, 32., not .64, 32."),
        (_tensors(lambda t: t.pop(NORM)), "lacks tensor model.norm.weight"),
        (_pickled, "pytorch_model.bin is a pickle, which is never read"),
        (_cut, "is damaged"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(tmp_path: Path, damage: Callable[[Path], None], message: str) -> None:
    _saved(tmp_path)
    damage(tmp_path)
    with pytest.raises(WuxingError, match=message) as caught:
        load_network(tmp_path)
    assert "\n" not in str(caught.value)
