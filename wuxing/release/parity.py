"""Whether an export is the model that was trained: ids, templates, tensors, logits and answers, all measured.

Shapes: T positions, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from wuxing.generate.engine import Engine, Request
from wuxing.model.network import Network
from wuxing.release.prompt import CHATS, TEXTS
from wuxing.release.reader import LlamaReader, Messages, TransformersReader
from wuxing.text.tokenizer import Tokenizer

ANSWER_TOKENS = 32
MAX_POSITIONS = 96
"""Tokens of a text that are compared; longer ones are cut."""
PREFIXES = (1, 4, 12, 32, 95)
"""Positions of each text at which llama.cpp is asked for its distribution."""


class Reader(Protocol):
    """What every reader can be asked."""

    name: str

    def ids(self, text: str) -> list[int]: ...

    def render(self, messages: Messages) -> str: ...

    def greedy(self, ids: list[int], tokens: int, stop: Sequence[int]) -> list[int]: ...


@dataclass
class Trained:
    """The model as it was trained, computed by us in fp32, and what it is asked."""

    network: Network
    tokenizer: Tokenizer
    chats: list[Messages] = field(default_factory=lambda: list(CHATS))
    texts: list[str] = field(default_factory=lambda: list(TEXTS))

    def __post_init__(self) -> None:
        room = min(MAX_POSITIONS, self.network.max_positions)
        lines = [ids for text in self.texts if (ids := self.tokenizer.encode(text))]
        lines += [self.tokenizer.encode_chat(chat) for chat in self.chats]
        self.lines = [ids[:room] for ids in lines]
        self.logits = [self._logits(ids) for ids in self.lines]

    @property
    def stop(self) -> list[int]:
        """What ends an answer."""
        return sorted({self.tokenizer.end_of_turn_id, self.tokenizer.end_of_text_id})

    def prompts(self) -> list[list[int]]:
        """The conversations that leave room for an answer."""
        room = self.network.max_positions - ANSWER_TOKENS
        return [ids for chat in self.chats if len(ids := self.tokenizer.encode_chat(chat)) <= room]

    def answers(self) -> list[list[int]]:
        """Our greedy answer to each of the prompts."""
        engine = Engine(self.network, precision="fp32")
        requests = [
            Request(str(place), ids, ANSWER_TOKENS, temperature=0.0, stop_tokens=tuple(self.stop))
            for place, ids in enumerate(self.prompts())
        ]
        replies = {reply.id: reply.tokens for reply in engine.generate(requests)}
        return [replies[str(place)] for place in range(len(requests))]

    @torch.inference_mode()
    def _logits(self, ids: list[int]) -> Tensor:
        return self.network(torch.tensor([ids], device=self.network.device))[0].float().cpu()


@dataclass
class LogitParity:
    """The worst difference, and how often the likeliest token is the same."""

    positions: int = 0
    agreed: int = 0
    max_difference: float = 0.0

    @property
    def agreement(self) -> float:
        return self.agreed / self.positions if self.positions else 0.0

    def add(self, ours_V: Tensor, theirs_V: Tensor, tokens: Tensor, tie: float) -> None:
        """Compare at one position over `tokens`, which hold both sides' likeliest."""
        difference = (ours_V[tokens] - theirs_V[tokens]).abs().max().item()
        self.max_difference = max(self.max_difference, difference if difference == difference else float("inf"))
        gap = ours_V[tokens].max() - ours_V[tokens[theirs_V[tokens].argmax()]]
        self.positions += 1
        self.agreed += int(gap.item() <= tie)

    def to_json(self) -> dict[str, Any]:
        return {
            "positions": self.positions,
            "max_difference": float(f"{self.max_difference:.3g}"),
            "top1_agreement": round(self.agreement, 4),
        }


def different_ids(trained: Trained, reader: Reader) -> list[dict[str, Any]]:
    """The texts that the reader tokenizes otherwise."""
    pairs = [(text, trained.tokenizer.encode(text), reader.ids(text)) for text in trained.texts]
    return [{"text": text, "ours": ours, "theirs": theirs} for text, ours, theirs in pairs if ours != theirs]


