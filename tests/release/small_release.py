"""A network that looks trained, and artifacts made of the files that lie there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from wuxing.core.artifact import Artifact
from wuxing.core.file import write_json
from wuxing.model.architecture import Architecture, resolve
from wuxing.model.network import Network
from wuxing.text.tokenizer import Tokenizer


def trained_network(tokenizer: Tokenizer, family: str = "qwen3", tied: bool = True, **changes: Any) -> Network:
    """Spread out as a trained network is: norms away from 1, logits of some 10 nats."""
    architecture = Architecture(
        family=family,
        size="500k",
        width=64,
        layers=3,
        max_positions=256,
        tie_embeddings=tied,  # type: ignore[arg-type]
    )
    config = resolve(architecture, tokenizer.vocab_size, tokenizer.end_of_text_id, tokenizer.end_of_turn_id)
    network = Network(config | changes).initialise(3)
    with torch.no_grad():
        network.head_VD.mul_(4)
        for name, parameter in network.named_parameters():
            if name.endswith(("norm.weight", ".bias")):
                generator = torch.Generator().manual_seed(len(name))
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
            elif name.endswith(("o_proj.weight", "down_proj.weight")):
                parameter.mul_(6)
    return network


def signed(kind: str, name: str, path: Path, parents: dict[str, str] | None = None) -> Artifact:
    """An artifact of the files that lie there."""
    files = {str(p.relative_to(path)): {"sha256": "0" * 64, "bytes": 0} for p in path.rglob("*") if p.is_file()}
    record = {
        "kind": kind,
        "name": name,
        "version": 1,
        "fingerprint": "0" * 64,
        "content": f"{kind}-{name}",
        "config": {},
        "parents": {role: {"id": id, "content": "0"} for role, id in (parents or {}).items()},
        "files": files,
        "failures": [],
    }
    write_json(path / "record.json", record)
    return Artifact(path, record)
