"""Masks: which tokens of a row are to be guessed, and what stands in their place.

A function of the seed, the row's place in the sample plan and nothing else.  A place is met once in a run and stands
for a row and an epoch, so every epoch has masks of its own, a resumed run the same ones, on any number of processes.
Shapes: B rows, T tokens, K chosen ones.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from wuxing.data.batch import IGNORED, PADDING, Batch


@dataclass(frozen=True)
class Masking:
    """Turns rows for the next token into rows for masked ones."""

    seed: str
    mask_id: int
    vocab_size: int
    special: frozenset[int]
    """Never chosen, and never put in the place of another."""
    share: float
    replaced: float
    random: float

    def __call__(self, batch: Batch) -> Batch:
        """The same rows with their labels at the chosen places.  A row without a token to choose has no label.

        What was to be learnt stays what is learnt: of dialogues the assistant's words.
        """
        tokens_BT, documents_BT = batch.tokens_BT.numpy(), batch.documents_BT.numpy()
        can_BT = self._can_be_chosen(tokens_BT, batch.labels_BT.numpy(), documents_BT)
        shown_BT, labels_BT = tokens_BT.copy(), np.full_like(tokens_BT, IGNORED)
        for row, place in enumerate(batch.sample_ids):
            chosen_K, shown_K = self._drawn(place, tokens_BT[row], np.flatnonzero(can_BT[row]))
            labels_BT[row, chosen_K] = tokens_BT[row, chosen_K]
            shown_BT[row, chosen_K] = shown_K
        return replace(batch, tokens_BT=torch.from_numpy(shown_BT), labels_BT=torch.from_numpy(labels_BT))

    def _can_be_chosen(
        self, tokens_BT: NDArray[np.int64], labels_BT: NDArray[np.int64], documents_BT: NDArray[np.int32]
    ) -> NDArray[np.bool_]:
        """Tokens of text that are taught.  The label before a token says that; the first of a piece is a special token,
        or goes on with a text, of which all is taught."""
        taught_BT = np.ones(tokens_BT.shape, bool)
        goes_on_BT = documents_BT[:, 1:] == documents_BT[:, :-1]
        taught_BT[:, 1:] = (labels_BT[:, :-1] >= 0) | ~goes_on_BT
        can: NDArray[np.bool_] = taught_BT & (documents_BT != PADDING) & ~self._is_special[tokens_BT]
        return can

    def _drawn(
        self, place: int, tokens_T: NDArray[np.int64], can: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(chosen places of a row, what they show): as many as the share says, one at least, where there is any."""
        count = min(len(can), max(1, round(self.share * len(can))))
        key = hashlib.blake2b(f"{self.seed}/{place}".encode(), digest_size=16).digest()
        # only raw bits stay the same in every release of numpy (NEP 19)
        raw = np.random.Philox(key=int.from_bytes(key, "little")).random_raw(len(can) + 2 * count)
        chosen_K = np.sort(can[np.argsort(raw[: len(can)], kind="stable")[:count]])
        fate_K = (raw[len(can) : len(can) + count] >> np.uint64(11)) * 2.0**-53
        other_K = self._others[(raw[len(can) + count :] % np.uint64(len(self._others))).astype(np.int64)]
        shown_K = np.where(fate_K < self.replaced + self.random, other_K, tokens_T[chosen_K])
        return chosen_K, np.where(fate_K < self.replaced, self.mask_id, shown_K)

    @cached_property
    def _is_special(self) -> NDArray[np.bool_]:
        found = np.zeros(self.vocab_size, bool)
        found[sorted(self.special)] = True
        return found

    @cached_property
    def _others(self) -> NDArray[np.int64]:
        return np.flatnonzero(~self._is_special)
