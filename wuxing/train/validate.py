"""Held-out measurements while training: bits per byte of text, accuracy on a task.

Shapes: B rows, T tokens.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from typing import Protocol

import torch
from torch import Tensor

from wuxing.compute import team
from wuxing.data.batch import IGNORED, Batch
from wuxing.data.packing import Packing
from wuxing.data.source import in_order
from wuxing.generate.engine import Engine, Request
from wuxing.model.network import Network
from wuxing.objective.next_token import NextToken
from wuxing.task.task import Example, Task
from wuxing.text.tokenizer import Tokenizer

ROWS_AT_ONCE_TOKENS = 8192


class Validator(Protocol):
    """One held-out measurement."""

    metric: str
    """The figure that says which of two models is better."""
    lower_is_better: bool

    def __call__(self, network: Network) -> dict[str, float]:
        """The metric and other figures by name."""
        ...


@dataclass
class BitsPerByte:
    """Nats of the labels that teach, over ln 2 and the bytes of the text they stand for.

    Special tokens (ends of documents and turns) are left out on both sides: they stand for no byte.  A document that is
    longer than a row is read in rows, each without what came before it.
    """

    packings: Mapping[str, Packing]
    tokenizer: Tokenizer
    length: int
    tokens: int
    precision: torch.dtype
    metric: str = "bits_per_byte"
    lower_is_better: bool = True

    @cached_property
    def bytes_of_id(self) -> Tensor:
        """Length in bytes of each id's text; 0 of special tokens."""
        special = self.tokenizer.special_ids
        sizes = [0 if i in special else len(text) for i, text in enumerate(self.tokenizer.token_bytes)]
        return torch.tensor(sizes)

    @torch.no_grad()
    def __call__(self, network: Network) -> dict[str, float]:
        figures: dict[str, float] = {}
        nats_of_all, bytes_of_all = 0.0, 0
        for name, packing in self.packings.items():
            nats, size = self._measure(network, packing)
            if size:
                figures[f"{self.metric}/{name}"] = nats / math.log(2) / size
            nats_of_all, bytes_of_all = nats_of_all + nats, bytes_of_all + size
        return {self.metric: nats_of_all / math.log(2) / max(1, bytes_of_all), **figures}

    def _measure(self, network: Network, packing: Packing) -> tuple[float, int]:
        nats, size = 0.0, 0
        rows = max(1, self.tokens // self.length)
        batches = in_order(packing, max(1, ROWS_AT_ONCE_TOKENS // self.length), rows)
        while turn := list(islice(batches, team.ranks())):
            counted, held = self._without_special(turn[team.rank()]) if team.rank() < len(turn) else (None, 0)
            with torch.autocast(network.device.type, self.precision, enabled=self.precision != torch.float32):
                if counted is not None and held:
                    nats += float(NextToken()(network, counted.to(network.device)).sum)
                elif network.keep_up is not None:
                    network.keep_up()
            size += held
        nats, whole = team.summed([nats, size])
        return nats, int(whole)

    def _without_special(self, batch: Batch) -> tuple[Batch, int]:
        sizes_BT = self.bytes_of_id[batch.labels_BT.clamp(min=0)] * (batch.labels_BT >= 0)
        return replace(batch, labels_BT=batch.labels_BT.where(sizes_BT > 0, IGNORED)), int(sizes_BT.sum())


@dataclass
class TaskAccuracy:
    """Share of held-out problems whose likeliest reply the task calls correct."""

    task: Task
    examples: list[Example]
    tokenizer: Tokenizer
    reply_tokens: int
    rows: int
    metric: str = "accuracy"
    lower_is_better: bool = False

    def __call__(self, network: Network) -> dict[str, float]:
        if not self.examples:
            return {self.metric: 0.0}
        ends = (self.tokenizer.end_of_turn_id, self.tokenizer.end_of_text_id)
        by_id = {example.id: example for example in self.examples}
        requests = [
            Request(
                example.id,
                self.tokenizer.encode_chat(self.task.prompt(example)),
                self.reply_tokens,
                temperature=0.0,
                stop_tokens=ends,
            )
            for example in self.examples[team.rank() :: team.ranks()]
        ]
        longest = max((len(request.tokens) for request in requests), default=0) + self.reply_tokens
        engine = Engine(network, max_rows=self.rows, max_tokens=min(longest, network.max_positions))
        correct = tokens = 0.0
        for reply in engine.generate(requests):
            correct += self.task.score(by_id[reply.id], self.tokenizer.decode(reply.tokens))["correct"]
            tokens += len(reply.tokens)
        correct, tokens = team.summed([correct, tokens])
        return {self.metric: correct / len(self.examples), "reply_tokens": tokens / len(self.examples)}
