"""Optimizers: Muon for the matrices inside the blocks, AdamW for everything else; or one kind for all.

State is a flat dictionary of tensors by parameter name, as safetensors stores it.
"""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from wuxing.compute.device import pick_precision
from wuxing.core.error import WuxingError
from wuxing.train.config import OptimizerConfig
from wuxing.train.shard.adafactor import CutAdafactor
from wuxing.train.update.law import BETAS

if TYPE_CHECKING:
    from wuxing.train.shard.cut import Shards

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""Coefficients of the quintic iteration (Jordan 2024): steepest at zero, singular values end within 0.7 and 1.2."""
NEWTON_SCHULZ_STEPS = 5
FIRST_MOMENTUM = 0.85
SEPARATOR = "|"
Whole = Callable[[list[Tensor], torch.Size, Callable[[Tensor], Tensor]], list[Tensor]]
"""(rows here of updates of one shape, that shape, function of a batch of whole ones) → rows here of its values."""
PATH_MEAN = f"{SEPARATOR}x"
"""Ends the names of schedule_free's averaged weights in a checkpoint."""


class Muon(torch.optim.Optimizer):
    """Momentum whose update is orthogonalised (Jordan et al. 2024), matrices of one shape in one batch.

    The update of an m x n matrix is scaled by 0.2 sqrt(max(m, n)), which gives it the size of AdamW's (Liu et al. 2025,
    Moonlight), so that both share one learning rate.  The same as `torch.optim.Muon(adjust_lr_fn="match_rms_adamw")`,
    with fewer and larger products, and in fp32 where bf16 is not native.
    """

    def __init__(
        self,
        parameters: Iterable[Tensor],
        lr: float,
        weight_decay: float,
        momentum: float,
        shapes: Mapping[int, torch.Size] | None = None,
        whole: Whole | None = None,
        one_by_one: bool = False,
    ):
        """Where the parameters are rows of matrices cut over processes: `shapes` of the whole ones, by the identity of
        the parameter, and `whole`, which applies a function to whole updates.  `one_by_one`: the last bits do not
        depend on how many matrices of a shape are here, as those of one product of several do."""
        super().__init__(parameters, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})
        self.shapes, self.whole = shapes or {}, whole
        self.how = each_orthogonalised if one_by_one else orthogonalise

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        assert closure is None
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[Tensor]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    by_shape.setdefault(self.shapes.get(id(parameter), parameter.shape), []).append(parameter)
            for shape, parameters in by_shape.items():
                updates = [self._update(parameter, group["momentum"]) for parameter in parameters]
                if self.whole is None:
                    orthogonal: Iterable[Tensor] = self.how(torch.stack(updates))
                else:
                    orthogonal = self.whole(updates, shape, self.how)
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


def each_orthogonalised(matrices: Tensor) -> Tensor:
    """The same, one matrix after the other."""
    return torch.cat([orthogonalise(matrix[None]) for matrix in matrices])


