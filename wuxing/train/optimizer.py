"""Optimizers: Muon for the matrices inside the blocks, AdamW for everything else; or AdamW for all.

State is a flat dictionary of tensors by parameter name, as safetensors stores it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from wuxing.compute.device import pick_precision
from wuxing.core.error import WuxingError
from wuxing.train.config import OptimizerConfig

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""Coefficients of the quintic iteration (Jordan 2024): steepest at zero, singular values end within 0.7 and 1.2."""
NEWTON_SCHULZ_STEPS = 5
SEPARATOR = "|"


class Muon(torch.optim.Optimizer):
    """Momentum whose update is orthogonalised (Jordan et al. 2024), matrices of one shape in one batch.

    The update of an m x n matrix is scaled by 0.2 sqrt(max(m, n)), which gives it the size of AdamW's (Liu et al. 2025,
    Moonlight), so that both share one learning rate.  The same as `torch.optim.Muon(adjust_lr_fn="match_rms_adamw")`,
    with fewer and larger products, and in fp32 where bf16 is not native.
    """

    def __init__(self, parameters: Iterable[Tensor], lr: float, weight_decay: float, momentum: float):
        super().__init__(parameters, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        assert closure is None
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[Tensor]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    by_shape.setdefault(parameter.shape, []).append(parameter)
            for shape, parameters in by_shape.items():
                updates = [self._update(parameter, group["momentum"]) for parameter in parameters]
                orthogonal = orthogonalise(torch.stack(updates))
                scale = group["lr"] * 0.2 * math.sqrt(max(shape))
                for parameter, update in zip(parameters, orthogonal, strict=True):
                    parameter.mul_(1 - group["lr"] * group["weight_decay"])
                    parameter.add_(update, alpha=-scale)

    def _update(self, parameter: Tensor, momentum: float) -> Tensor:
        assert parameter.grad is not None
        state = self.state[parameter]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(parameter)
        state["momentum"].lerp_(parameter.grad, 1 - momentum)
        return parameter.grad.lerp(state["momentum"], momentum)


def orthogonalise(matrices: Tensor) -> Tensor:
    """The nearest matrices with all singular values near 1, of a batch n x rows x columns, in fp32."""
    x = matrices.to(pick_precision(matrices.device))
    tall = x.shape[-2] > x.shape[-1]
    if tall:
        x = x.mT
    x = x / matrices.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7).to(x.dtype)
    a, b, c = NEWTON_SCHULZ
    for _ in range(NEWTON_SCHULZ_STEPS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.mT if tall else x).float()


class Optimizer:
    """All optimizers of one network behind one `step`."""

    def __init__(self, network: nn.Module, config: OptimizerConfig, learning_rate: float):
        self.named = {name: parameter for name, parameter in network.named_parameters() if parameter.requires_grad}
        groups = group_parameters(self.named, config.kind)
        self.parts: list[torch.optim.Optimizer] = []
        if groups["muon"]:
            parameters = [self.named[name] for name in groups["muon"]]
            self.parts.append(Muon(parameters, learning_rate, config.weight_decay, config.momentum))
        rate = learning_rate * config.embedding_rate
        adam = [
            {"params": [self.named[n] for n in groups["embedding"]], "weight_decay": 0.0, "lr": rate},
            {"params": [self.named[n] for n in groups["matrix"]], "weight_decay": config.weight_decay},
            {"params": [self.named[n] for n in groups["vector"]], "weight_decay": 0.0},
        ]
        adam = [group for group in adam if group["params"]]
        if adam:
            self.parts.append(torch.optim.AdamW(adam, learning_rate, betas=config.betas, eps=1e-8, fused=True))
        self.base = [[group["lr"] for group in part.param_groups] for part in self.parts]

    def step(self, factor: float) -> None:
        """Update with every learning rate times `factor`."""
        for part, rates in zip(self.parts, self.base, strict=True):
            for group, rate in zip(part.param_groups, rates, strict=True):
                group["lr"] = rate * factor
            part.step()

    def zero(self) -> None:
        """Forget the gradients."""
        for parameter in self.named.values():
            parameter.grad = None

    def tensors(self) -> dict[str, Tensor]:
        """The state by `parameter|key`."""
        names = {id(parameter): name for name, parameter in self.named.items()}
        return {
            f"{names[id(parameter)]}{SEPARATOR}{key}": value
            for part in self.parts
            for parameter, state in part.state.items()
            for key, value in state.items()
        }

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take up a state that `tensors()` gave.  Raises WuxingError when it belongs to another network."""
        owners = {id(p): part for part in self.parts for group in part.param_groups for p in group["params"]}
        for part in self.parts:
            part.state.clear()
        for full, value in tensors.items():
            name, _, key = full.rpartition(SEPARATOR)
            if name not in self.named:
                raise WuxingError(f"the optimizer state knows {name}, the network does not", "Begin the step anew")
            parameter = self.named[name]
            device = value.device if key == "step" else parameter.device
            owners[id(parameter)].state[parameter][key] = value.to(device, copy=True)


def group_parameters(named: Mapping[str, Tensor], kind: str) -> dict[str, list[str]]:
    """Names by treatment: `muon`, or AdamW as `embedding` (tables, the head), `matrix`, `vector` (norms, biases)."""
    groups: dict[str, list[str]] = {"muon": [], "embedding": [], "matrix": [], "vector": []}
    for name, parameter in named.items():
        if parameter.ndim < 2:
            groups["vector"].append(name)
        elif "embed" in name or "lm_head" in name:
            groups["embedding"].append(name)
        else:
            groups["muon" if kind == "muon" and parameter.ndim == 2 else "matrix"].append(name)
    return groups
