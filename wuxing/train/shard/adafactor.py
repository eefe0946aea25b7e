"""Adafactor (Shazeer and Stern 2018) on rows of matrices: the statistics are those of the whole matrix.

The same as `torch.optim.Adafactor` on the whole.  Each process has rows: the means of rows are its own, the means of
columns, the scale of the matrix and that of its update are sums over the processes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

EPS_GRADIENT, EPS_SCALE = torch.finfo(torch.float32).eps, 1e-3
CLIP, BETA_POWER = 1.0, -0.8


class CutAdafactor(torch.optim.Optimizer):
    """`heights`: rows of the whole matrices, by the identity of the parameter; `add_up`: sum over the processes."""

    def __init__(
        self, groups: Iterable[dict[str, Any]], lr: float, heights: Mapping[int, int], add_up: Callable[[Tensor], None]
    ):
        super().__init__(groups, {"lr": lr, "weight_decay": 0.0})
        self.heights, self.add_up = heights, add_up

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        assert closure is None
        for group in self.param_groups:
            cut = [p for p in group["params"] if p.grad is not None and id(p) in self.heights]
            whole = [p for p in group["params"] if p.grad is not None and id(p) not in self.heights]
            if cut:
                self._move(cut, group, [self.heights[id(p)] for p in cut], self.add_up)
            if whole:
                self._move(whole, group, [p.shape[0] for p in whole], lambda tensor: None)

    def _move(
        self, parameters: list[Tensor], group: dict[str, Any], heights: list[int], add_up: Callable[[Tensor], None]
    ) -> None:
        gradients = [p.grad for p in parameters if p.grad is not None]
        sizes = [p[0].numel() * height if p.ndim > 1 else height for p, height in zip(parameters, heights, strict=True)]
        columns = [g.square().sum(0) if g.ndim > 1 else g.new_empty(0) for g in gradients]
        scales = torch.stack([p.square().sum() for p in parameters])
        sums = torch.cat([scales, *columns])
        add_up(sums)
        scales, *columns = sums.split([len(parameters), *(len(column) for column in columns)])
        updates = self._updates(parameters, gradients, columns, heights, add_up)
        squares = torch.stack([update.square().sum() for update in updates])
        add_up(squares)
        for parameter, update, scale, square, size in zip(parameters, updates, scales, squares, sizes, strict=True):
            step = float(self.state[parameter]["step"])
            rate = max(EPS_SCALE, float(scale) ** 0.5 / size**0.5) * min(group["lr"], step**-0.5)
            if group["weight_decay"]:
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
            parameter.add_(update, alpha=-rate / max(1.0, float(square) ** 0.5 / (size**0.5 * CLIP)))

    def _updates(
        self,
        parameters: list[Tensor],
        gradients: list[Tensor],
        columns: list[Tensor],
        heights: list[int],
        add_up: Callable[[Tensor], None],
    ) -> list[Tensor]:
        """Gradients over the root of the estimated second moments."""
        for parameter, gradient, column, height in zip(parameters, gradients, columns, heights, strict=True):
            state = self.state[parameter]
            if not state:
                state["step"] = torch.zeros(())
                if gradient.ndim > 1:
                    state["row_var"] = gradient.new_zeros(len(gradient), 1)
                    state["col_var"] = gradient.new_zeros(1, len(column))
                else:
                    state["variance"] = torch.zeros_like(gradient)
            state["step"] += 1
            weight = float(state["step"]) ** BETA_POWER
            if gradient.ndim > 1:
                state["row_var"].lerp_(gradient.square().mean(-1, keepdim=True), weight)
                state["col_var"].lerp_(column[None] / height, weight)
            else:
                state["variance"].lerp_(gradient.square(), weight)
        states = [self.state[parameter] for parameter in parameters]
        rows = torch.stack([state["row_var" if "row_var" in state else "variance"].sum() for state in states])
        add_up(rows)
        updates = []
        for gradient, state, row, height in zip(gradients, states, rows, heights, strict=True):
            if gradient.ndim > 1:
                estimate = (state["row_var"] @ state["col_var"]).div_((row / height).clamp(min=EPS_GRADIENT))
            else:
                estimate = state["variance"].clone()
            updates.append(estimate.clamp_(min=EPS_GRADIENT**2).rsqrt_().mul_(gradient))
        return updates
