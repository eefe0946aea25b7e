"""Networks as directories that `transformers` reads too: config.json, generation_config.json, model.safetensors.

Only safetensors are read and nothing in a directory is ever executed.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, overload

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as save_tensors
from torch import Tensor

from wuxing.core.error import WuxingError
from wuxing.core.file import read_json, write_bytes, write_json
from wuxing.model.network import Network, is_causal
from wuxing.model.rope import KNOWN_SCALINGS, rope_tables

Kind = TypeVar("Kind", bound=Network)

FAMILIES = {"qwen3": "Qwen3ForCausalLM", "llama": "LlamaForCausalLM"}
_TOLD = {
    "classifier": "a classifier: it names classes and writes no text",
    "encoder": "an encoder, which sees both ways: it fills masked places and writes no text, and a causal server would "
    "compute something else from its weights",
}
_REMEDIES = {
    "classifier": "Name another model",
    "encoder": "Name a model of objective next_token; an encoder serves as start_from of a classifier, and in "
    "transformers",
}
_DEFAULTS: dict[str, dict[str, Any]] = {
    "max_position_embeddings": {"qwen3": 32768, "llama": 2048},
    "rms_norm_eps": {"qwen3": 1e-6, "llama": 1e-6},
    "tie_word_embeddings": {"qwen3": False, "llama": False},
    "hidden_act": {"qwen3": "silu", "llama": "silu"},
    "attention_bias": {"qwen3": False, "llama": False},
    "mlp_bias": {"llama": False},
}


def read_config(directory: Path) -> dict[str, Any]:
    """The `config.json` of a Llama or Qwen3 model with every value that `Network` needs.

    Raises WuxingError when the file is missing or asks for something that we would compute differently.
    """
    path = Path(directory) / "config.json"
    if not path.is_file():
        raise WuxingError(f"{directory} holds no model", "config.json is missing; name a Hugging Face model directory")
    try:
        config = read_json(path)
    except ValueError as error:
        raise WuxingError(f"{path} is not JSON: {error}", "Download the model again") from error
    family = config.get("model_type")
    if family not in FAMILIES:
        raise WuxingError(
            f'{path} describes a "{family}" model, which Wuxing does not know', f"Known: {', '.join(FAMILIES)}"
        )
    _refuse_foreign(path, config)
    for name, default in _DEFAULTS.items():
        if family in default and config.get(name) is None:
            config[name] = default[family]
    heads = config["num_attention_heads"]
    config["num_key_value_heads"] = config.get("num_key_value_heads") or heads
    default_channels = 128 if family == "qwen3" else config["hidden_size"] // heads
    config["head_dim"] = config.get("head_dim") or default_channels
    config["rope_parameters"] = _rope(config)
    kind = config["rope_parameters"]["rope_type"]
    if kind not in KNOWN_SCALINGS:
        raise WuxingError(
            f'{path} asks for rope scaling "{kind}", which Wuxing does not compute',
            f"Known: {', '.join(KNOWN_SCALINGS)}",
        )
    return dict(config)


@overload
def load_network(directory: Path | str, device: torch.device | str = ..., dtype: torch.dtype = ...) -> Network: ...


@overload
def load_network(
    directory: Path | str, device: torch.device | str = ..., dtype: torch.dtype = ..., *, kind: type[Kind]
) -> Kind: ...


def load_network(
    directory: Path | str,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    kind: type[Network] = Network,
) -> Network:
    """The network of a model directory.  Raises WuxingError for missing, unexpected or misshapen tensors.

    `kind`: Network for one that goes on with text, Encoder for one that fills gaps, Classifier for one that names
    classes.
    """
    directory = Path(directory)
    config = read_config(directory)
    require_role(directory, kind)
    with torch.device("meta"):
        network = kind(config)
    tensors = _ours(network, _read_tensors(directory))
    _refuse_differences(directory, _expected(network), tensors)
    loaded = {name: torch.nn.Parameter(tensor.to(device, dtype)) for name, tensor in tensors.items()}
    network.load_state_dict(loaded, assign=True)
    cos, sin = rope_tables(config)
    network.cos, network.sin = cos.to(device), sin.to(device)
    return network


def require_role(directory: Path, kind: type[Network]) -> None:
    """Raise WuxingError when the model in a directory is for something else than `kind`."""
    found = role_of(directory)
    if found == kind.role:
        return
    if kind is not Network:
        raise WuxingError(f"{directory} is no {kind.role}", "Name another model")
    raise WuxingError(f"{directory} is {_TOLD[found]}", _REMEDIES[found])


def role_of(directory: Path | str) -> str:
    """What the model in a directory is for: `classifier`, `encoder` or `language model`."""
    config = read_json(Path(directory) / "config.json")
    names = config.get("architectures") or [""]
    if str(names[0]).endswith("ForSequenceClassification"):
        return "classifier"
    return "language model" if is_causal(config) else "encoder"


def save_network(network: Network, directory: Path | str, dtype: torch.dtype | None = None) -> None:
    """Write the network so that `load_network` and `transformers` read it back; `dtype` converts the weights."""
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    dtype = dtype or network.dtype
    tensors = {name: p.detach().to("cpu", dtype).contiguous() for name, p in network.named_parameters()}
    write_bytes(directory / "model.safetensors", save_tensors(tensors, metadata={"format": "pt"}))
    save_config(network.config, directory, dtype)


def save_config(config: dict[str, Any], directory: Path, dtype: torch.dtype) -> None:
    """What stands beside the weights: `config.json` and `generation_config.json`."""
    config = {**config, "dtype": str(dtype).removeprefix("torch.")}
    config.pop("torch_dtype", None)
    ids = {
        name: config[name] for name in ("bos_token_id", "eos_token_id", "pad_token_id") if config.get(name) is not None
    }
    write_json(directory / "generation_config.json", ids)
    write_json(directory / "config.json", config)


def open_weights(directory: Path, network: Network) -> Callable[[str, torch.Size], Tensor]:
    """The tensors of a model directory, one at a time, for a network whose own may lie on the meta device.

    Raises WuxingError for missing, unexpected or misshapen tensors, before any is read.
    """
    found: dict[str, Any] = {}
    shapes: dict[str, Tensor] = {}
    for path in _tensor_files(directory):
        file = safe_open(path, framework="pt")
        for name in file.keys():  # noqa: SIM118
            found[name], shapes[name] = file, torch.empty(file.get_slice(name).get_shape(), device="meta")
    _refuse_differences(directory, _expected(network), _ours(network, shapes))
    return lambda name, shape: found[name].get_tensor(name)


def _expected(network: Network) -> dict[str, torch.Size]:
    return {name: parameter.shape for name, parameter in network.named_parameters()}


def _ours(network: Network, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Without what follows from the rest."""
    if network.config["tie_word_embeddings"]:
        tensors.pop("lm_head.weight", None)
    return {name: tensor for name, tensor in tensors.items() if not name.endswith("rotary_emb.inv_freq")}


