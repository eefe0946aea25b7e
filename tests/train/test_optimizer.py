"""Muon against torch's own and against the singular value decomposition; state that travels by name."""

from __future__ import annotations

import pytest
import torch

from wuxing.core.error import WuxingError
from wuxing.model.architecture import Architecture, resolve
from wuxing.model.network import Network
from wuxing.train.config import OptimizerConfig
from wuxing.train.update import optimizer as module
from wuxing.train.update.optimizer import (
    NEWTON_SCHULZ,
    NEWTON_SCHULZ_STEPS,
    Muon,
    Optimizer,
    group_parameters,
    orthogonalise,
)


def matrices(seed: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator) for shape in ((24, 24), (24, 24), (16, 40), (40, 16))]


def test_muon_equals_torch_muon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "pick_precision", lambda device: torch.bfloat16)  # torch's always is bf16
    ours, theirs = ([torch.nn.Parameter(m.clone()) for m in matrices(1)] for _ in range(2))
    mine = Muon(ours, lr=0.02, weight_decay=0.1, momentum=0.95)
    other = torch.optim.Muon(theirs, lr=0.02, weight_decay=0.1, momentum=0.95, adjust_lr_fn="match_rms_adamw")
    start = matrices(1)
    for step in range(3):
        for a, b, gradient in zip(ours, theirs, matrices(10 + step), strict=True):
            a.grad, b.grad = gradient.clone(), gradient.clone()
        mine.step()
        other.step()
    for a, b, before in zip(ours, theirs, start, strict=True):
        # both round to bf16 at each product of three times five iterations, in different kernels
        assert float((a - b).detach().norm() / (b - before).detach().norm()) < 0.03


@pytest.mark.parametrize(("precision", "tolerance"), [(torch.float32, 1e-4), (torch.bfloat16, 0.04)])
def test_orthogonalise_applies_its_polynomial_to_the_singular_values(
    precision: torch.dtype, tolerance: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "pick_precision", lambda device: precision)
    a, b, c = NEWTON_SCHULZ
    for matrix in matrices(3):
        u, sizes, v = torch.linalg.svd(matrix, full_matrices=False)
        sizes = sizes / matrix.norm()
        for _ in range(NEWTON_SCHULZ_STEPS):
            sizes = a * sizes + b * sizes**3 + c * sizes**5
        assert float((orthogonalise(matrix[None])[0] - u @ sizes.diag() @ v).abs().max()) < tolerance


def network() -> Network:
    return Network(resolve(Architecture(size="40k", width=32, layers=2, max_positions=64), 61)).initialise(5)


def test_every_parameter_belongs_to_one_treatment() -> None:
    named = dict(network().named_parameters())
    groups = group_parameters(named, "muon")
    assert sorted(name for group in groups.values() for name in group) == sorted(named)
    assert groups["embedding"] == ["model.embed_tokens.weight"] and not groups["matrix"]
    assert all(".self_attn." in name or ".mlp." in name for name in groups["muon"])
    assert all("norm" in name for name in groups["vector"])
    assert not group_parameters(named, "adamw")["muon"]


def test_state_of_another_network_is_refused() -> None:
    optimizer = Optimizer(network(), OptimizerConfig(), 0.01)
    with pytest.raises(WuxingError, match="knows nothing"):
        optimizer.load({"nothing|momentum": torch.zeros(1)})
