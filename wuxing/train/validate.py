"""Held-out measurements while training: bits per byte of text, accuracy on a task.

Shapes: B rows, T tokens.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from typing import Protocol

import torch
from torch import Tensor

from wuxing.compute import team
from wuxing.core.error import RefusedError, UsageError, nearest
from wuxing.data.batch import IGNORED, Batch
from wuxing.data.masking import Masking
from wuxing.data.packing import Packing
from wuxing.data.source import in_order
from wuxing.generate.engine import Engine, Request
from wuxing.model.network import Network
from wuxing.objective.next_token import NextToken
from wuxing.task.task import Example, Task
from wuxing.text.tokenizer import Tokenizer
from wuxing.train.config import Validation
from wuxing.train.update.exact import exact_sums

LOWER_IS_BETTER = ("bits_per_byte", "masked_bits_per_byte", "nats", "reply_tokens")
HELD_OUT_SHARE = 0.15
ROWS_AT_ONCE_TOKENS = 8192
TASK_ROWS = 128
"""Replies to the problems of a task that are drawn at once, of those that reinforcement learning measures."""


class Validator(Protocol):
    """One held-out measurement."""

    metric: str
    """The figure that says which of two models is better."""
    lower_is_better: bool

    def __call__(self, network: Network) -> dict[str, float]:
        """The metric and other figures by name."""
        ...


class TextValidator(Validator, Protocol):
    """A measurement on the data sets of a run."""

    def figures(self, data: Sequence[str]) -> list[str]:
        """The names of what is measured, for data sets of these names."""
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

    def figures(self, data: Sequence[str]) -> list[str]:
        """The names of what is measured."""
        return [self.metric, *(f"{self.metric}/{name}" for name in data)]

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
        found: list[list[float]] = []
        rows = max(1, self.tokens // self.length)
        batches = in_order(packing, max(1, ROWS_AT_ONCE_TOKENS // self.length), rows)
        while turn := list(islice(batches, team.ranks())):
            counted, held = self._counted(turn[team.rank()]) if team.rank() < len(turn) else (None, 0)
            nats = 0.0
            with torch.autocast(network.device.type, self.precision, enabled=self.precision != torch.float32):
                if counted is not None and held:
                    nats = float(NextToken()(network, counted.to(network.device)).sum)
                elif network.cut is not None:
                    network.cut.keep_up()
            found.append([nats, held])
        nats, whole = exact_sums(found, 2)
        return nats, int(whole)

    def _counted(self, batch: Batch) -> tuple[Batch, int]:
        sizes_BT = self.bytes_of_id[batch.labels_BT.clamp(min=0)] * (batch.labels_BT >= 0)
        return replace(batch, labels_BT=batch.labels_BT.where(sizes_BT > 0, IGNORED)), int(sizes_BT.sum())


@dataclass
class MaskedBits(BitsPerByte):
    """The same of tokens that are masked: 15 % of each row, all of them behind the mask token, always the same ones.

    What an objective masks while it learns makes no difference, so runs of other shares and replacements compare.
    """

    metric: str = "masked_bits_per_byte"
    mask_id: int = 0

    @classmethod
    def of(cls, text: BitsPerByte, mask_id: int) -> MaskedBits:
        """On the same rows."""
        return cls(text.packings, text.tokenizer, text.length, text.tokens, text.precision, mask_id=mask_id)

    @cached_property
    def _masking(self) -> Masking:
        ids = (self.mask_id, self.tokenizer.vocab_size, self.tokenizer.special_ids)
        return Masking("validation", *ids, HELD_OUT_SHARE, replaced=1.0, random=0.0)

    def _counted(self, batch: Batch) -> tuple[Batch, int]:
        return super()._counted(self._masking(batch))


@dataclass
class Several:
    """Text and tasks together; one of their figures says which of two models is better."""

    parts: Mapping[str, Validator]
    """By the name behind the slash of their figures; empty for one whose figures are called as they are."""
    metric: str
    lower_is_better: bool

    def __call__(self, network: Network) -> dict[str, float]:
        found: dict[str, float] = {}
        for name, part in self.parts.items():
            found |= {f"{key}/{name}" if name else key: value for key, value in part(network).items()}
        return {self.metric: found[self.metric], **found}


def with_tasks(
    text: TextValidator,
    data: Sequence[str],
    config: Validation,
    tasks: Mapping[str, Task],
    tokenizer: Tokenizer,
    longest: int,
) -> Validator:
    """The measurement of a run on data: its text, the tasks of `validation.tasks`, and which figure counts.

    `longest`: positions of the network.  Raises UsageError for a figure that nothing measures, RefusedError for a task
    without a problem that fits.
    """
    parts: dict[str, Validator] = {"": text}
    for name, task in tasks.items():
        room = longest - config.reply_tokens
        examples = task.examples("validation")[: config.prompts]
        fitting = [e for e in examples if len(tokenizer.encode_chat(task.prompt(e))) <= room]
        if not fitting:
            raise RefusedError(
                f"none of the {len(examples)} validation problems of {name} fits into {longest} positions with a reply "
                f"of {config.reply_tokens}",
                "Lower validation.reply_tokens, or give the task validation examples",
            )
        parts[name] = TaskAccuracy(task, fitting, tokenizer, config.reply_tokens, config.rows)
    metric = config.metric or text.metric
    known = [*text.figures(data), *(f"{key}/{name}" for name in tasks for key in ("accuracy", "reply_tokens"))]
    if metric not in known:
        raise UsageError(f'validation.metric: nothing measures "{metric}"', nearest(metric, known))
    if len(parts) == 1 and metric == text.metric:
        return text
    return Several(parts, metric, metric.partition("/")[0] in LOWER_IS_BETTER)


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
        with engine.holding():
            for reply in engine.generate(requests):
                correct += self.task.score(by_id[reply.id], self.tokenizer.decode(reply.tokens))["correct"]
                tokens += len(reply.tokens)
        correct, tokens = team.summed([correct, tokens])
        return {self.metric: correct / len(self.examples), "reply_tokens": tokens / len(self.examples)}
