"""A network that says which class a text belongs to, in the layout of `Qwen3ForSequenceClassification` and its kin."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from wuxing.model.encoder import Encoder
from wuxing.model.files import load_network, open_weights, read_config, role_of
from wuxing.model.network import Network

SUFFIX = "ForSequenceClassification"


class Classifier(Network):
    """The body of a language model, and one row of `score` for each class instead of the output table."""

    role = "classifier"

    def __init__(self, config: dict[str, Any]):
        super().__init__({**config, "tie_word_embeddings": True})
        self.config = config
        self.score = nn.Linear(config["hidden_size"], len(config["id2label"]), bias=False)

    @property
    def head_VD(self) -> Tensor:
        """One row for each class."""
        return self.score.weight

    @property
    def classes(self) -> list[str]:
        """Their names, by number."""
        return [self.config["id2label"][str(number)] for number in range(len(self.config["id2label"]))]


def classifier_config(config: dict[str, Any], classes: Sequence[str]) -> dict[str, Any]:
    """The `config.json` of a classifier with this body."""
    family = {"qwen3": "Qwen3", "llama": "Llama"}[config["model_type"]]
    return {
        **config,
        "architectures": [family + SUFFIX],
        "problem_type": "single_label_classification",
        "id2label": {str(number): name for number, name in enumerate(classes)},
        "label2id": {name: number for number, name in enumerate(classes)},
    }


def new_classifier(config: dict[str, Any], classes: Sequence[str], seed: int) -> Classifier:
    """A fresh one."""
    network = Classifier(classifier_config(config, classes))
    network.initialise(seed)
    return network


def classifier_from(directory: Path, classes: Sequence[str], seed: int) -> Classifier:
    """One that goes on from a model: its body, which sees as it did; its classes too where they are the same."""
    before = load_network(directory, kind=_kind_of(directory))
    network = new_classifier(before.config, classes, seed)
    network.model.load_state_dict(before.model.state_dict())
    if isinstance(before, Classifier) and before.classes == list(classes):
        network.score.load_state_dict(before.score.state_dict())
    return network


def open_first(directory: Path, network: Classifier, seed: int) -> Callable[[str, torch.Size], Tensor]:
    """The values of `classifier_from`, one tensor at a time, for a network whose own may lie on the meta device."""
    with torch.device("meta"):
        before = _kind_of(directory)(read_config(directory))
    read = open_weights(directory, before)
    known = isinstance(before, Classifier) and before.classes == network.classes

    def first(name: str, shape: torch.Size) -> Tensor:
        return read(name, shape) if known or name != "score.weight" else network.initial(name, shape, seed)

    return first


def _kind_of(directory: Path) -> type[Network]:
    return {Classifier.role: Classifier, Encoder.role: Encoder}.get(role_of(directory), Network)
