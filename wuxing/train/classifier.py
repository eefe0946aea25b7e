"""The parts of a run that learns classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray

from wuxing.compute import team
from wuxing.core.artifact import Artifact
from wuxing.core.error import RefusedError
from wuxing.core.statistic import f1_interval, macro_f1, wilson
from wuxing.data.labelled import Labelled, classes_of, labelled, labels_of
from wuxing.data.source import in_order
from wuxing.data.tokens import open_tokens
from wuxing.model.network import Network
from wuxing.objective.classify import Classify, ClassLoss, class_weights
from wuxing.objective.next_token import taught
from wuxing.train.config import ModelConfig

ROWS_AT_ONCE_TOKENS = 8192


@dataclass(frozen=True)
class Labels:
    """The labelled rows of a run's data sets."""

    classes: dict[str, int]
    """Every class and how many training documents have it."""
    train: dict[str, Labelled]
    validation: dict[str, Labelled]

    def loss(self, config: Classify) -> ClassLoss:
        """The objective with its weights."""
        weights = class_weights(config, list(self.classes), list(self.classes.values()))
        return ClassLoss(tuple(weights), config.smoothing)


def read_labels(config: ModelConfig, parents: Mapping[str, Artifact]) -> Labels:
    """The documents and classes of a run.  Raises RefusedError where no class is held out."""
    assert config.objective.classify is not None and config.data is not None
    field, length = config.objective.classify.label, config.length_tokens
    data = {
        split: {name: open_tokens(parents[f"data.{name}"].path, split) for name in config.data}
        for split in ("train", "validation")
    }
    said = {
        split: {name: labels_of(parents[f"labels.{name}"].path, split, one, field) for name, one in sets.items()}
        for split, sets in data.items()
    }
    classes = classes_of(list(said["train"].values()))
    train, validation = (
        {name: labelled(one, said[split][name], classes, length) for name, one in data[split].items()}
        for split in ("train", "validation")
    )
    validation = {name: packing for name, packing in validation.items() if packing.rows}
    if not validation:
        raise RefusedError(
            f"none of {', '.join(config.data)} has validation rows, so nothing would show whether training helps",
            "Give one of them split: {validation: 0.1}",
        )
    return Labels(classes, train, validation)


@dataclass
class ClassAccuracy:
    """Share of held-out documents whose class is named rightly, and the mean of each class's F1, with intervals."""

    packings: Mapping[str, Labelled]
    classes: Sequence[str]
    length: int
    tokens: int
    precision: torch.dtype
    metric: str = "accuracy"
    lower_is_better: bool = False

    def figures(self, data: Sequence[str]) -> list[str]:
        """The names of what is measured."""
        ends = ("", "_low", "_high")
        return [*(f"{name}{end}" for name in ("accuracy", "macro_f1") for end in ends), "nats"]

    @torch.no_grad()
    def __call__(self, network: Network) -> dict[str, float]:
        """`accuracy` with Wilson's interval, `macro_f1` with a bootstrap over documents, `nats` per document."""
        counts, nats = np.zeros((len(self.classes), len(self.classes))), 0.0
        for packing in self.packings.values():
            found, lost = self._confusion(network, packing)
            counts, nats = counts + found, nats + lost
        right, total = int(np.trace(counts)), int(counts.sum())
        share, (low, high) = wilson(right, total), f1_interval(counts)
        return {
            "accuracy": share.value,
            "accuracy_low": share.low,
            "accuracy_high": share.high,
            "macro_f1": macro_f1(counts),
            "macro_f1_low": low,
            "macro_f1_high": high,
            "nats": nats / total,
        }

    def _confusion(self, network: Network, packing: Labelled) -> tuple[NDArray[np.float64], float]:
        """(documents by true and by named class, the sum of nats)."""
        size = len(self.classes)
        counts, nats = torch.zeros(size * size, dtype=torch.float64), 0.0
        rows = max(1, self.tokens // self.length)
        batches = in_order(packing, self._at_once, rows)
        while turn := list(islice(batches, team.ranks())):
            batch = turn[team.rank()] if team.rank() < len(turn) else None
            with torch.autocast(network.device.type, self.precision, enabled=self.precision != torch.float32):
                if batch is not None:
                    hidden_ND, labels_N = taught(network, batch.to(network.device))
                elif network.cut is not None:
                    network.cut.keep_up()
            if batch is None:
                continue
            logprobs_NC = (hidden_ND.float() @ network.head_VD.float().T).log_softmax(-1)
            named_N = logprobs_NC.argmax(-1)
            counts += torch.bincount((labels_N * size + named_N).cpu(), minlength=size * size)
            nats -= float(logprobs_NC.gather(-1, labels_N[:, None]).sum(dtype=torch.float64))
        *whole, nats = team.summed([*counts.tolist(), nats])
        return np.array(whole).reshape(size, size), nats

    @property
    def _at_once(self) -> int:
        return max(1, ROWS_AT_ONCE_TOKENS // self.length)