def different_renderings(trained: Trained, reader: Reader) -> list[dict[str, Any]]:
    """The conversations that the reader writes otherwise."""
    pairs = [(trained.tokenizer.render(chat), reader.render(chat)) for chat in trained.chats]
    return [{"ours": ours, "theirs": theirs} for ours, theirs in pairs if ours != theirs]


def transformers_logits(trained: Trained, reader: TransformersReader, tie: float) -> LogitParity:
    """Every logit at every position."""
    parity = LogitParity()
    every = torch.arange(trained.network.vocab_size)
    for ids, ours_TV in zip(trained.lines, trained.logits, strict=True):
        for ours_V, theirs_V in zip(ours_TV, reader.logits(ids), strict=True):
            parity.add(ours_V, theirs_V, every, tie)
    return parity


def llama_logits(trained: Trained, reader: LlamaReader, tie: float) -> LogitParity:
    """Log-probabilities of llama.cpp's likeliest tokens, at a few positions of each text."""
    parity = LogitParity()
    for ids, ours_TV in zip(trained.lines, trained.logits, strict=True):
        for length in sorted({min(prefix, len(ids)) for prefix in PREFIXES}):
            found = reader.likeliest(ids[:length])
            theirs_V = torch.full((trained.network.vocab_size,), float("-inf"))
            theirs_V[list(found)] = torch.tensor(list(found.values()))
            parity.add(ours_TV[length - 1].log_softmax(-1), theirs_V, torch.tensor(list(found)), tie)
    return parity


def different_answers(
    trained: Trained, answers: Sequence[Sequence[int]], reader: Reader, tie: float
) -> list[dict[str, Any]]:
    """The greedy answers that differ by more than a tie: where they part, our two log-probs are further apart."""
    found = []
    for prompt, ours in zip(trained.prompts(), answers, strict=True):
        theirs = reader.greedy(prompt, ANSWER_TOKENS, trained.stop)
        place = next((i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), None)
        if place is None and len(ours) == len(theirs):
            continue
        place = min(len(ours), len(theirs)) if place is None else place
        gap = _gap(trained, [*prompt, *ours[:place]], ours[place:], theirs[place:])
        if gap > tie:
            decoded = [trained.tokenizer.decode(tokens, skip_special=False) for tokens in (prompt, ours, theirs)]
            found.append(dict(zip(("prompt", "ours", "theirs"), decoded, strict=True)) | {"gap": gap})
    return found


@torch.inference_mode()
def _gap(trained: Trained, ids: list[int], ours: Sequence[int], theirs: Sequence[int]) -> float:
    if not ours or not theirs:
        return float("inf")
    logits_V = trained._logits(ids)[-1]
    return (logits_V[ours[0]] - logits_V[theirs[0]]).item()


def different_tensors(expected: Mapping[str, Tensor], directory: Path) -> list[str]:
    """Names of the tensors in `model.safetensors` that are not bit for bit those of the trained model."""
    from safetensors import safe_open

    with safe_open(directory / "model.safetensors", framework="pt") as file:
        names = set(file.keys())
        wrong = [name for name in names & expected.keys() if not torch.equal(file.get_tensor(name), expected[name])]
    return sorted({*wrong, *(names ^ expected.keys())})


def different_gguf_tensors(network: Network, path: Path, precision: str) -> list[str]:
    """Names of the tensors in the GGUF file that are not the trained ones after rounding to its precision."""
    from gguf import GGUFReader

    from wuxing.release.gguf_file import stored_tensors

    found = {tensor.name: np.asarray(tensor.data) for tensor in GGUFReader(str(path)).tensors}
    expected = dict(stored_tensors(network, precision))
    wrong = [name for name in found.keys() & expected.keys() if _bytes(found[name]) != _bytes(expected[name])]
    return sorted({*wrong, *(found.keys() ^ expected.keys())})


def _bytes(values: np.ndarray) -> bytes:
    return np.ascontiguousarray(values).tobytes()
