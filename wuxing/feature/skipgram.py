"""Word vectors by skip-gram with negative sampling (Mikolov et al. 2013), deterministic.

For a word c, a neighbour o and noise words n drawn from the unigram distribution to the power 3/4 the loss is
-ln σ(u_c·v_o) - k E_n[ln σ(-u_c·v_n)].  All pairs of a batch share their noise words (Ji et al. 2016), which turns
the products into matrix products; each row has one Adagrad sum.
Legend: P pairs of a batch, N noise words, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch

from wuxing.feature.config import Word2Vec

if TYPE_CHECKING:
    from numpy.typing import NDArray

NOISE_WORDS = 64
"""Noise words that a batch shares; their weight in the loss is `negatives` together."""
TOKENS_PER_CHUNK = 100_000
"""Words whose pairs are made and shuffled at once."""
EPSILON = 1e-8


class SkipGram:
    """The two tables of vectors and their Adagrad sums."""

    def __init__(self, words: int, settings: Word2Vec, seed: int):
        self.settings = settings
        generator = torch.Generator().manual_seed(seed)
        spread = 0.5 / settings.width
        self.inputs = (torch.rand(words, settings.width, generator=generator) * 2 - 1) * spread
        self.outputs = torch.zeros(words, settings.width)
        self._input_sums = torch.zeros(words)
        self._output_sums = torch.zeros(words)

    def gradients(
        self, centres_P: torch.Tensor, others_P: torch.Tensor, noise_N: torch.Tensor
    ) -> tuple[float, torch.Tensor, torch.Tensor, torch.Tensor]:
        """The loss of a batch, and its gradients by the centres' rows, the neighbours' rows and the noise rows.

        A noise word that is a pair's true neighbour does not count against it.
        """
        centres_PD, others_PD, noise_ND = self.inputs[centres_P], self.outputs[others_P], self.outputs[noise_N]
        weight = self.settings.negatives / len(noise_N)
        true_P = torch.einsum("pd,pd->p", centres_PD, others_PD)
        false_PN = centres_PD @ noise_ND.T
        counts_PN = (others_P[:, None] != noise_N[None, :]).to(torch.float32) * weight
        loss = -torch.nn.functional.logsigmoid(true_P).sum()
        loss = loss - (counts_PN * torch.nn.functional.logsigmoid(-false_PN)).sum()
        pull_P = torch.sigmoid(true_P) - 1
        push_PN = torch.sigmoid(false_PN) * counts_PN
        by_centres_PD = pull_P[:, None] * others_PD + push_PN @ noise_ND
        return float(loss), by_centres_PD, pull_P[:, None] * centres_PD, push_PN.T @ centres_PD

    def step(self, centres_P: torch.Tensor, others_P: torch.Tensor, noise_N: torch.Tensor, rate: float) -> float:
        """One update; returns the loss of the batch before it."""
        loss, by_centres_PD, by_others_PD, by_noise_ND = self.gradients(centres_P, others_P, noise_N)
        _adagrad(self.inputs, self._input_sums, centres_P, by_centres_PD, rate)
        rows = torch.cat([others_P, noise_N])
        _adagrad(self.outputs, self._output_sums, rows, torch.cat([by_others_PD, by_noise_ND]), rate)
        return loss


def _adagrad(table: torch.Tensor, sums: torch.Tensor, rows: torch.Tensor, slopes: torch.Tensor, rate: float) -> None:
    sums.index_add_(0, rows, slopes.square().mean(1))
    table.index_add_(0, rows, slopes * (-rate / (sums[rows].sqrt() + EPSILON))[:, None])


def train(
    ids: NDArray[np.int32],
    ends: NDArray[np.int64],
    counts: NDArray[np.int64],
    settings: Word2Vec,
    seed: int,
    said: Callable[[float, float], None] = lambda share, loss: None,
) -> tuple[NDArray[np.float32], list[float]]:
    """Vectors of all words, and the mean loss of a pair in each epoch.

    `ids`: the words of all records in a row (may be a memory map); `ends`: where each record ends; `counts`: how often
    each word occurs; `said`: called with the share done and the newest loss.
    """
    model = SkipGram(len(counts), settings, seed)
    kept, noise = _kept(counts, settings.subsample), np.cumsum(counts.astype(np.float64) ** 0.75)
    chunks = list(_chunks(ends))
    losses: list[float] = []
    for epoch in range(settings.epochs):
        total, pairs = 0.0, 0
        for number, (first, last) in enumerate(chunks):
            random = np.random.Generator(np.random.PCG64([seed, epoch, number]))
            share = (epoch + number / len(chunks)) / settings.epochs
            centres, others = _pairs(ids, ends, first, last, kept, settings.window, random)
            total += _learn(model, centres, others, noise, settings, random)
            pairs += len(centres)
            said(share, total / max(1, pairs))
        losses.append(total / max(1, pairs))
    return model.inputs.numpy(), losses


def _learn(
    model: SkipGram,
    centres: NDArray[np.int64],
    others: NDArray[np.int64],
    noise: NDArray[np.float64],
    settings: Word2Vec,
    random: np.random.Generator,
) -> float:
    order = random.permutation(len(centres))
    left, right = torch.from_numpy(centres[order]), torch.from_numpy(others[order])
    total = 0.0
    for start in range(0, len(left), settings.batch_pairs):
        drawn = np.searchsorted(noise, random.random(NOISE_WORDS) * noise[-1], side="right")
        span = slice(start, start + settings.batch_pairs)
        total += model.step(left[span], right[span], torch.from_numpy(drawn), settings.rate)
    return total


def _kept(counts: NDArray[np.int64], subsample: float) -> NDArray[np.float64]:
    """The chance of each word to be read: (sqrt(f / t) + 1) t / f, as in the authors' program; 1 below t."""
    if not subsample:
        return np.ones(len(counts))
    shares = counts / counts.sum()
    return np.minimum(1.0, (np.sqrt(shares / subsample) + 1) * subsample / shares)


def _chunks(ends: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Runs of whole records with about `TOKENS_PER_CHUNK` words, as numbers of records."""
    first = 0
    while first < len(ends):
        start = int(ends[first - 1]) if first else 0
        last = int(np.searchsorted(ends, start + TOKENS_PER_CHUNK, side="left")) + 1
        yield first, min(last, len(ends))
        first = last


def _pairs(
    ids: NDArray[np.int32],
    ends: NDArray[np.int64],
    first: int,
    last: int,
    kept: NDArray[np.float64],
    window: int,
    random: np.random.Generator,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """All pairs of words within a drawn window of each other, in records `first` to `last`."""
    start = int(ends[first - 1]) if first else 0
    words = np.asarray(ids[start : int(ends[last - 1])], np.int64)
    record = np.repeat(np.arange(last - first), np.diff(ends[first:last], prepend=start))
    reads = random.random(len(words)) < kept[words]
    words, record = words[reads], record[reads]
    reach = random.integers(1, window + 1, len(words))
    centres, others = [words[:0]], [words[:0]]
    for distance in range(1, min(window, len(words) - 1) + 1):
        same = record[distance:] == record[:-distance]
        forward = same & (reach[:-distance] >= distance)
        backward = same & (reach[distance:] >= distance)
        centres += [words[:-distance][forward], words[distance:][backward]]
        others += [words[distance:][forward], words[:-distance][backward]]
    return np.concatenate(centres), np.concatenate(others)