class Lion(torch.optim.Optimizer):
    """The sign of an interpolated momentum (Chen et al. 2023, algorithm 2): every update has the size of the rate."""

    def __init__(self, groups: Iterable[dict[str, Any]], lr: float, betas: tuple[float, float]):
        super().__init__(groups, {"lr": lr, "betas": betas, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        assert closure is None
        for group in self.param_groups:
            first, second = group["betas"]
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["momentum"] = torch.zeros_like(parameter)
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.add_(state["momentum"].lerp(parameter.grad, 1 - first).sign_(), alpha=-group["lr"])
                state["momentum"].lerp_(parameter.grad, 1 - second)


class ScheduleFree(torch.optim.Optimizer):
    """AdamW without a schedule (Defazio et al. 2024, "The Road Less Scheduled", algorithm 1 with AdamW's scaling).

    Gradients are taken at y = (1 - beta1) z + beta1 x, steps are made with z, and x, the weighted average of all z, is
    what is measured and kept.  The parameters hold y; x is in the state, so that looking at it changes no bit.
    """

    def __init__(self, groups: Iterable[dict[str, Any]], lr: float, betas: tuple[float, float]):
        super().__init__(groups, {"lr": lr, "betas": betas, "weight_decay": 0.0, "eps": 1e-8})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        assert closure is None
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._move(parameter, group)

    def _move(self, y: Tensor, group: dict[str, Any]) -> None:
        first, second = group["betas"]
        state = self.state[y]
        if not state:
            state.update(step=torch.zeros(()), weight=torch.zeros((), dtype=torch.float64))
            state.update(x=y.detach().clone(), z=y.detach().clone(), square=torch.zeros_like(y))
        gradient, x, z, square = y.grad, state["x"], state["z"], state["square"]
        assert gradient is not None
        state["step"] += 1
        square.lerp_(gradient.square(), 1 - second)
        scale = (square / (1 - second ** float(state["step"]))).sqrt_().add_(group["eps"])
        update = (gradient / scale).add_(y, alpha=group["weight_decay"])
        z.add_(update, alpha=-group["lr"])
        state["weight"] += group["lr"] ** 2
        x.lerp_(z, float(group["lr"] ** 2 / state["weight"]))
        y.copy_(z.lerp(x, first))


class Optimizer:
    """All optimizers of one network behind one `step`."""

    def __init__(
        self,
        network: nn.Module,
        config: OptimizerConfig,
        learning_rate: float,
        shards: Shards | None = None,
        exactly: bool = False,
    ):
        """`exactly`: the same bits however the state is cut."""
        self.config = config
        named = dict(network.named_parameters()) if shards is None else shards.named
        self.named = {name: named[name] for name, p in network.named_parameters() if p.requires_grad}
        shapes = {id(named[name]): shards.shape(name) for name in shards.matrices} if shards else {}
        treated = group_parameters(self.named, config.kind)
        parameters = {treatment: [self.named[name] for name in names] for treatment, names in treated.items()}
        self.matrices = parameters["muon"] + parameters["matrix"]
        self.parts: list[torch.optim.Optimizer] = []
        if parameters["muon"]:
            whole = shards.orthogonalise if shards else None
            rates = (learning_rate, config.weight_decay, config.momentum)
            self.parts.append(Muon(parameters["muon"], *rates, shapes, whole, exactly))
        tables = config.embedding_rate or 1.0
        groups: list[dict[str, Any]] = [
            {"params": parameters["embedding"], "weight_decay": 0.0, "lr": learning_rate * tables},
            {"params": parameters["matrix"], "weight_decay": config.weight_decay},
            {"params": parameters["vector"], "weight_decay": 0.0, "lr": learning_rate * config.vector_rate},
        ]
        groups = [group for group in groups if group["params"]]
        if groups:
            if config.kind == "adafactor" and shards is not None:
                heights = {key: shape[0] for key, shape in shapes.items()}
                self.parts.append(CutAdafactor(groups, learning_rate, heights, shards.add_up))
            else:
                self.parts.append(_element_wise(groups, config, learning_rate))
        for part in self.parts:
            apart(part, {id(parameter): name for name, parameter in self.named.items()}, config.rates)
        self.rate = learning_rate
        self.base = [[group["lr"] for group in part.param_groups] for part in self.parts]

    def set_rate(self, learning_rate: float) -> None:
        """Another highest learning rate; the groups keep their proportions."""
        factor, self.rate = learning_rate / self.rate, learning_rate
        self.base = [[rate * factor for rate in rates] for rates in self.base]

    @torch.no_grad()
    def penalise(self) -> None:
        """Add the gradients of the L1 and L2 penalties of the matrices, once a step, after the data's."""
        for parameter in self.matrices:
            if parameter.grad is not None and self.config.l1:
                parameter.grad.add_(parameter.sign(), alpha=self.config.l1)
            if parameter.grad is not None and self.config.l2:
                parameter.grad.add_(parameter, alpha=self.config.l2)

    def averaged(self) -> dict[str, Tensor]:
        """The weights to measure and keep where they are not those that learn: schedule_free's average."""
        names = {id(parameter): name for name, parameter in self.named.items()}
        free = (part for part in self.parts if isinstance(part, ScheduleFree))
        return {names[id(p)]: state["x"] for part in free for p, state in part.state.items()}

    def step(self, factor: float, number: int | None = None) -> None:
        """Update with every learning rate times `factor`.  `number`: of the step; None: long after the start."""
        for part, rates in zip(self.parts, self.base, strict=True):
            for group, rate in zip(part.param_groups, rates, strict=True):
                group["lr"] = rate * factor
                if isinstance(part, Muon):
                    group["momentum"] = momentum_at(self.config, number)
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
            owner = owners[id(parameter)]
            counter = value.ndim == 0 and not isinstance(owner, torch.optim.AdamW)  # fused AdamW counts on the device
            owner.state[parameter][key] = value.to("cpu" if counter else parameter.device, copy=True)


def _element_wise(groups: list[dict[str, Any]], config: OptimizerConfig, rate: float) -> torch.optim.Optimizer:
    """The optimizer of all that Muon leaves."""
    betas = config.betas or BETAS
    if config.kind == "lion":
        return Lion(groups, rate, betas)
    if config.kind == "adafactor":
        return torch.optim.Adafactor(groups, rate)
    if config.kind == "schedule_free":
        return ScheduleFree(groups, rate, betas)
    return torch.optim.AdamW(groups, rate, betas=betas, eps=1e-8, fused=True)


def momentum_at(config: OptimizerConfig, number: int | None) -> float:
    """Muon's momentum in a step: from 0.85 (or less, where that is asked for) up to its own, in a straight line."""
    if number is None or number >= config.momentum_warmup_steps:
        return config.momentum
    first = min(FIRST_MOMENTUM, config.momentum)
    return first + (config.momentum - first) * number / config.momentum_warmup_steps


def apart(part: torch.optim.Optimizer, names: Mapping[int, str], rates: Mapping[str, float]) -> None:
    """Give the parameters whose names fit a pattern a group with a rate of their own; of several, the last counts."""
    if not rates:
        return
    groups = []
    for group in part.param_groups:
        by_factor: dict[float, list[Tensor]] = {}
        for parameter in group["params"]:
            fitting = [rate for pattern, rate in rates.items() if fnmatch.fnmatchcase(names[id(parameter)], pattern)]
            by_factor.setdefault(fitting[-1] if fitting else 1.0, []).append(parameter)
        groups += [{**group, "params": some, "lr": group["lr"] * factor} for factor, some in by_factor.items()]
    part.param_groups[:] = groups


def group_parameters(named: Mapping[str, Tensor], kind: str) -> dict[str, list[str]]:
    """Names by treatment: `muon`, or AdamW as `embedding` (tables, the head), `matrix`, `vector` (norms, biases)."""
    groups: dict[str, list[str]] = {"muon": [], "embedding": [], "matrix": [], "vector": []}
    for name, parameter in named.items():
        if parameter.ndim < 2:
            groups["vector"].append(name)
        elif "embed" in name or "lm_head" in name or name == "score.weight":
            groups["embedding"].append(name)
        else:
            groups["muon" if kind == "muon" and parameter.ndim == 2 else "matrix"].append(name)
    return groups
