"""An encoder under evaluation: how well it guesses the tokens of held-out documents from all that stands around them.

Every token is hidden once.  A pass hides one in `masks` of a document's tokens; with as many passes as tokens, one at a
time, the sum is the pseudo-log-likelihood (Salazar et al. 2020).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from wuxing.core.artifact import Artifact
from wuxing.core.context import Context
from wuxing.core.record import Record
from wuxing.evaluate.subject import Score, windows

if TYPE_CHECKING:
    from wuxing.model.encoder import Encoder
    from wuxing.text.tokenizer import Tokenizer

BATCH_TOKENS = 8192


@dataclass(frozen=True)
class Gaps:
    """One pass over one window of a document."""

    ids: list[int]
    places: list[int]
    """What is hidden."""


@dataclass(frozen=True)
class EncoderSubject:
    """A loaded encoder.  `name` is what results call it."""

    name: str
    tokenizer: Tokenizer
    network: Encoder
    masks: int

    @classmethod
    def load(cls, name: str, artifact: Artifact, context: Context, masks: int) -> EncoderSubject:
        """Read a model artifact; `masks` 0: one token at a time."""
        from wuxing.compute.device import pick_device
        from wuxing.model.encoder import Encoder
        from wuxing.model.files import load_network
        from wuxing.text.tokenizer import Tokenizer

        network = load_network(artifact.path, str(pick_device(context.device)), kind=Encoder).eval()
        return cls(name, Tokenizer.load(artifact.path), network, masks)

    def score(self, records: Iterable[Record], group: int = 64) -> Iterator[Score]:
        """Log-probabilities of every token of the text, of dialogues of the assistant's words."""
        waiting: list[Record] = []
        for record in records:
            waiting.append(record)
            if len(waiting) == group:
                yield from self._scored(waiting)
                waiting = []
        yield from self._scored(waiting)

    def _scored(self, records: Sequence[Record]) -> Iterator[Score]:
        gaps = [self.gaps(record) for record in records]
        logprobs = iter(self.fill([one for some in gaps for one in some]))
        for record, some in zip(records, gaps, strict=True):
            found = [next(logprobs) for _ in some]
            hidden = [one.ids[place] for one in some for place in one.places]
            size = sum(len(self.tokenizer.token_bytes[token]) for token in hidden)
            yield Score(record.id, -sum(map(sum, found)), len(hidden), size)

    def gaps(self, record: Record) -> list[Gaps]:
        """The passes over a document: each of its tokens is hidden in one of them.

        Which ones together follows from the document's id alone, so models of one tokenizer see the same gaps.
        """
        found = []
        for number, (ids, places) in enumerate(self._windows(record)):
            passes = self.masks or len(places)
            key = hashlib.blake2b(f"gaps/{record.id}/{number}".encode(), digest_size=16).digest()
            raw = np.random.Philox(key=int.from_bytes(key, "little")).random_raw(len(places))
            order = [places[turn] for turn in np.argsort(raw, kind="stable").tolist()]
            found += [Gaps(ids, sorted(order[turn::passes])) for turn in range(min(passes, len(order)))]
        return found

    def _windows(self, record: Record) -> list[tuple[list[int], list[int]]]:
        """(ids, places that count) of what fits the model; every token counts in one window."""
        longest = self.network.max_positions
        if record.text is not None:
            pairs = windows([self.tokenizer.end_of_text_id], self.tokenizer.encode(record.text), longest)
            return [(before + ids, list(range(len(before), len(before) + len(ids)))) for before, ids in pairs]
        ids, taught = self.tokenizer.encode_dialogue(record.messages or [])
        special = self.tokenizer.special_ids
        places = [place for place in range(min(len(ids), longest)) if taught[place] and ids[place] not in special]
        return [(ids[:longest], places)] if places else []

    def fill(self, gaps: Sequence[Gaps]) -> list[list[float]]:
        """Log-probability (natural) of what is hidden at each place."""
        found: list[list[float]] = [[] for _ in gaps]
        batch: list[int] = []
        for number in sorted(range(len(gaps)), key=lambda number: (len(gaps[number].ids), number)):
            if batch and (len(batch) + 1) * len(gaps[number].ids) > BATCH_TOKENS:
                self._fill(gaps, batch, found)
                batch = []
            batch.append(number)
        if batch:
            self._fill(gaps, batch, found)
        return found

    def _fill(self, gaps: Sequence[Gaps], batch: Sequence[int], found: list[list[float]]) -> None:
        import torch

        from wuxing.objective.cross_entropy import token_logprobs

        some, device = [gaps[number] for number in batch], self.network.device
        width = max(len(one.ids) for one in some)
        tokens_BT = torch.zeros(len(some), width, dtype=torch.int64)
        documents_BT = torch.full((len(some), width), -1, dtype=torch.int32)
        at: list[int] = []
        labels: list[int] = []
        for row, one in enumerate(some):
            tokens_BT[row, : len(one.ids)] = torch.tensor(one.ids)
            tokens_BT[row, one.places] = self.network.mask_id
            documents_BT[row, : len(one.ids)] = 0
            at += [row * width + place for place in one.places]
            labels += [one.ids[place] for place in one.places]
        with torch.inference_mode():
            hidden_BTD = self.network.hidden(tokens_BT.to(device), None, documents_BT.to(device))
            hidden_ND = hidden_BTD.flatten(0, 1)[torch.tensor(at, device=device)]
            logprobs = token_logprobs(hidden_ND, self.network.head_VD, torch.tensor(labels, device=device))[0].tolist()
        start = 0
        for number, one in zip(batch, some, strict=True):
            found[number] = logprobs[start : start + len(one.places)]
            start += len(one.places)

    def try_scores(self, records: Sequence[Record]) -> float:
        """Largest difference, in nats per token, between passes together and each one alone by a plain softmax."""
        import torch

        worst, gaps = 0.0, [one for record in records for one in self.gaps(record)[:2]]
        for one, scored in zip(gaps, self.fill(gaps), strict=True):
            tokens = torch.tensor([one.ids], device=self.network.device)
            tokens[0, one.places] = self.network.mask_id
            with torch.inference_mode():
                logprobs = self.network(tokens)[0].float().log_softmax(-1).cpu()
            for place, value in zip(one.places, scored, strict=True):
                worst = max(worst, abs(float(logprobs[place, one.ids[place]]) - value))
        return worst