def _refuse_foreign(path: Path, config: dict[str, Any]) -> None:
    for key, allowed in {"hidden_act": ("silu", None), "use_sliding_window": (False, None)}.items():
        if config.get(key) not in allowed:
            raise WuxingError(
                f"{path} sets {key} to {config[key]!r}, which Wuxing does not compute", "Use a model without it"
            )
    if config.get("quantization_config"):
        raise WuxingError(f"{path} describes quantised weights", "Use the model's unquantised files")
    for key in ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "vocab_size"):
        if not isinstance(config.get(key), int):
            raise WuxingError(f"{path} does not give {key}", "Download the model again")


def _rope(config: dict[str, Any]) -> dict[str, Any]:
    """Both spellings: `rope_parameters` (transformers 5) and `rope_theta` with `rope_scaling` (before)."""
    rope = dict(config.pop("rope_scaling", None) or {}) | dict(config.get("rope_parameters") or {})
    rope["rope_type"] = rope.pop("type", None) or rope.get("rope_type") or "default"
    rope.setdefault("rope_theta", config.pop("rope_theta", None) or 10_000.0)
    return rope


def _tensor_files(directory: Path) -> list[Path]:
    """The files with the weights.  Raises WuxingError when one of them is missing."""
    index = directory / "model.safetensors.index.json"
    if index.is_file():
        files = sorted(set(read_json(index)["weight_map"].values()))
    else:
        files = ["model.safetensors"]
    for name in files:
        path = directory / name
        if not path.is_file():
            other = next((p.name for p in directory.glob("*.bin")), None)
            found = f"; {other} is a pickle, which is never read" if other else ""
            raise WuxingError(f"{path} is missing{found}", "Give the model as safetensors")
    return [directory / name for name in files]


def _read_tensors(directory: Path) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for path in _tensor_files(directory):
        try:
            with safe_open(path, framework="pt") as file:
                tensors.update({key: file.get_tensor(key) for key in file.keys()})  # noqa: SIM118
        except SafetensorError as error:
            raise WuxingError(f"{path} is damaged: {error}", "Download or make the model again") from error
    return tensors


def _refuse_differences(directory: Path, expected: dict[str, torch.Size], tensors: dict[str, Tensor]) -> None:
    missing = sorted(expected.keys() - tensors.keys())
    unexpected = sorted(tensors.keys() - expected.keys())
    for what, names in (("lacks", missing), ("has unexpected", unexpected)):
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            raise WuxingError(
                f"{directory} {what} tensor {names[0]}{more}", "Its config.json describes another network"
            )
    for name, shape in expected.items():
        if tensors[name].shape != shape:
            raise WuxingError(
                f"{directory} has {name} of shape {tuple(tensors[name].shape)}, not {tuple(shape)}",
                "Its config.json describes another network",
            )
