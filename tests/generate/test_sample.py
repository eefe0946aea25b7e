"""Draws against the distribution they claim to follow."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from wuxing.generate.sample import Sampling, sample, uniform

VOCABULARY, DRAWS = 40, 20_000
LOGITS = torch.randn(VOCABULARY, generator=torch.Generator().manual_seed(1)) * 2


def _counts(logits_V: Tensor, **settings: float | int) -> Tensor:
    tokens = []
    for start in range(0, DRAWS, 1000):
        samplings = [Sampling(seed=seed, **settings) for seed in range(start, start + 1000)]  # type: ignore[arg-type]
        tokens.append(sample(logits_V.expand(1000, -1), samplings, [3] * 1000)[0])
    return torch.bincount(torch.cat(tokens), minlength=VOCABULARY)


def _chi_square(counts: Tensor, probs: Tensor) -> float:
    """Standard deviations of Pearson's statistic above its mean; rare tokens in one cell."""
    often = probs * DRAWS >= 5
    cells = torch.cat((counts[often], counts[~often].sum()[None])).double()
    expected = torch.cat((probs[often], probs[~often].sum()[None])).double() * DRAWS
    kept = expected > 0
    freedom = int(kept.sum()) - 1
    statistic = ((cells[kept] - expected[kept]) ** 2 / expected[kept]).sum().item()
    return (statistic - freedom) / (2 * freedom) ** 0.5


@pytest.mark.parametrize("temperature", [1.0, 0.5, 2.0])
def test_frequencies_follow_the_softmax(temperature: float) -> None:
    assert abs(_chi_square(_counts(LOGITS, temperature=temperature), (LOGITS / temperature).softmax(-1))) < 3


def test_a_wrong_distribution_is_found() -> None:
    """Seeded fault: the test above sees a temperature of 0.95 where 1 was asked for."""
    assert _chi_square(_counts(LOGITS, temperature=0.95), LOGITS.softmax(-1)) > 3


@pytest.mark.parametrize("settings", [{"top_k": 5}, {"top_p": 0.6}, {"top_k": 8, "top_p": 0.5, "temperature": 1.5}])
def test_filters_keep_the_likeliest_and_their_proportions(settings: dict[str, float]) -> None:
    probs = (LOGITS / settings.get("temperature", 1.0)).softmax(-1)
    ordered, order = probs.sort(descending=True)
    allowed = (ordered.cumsum(0) - ordered < settings.get("top_p", 1.0)) & (
        torch.arange(VOCABULARY) < settings.get("top_k", VOCABULARY)
    )
    kept = torch.zeros(VOCABULARY).index_copy(0, order[allowed], ordered[allowed])
    counts = _counts(LOGITS, **settings)
    assert counts[kept == 0].sum() == 0
    assert abs(_chi_square(counts, kept / kept.sum())) < 3


def test_logprobs_are_the_models_own() -> None:
    """Neither temperature nor a filter changes them."""
    samplings = [Sampling(0.3, 0.5, 7, seed=s) for s in range(4)] + [Sampling(0.0), Sampling()]
    tokens, logprobs = sample(LOGITS.expand(6, -1), samplings, [0] * 6)
    assert torch.equal(logprobs, LOGITS.log_softmax(-1)[tokens]) and tokens[4] == LOGITS.argmax()


def test_a_draw_depends_on_its_seed_and_index_only() -> None:
    logits = torch.randn(3, VOCABULARY, generator=torch.Generator().manual_seed(2))
    mixed = [Sampling(seed=5), Sampling(0.8, 0.9, 0, seed=6), Sampling(0.0, seed=7)]
    tokens, _ = sample(logits, mixed, [2, 0, 9])
    for row in range(3):
        alone, _ = sample(logits[row : row + 1], [mixed[row]], [[2, 0, 9][row]])
        assert alone[0] == tokens[row]


def test_impossible_tokens_are_never_drawn() -> None:
    logits = torch.full((1000, VOCABULARY), float("-inf"))
    logits[:, 0], logits[:, 17] = 0.0, 0.0
    for settings in ({}, {"top_p": 0.99}):
        tokens, _ = sample(logits, [Sampling(seed=s, **settings) for s in range(1000)], [0] * 1000)
        assert set(tokens.tolist()) == {0, 17}


def test_uniform_numbers_are_uniform_and_unrelated() -> None:
    """Over seeds, over indices, and between neighbours of both."""
    for numbers in ([uniform(s, 0) for s in range(20_000)], [uniform(3, i) for i in range(20_000)]):
        values = torch.tensor(numbers, dtype=torch.float64)
        counts = torch.histc(values, 50, 0, 1)
        statistic = ((counts - 400) ** 2 / 400).sum().item()
        assert values.min() >= 0 and values.max() < 1 and abs(statistic - 49) < 3 * (2 * 49) ** 0.5
        pairs = torch.stack((values[:-1], values[1:]))
        assert abs(torch.corrcoef(pairs)[0, 1].item()) < 0.03
    assert len({uniform(s, i) for s in range(200) for i in range(200)}) > 39_990
    assert uniform(-1, 0) != uniform(1, 0) and uniform(2**63, 0) != uniform(0, 0)
