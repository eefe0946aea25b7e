"""The sliced cross-entropy against the plain slow one: values and gradients."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

import wuxing.objective.cross_entropy as module
from wuxing.objective.cross_entropy import nats_sum, token_logprobs

TOLERANCE = 2e-6
"""Relative, fp32: both sum the same numbers in another order."""


@pytest.fixture(autouse=True)
def many_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "slice_tokens", lambda vocabulary: 13)


def draw(tokens: int = 50, width: int = 24, vocabulary: int = 97) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    hidden = torch.randn(tokens, width, generator=generator, dtype=torch.float32).requires_grad_()
    head = torch.randn(vocabulary, width, generator=generator).requires_grad_()
    return hidden, head, torch.randint(vocabulary, (tokens,), generator=generator)


def close(a: torch.Tensor, b: torch.Tensor, tolerance: float = TOLERANCE) -> bool:
    return float(((a - b).norm() / b.norm().clamp(min=1e-12)).detach()) < tolerance


@pytest.mark.parametrize(("smoothing", "z_weight"), [(0.0, 0.0), (0.1, 0.0), (0.0, 1e-2), (0.2, 1e-3)])
def test_sum_and_gradients_equal_the_plain_loss(smoothing: float, z_weight: float) -> None:
    hidden, head, labels = draw()
    loss, nats, correct = nats_sum(hidden, head, labels, smoothing, z_weight)
    found = torch.autograd.grad(loss / 7, (hidden, head))
    logits = hidden @ head.T
    plain = F.cross_entropy(logits, labels, reduction="sum", label_smoothing=smoothing)
    plain = plain + z_weight * logits.logsumexp(-1).square().sum()
    expected = torch.autograd.grad(plain / 7, (hidden, head))
    assert close(loss, plain)
    assert close(nats, F.cross_entropy(logits, labels, reduction="sum"))
    assert int(correct) == int((logits.argmax(-1) == labels).sum())
    assert all(close(a, b) for a, b in zip(found, expected, strict=True))


def test_token_logprobs_and_their_gradients_equal_the_plain_ones() -> None:
    hidden, head, labels = draw()
    weights = torch.linspace(-2, 3, len(labels))
    logprobs, entropy = token_logprobs(hidden, head, labels)
    found = torch.autograd.grad((logprobs * weights).sum(), (hidden, head))
    plain = (hidden @ head.T).log_softmax(-1)
    expected_logprobs = plain.gather(-1, labels[:, None]).squeeze(-1)
    expected = torch.autograd.grad((expected_logprobs * weights).sum(), (hidden, head))
    assert close(logprobs, expected_logprobs)
    assert close(entropy, -(plain.exp() * plain).sum(-1))
    assert all(close(a, b) for a, b in zip(found, expected, strict=True))


def test_gradient_agrees_with_finite_differences() -> None:
    hidden, head, labels = draw(tokens=5, width=3, vocabulary=7)
    hidden, head = hidden.detach().double().requires_grad_(), head.detach().double().requires_grad_()
    # logits go through fp32, so the step of the difference is far above its rounding
    assert torch.autograd.gradcheck(
        lambda h, w: token_logprobs(h, w, labels)[0].double(), (hidden, head), eps=1e-2, atol=1e-3, rtol=1e-2
    )


def test_bf16_differs_from_fp32_by_its_rounding_only() -> None:
    hidden, head, labels = draw(tokens=200, width=64, vocabulary=300)
    exact = nats_sum(hidden, head, labels)[0]
    with torch.autocast("cpu", torch.bfloat16):
        rounded = nats_sum(hidden, head, labels)[0]
    assert close(rounded, exact, 2**-8)


def test_no_gradient_is_computed_when_none_is_wanted() -> None:
    hidden, head, labels = draw()
    with torch.no_grad():
        loss, _, _ = nats_sum(hidden, head, labels)
    assert not loss.requires_grad
    assert close(loss, F.cross_entropy(hidden @ head.T, labels, reduction="sum"))


def test_the_head_may_be_frozen() -> None:
    hidden, head, labels = draw()
    loss, _, _ = nats_sum(hidden, head.detach(), labels)
    loss.backward()
    expected = torch.autograd.grad(F.cross_entropy(hidden @ head.T, labels, reduction="sum"), hidden)[0]
    assert hidden.grad is not None and close(hidden.grad, expected)
