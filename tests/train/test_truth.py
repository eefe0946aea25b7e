"""A step against plain slow code: optimizers with their groups and schedule, the loss of a batch, packing, guards."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from test_trainer import ROWS, VOCABULARY, Sequence, trainer
from torch import Tensor, nn

from wuxing.core.error import WuxingError
from wuxing.data.batch import Batch
from wuxing.objective.next_token import NextToken
from wuxing.objective.objective import Loss, Model
from wuxing.train.config import OptimizerConfig
from wuxing.train.numerics import PACK_TOLERANCE, pack_difference
from wuxing.train.update import optimizer as module
from wuxing.train.update.average import Average
from wuxing.train.update.optimizer import Optimizer, momentum_at
from wuxing.train.update.schedule import Schedule

STEPS = 40
SHAPES = {
    "embed_tokens.weight": (7, 4),
    "layers.0.up.weight": (6, 4),
    "layers.0.down.weight": (4, 6),
    "norm.weight": (4,),
}


class Small(nn.Module):
    """One parameter of each treatment, in fp64."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.named = nn.ParameterDict()
        for name, shape in SHAPES.items():
            drawn = torch.randn(shape, generator=generator, dtype=torch.float64)
            self.named[name.replace(".", "_")] = nn.Parameter(drawn)

    def named_parameters(self, *arguments: Any, **settings: Any) -> Any:  # names with dots, as networks have them
        return zip(SHAPES, self.named.values(), strict=True)


def adamw(w: Tensor, g: Tensor, s: dict[str, Any], t: int, lr: float, decay: float) -> Tensor:
    """Loshchilov and Hutter 2019, algorithm 2."""
    s["m"] = 0.9 * s.get("m", 0) + 0.1 * g
    s["v"] = 0.95 * s.get("v", 0) + 0.05 * g * g
    hat = (s["m"] / (1 - 0.9**t)) / ((s["v"] / (1 - 0.95**t)).sqrt() + 1e-8)
    return w - lr * decay * w - lr * hat


def lion(w: Tensor, g: Tensor, s: dict[str, Any], t: int, lr: float, decay: float) -> Tensor:
    """Chen et al. 2023, algorithm 2."""
    m = s.get("m", torch.zeros_like(w))
    s["m"] = 0.95 * m + 0.05 * g
    return w - lr * (torch.sign(0.9 * m + 0.1 * g) + decay * w)


def adafactor(w: Tensor, g: Tensor, s: dict[str, Any], t: int, lr: float, decay: float) -> Tensor:
    """Shazeer and Stern 2018, algorithms 4 and 5, with torch's constants."""
    keep = 1 - t**-0.8
    if w.ndim == 2:
        s["r"] = keep * s.get("r", 0) + (1 - keep) * (g * g).mean(1)
        s["c"] = keep * s.get("c", 0) + (1 - keep) * (g * g).mean(0)
        variance = torch.outer(s["r"], s["c"]) / s["r"].mean()
    else:
        variance = s["v"] = keep * s.get("v", 0) + (1 - keep) * g * g
    update = g / variance.sqrt()
    update = update / max(1.0, float(update.square().mean().sqrt()))
    size = max(1e-3, float(w.square().mean().sqrt())) * min(lr, 1 / math.sqrt(t))
    return w - lr * decay * w - size * update


def schedule_free(w: Tensor, g: Tensor, s: dict[str, Any], t: int, lr: float, decay: float) -> Tensor:
    """Defazio et al. 2024, algorithm 1: x is the mean of all z, weighted by the squared rates."""
    s["v"] = 0.95 * s.get("v", 0) + 0.05 * g * g
    z = s.get("z", w) - lr * (g / ((s["v"] / (1 - 0.95**t)).sqrt() + 1e-8) + decay * w)
    s["z"], s["all"] = z, [*s.get("all", []), (lr**2, z)]
    x = sum(weight * point for weight, point in s["all"]) / sum(weight for weight, _ in s["all"])
    return 0.1 * z + 0.9 * x


def muon(w: Tensor, g: Tensor, s: dict[str, Any], t: int, lr: float, decay: float) -> Tensor:
    """Jordan et al. 2024: the quintic of the singular values of the momentum, from their decomposition."""
    momentum = momentum_at(OptimizerConfig(), t - 1)
    s["m"] = momentum * s.get("m", 0) + (1 - momentum) * g
    u, sizes, v = torch.linalg.svd((1 - momentum) * g + momentum * s["m"], full_matrices=False)
    sizes = sizes / sizes.norm()
    for _ in range(5):
        sizes = 3.4445 * sizes - 4.7750 * sizes**3 + 2.0315 * sizes**5
    return w - lr * decay * w - lr * 0.2 * math.sqrt(max(w.shape)) * (u * sizes) @ v


@pytest.mark.parametrize("plain", [adamw, lion, adafactor, schedule_free, muon])
def test_forty_steps_of_every_optimizer_are_its_formula(
    plain: Callable[..., Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In fp64, with the rates of the groups, decay of matrices alone, and a schedule."""
    monkeypatch.setattr(module, "pick_precision", lambda device: torch.float64)
    network, schedule = Small(), Schedule(shape="cosine", warmup_share=0.2)
    config = OptimizerConfig(kind=plain.__name__, embedding_rate=0.5, vector_rate=2.0)  # type: ignore[arg-type]
    optimizer, generator = Optimizer(network, config, 0.01), torch.Generator().manual_seed(2)
    truth = {name: p.detach().clone() for name, p in network.named_parameters()}
    states: dict[str, dict[str, Any]] = {name: {} for name in truth}
    for step in range(STEPS):
        factor = schedule.factor(step, STEPS)
        for name, parameter in network.named_parameters():
            parameter.grad = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            matrix = name.startswith("layers")
            rate = 0.01 * factor * (1.0 if matrix else 0.5 if "embed" in name else 2.0)
            rule = adamw if plain is muon and not matrix else plain
            decay = 0.1 if matrix else 0.0
            truth[name] = rule(truth[name], parameter.grad, states[name], step + 1, rate, decay)
        optimizer.step(factor, step)
    # orthogonalised updates are handed on in fp32, torch keeps Adafactor's smallest divisor at the epsilon of fp64
    tolerance = 1e-5 if plain is muon else 1e-9
    for name, parameter in network.named_parameters():
        difference = (parameter.detach() - truth[name]).norm() / truth[name].norm()
        assert float(difference) < tolerance, (name, float(difference))


def closed(shape: str, step: int, steps: int, warmup: int, decay: int, final: float) -> float:
    """Every schedule as one would write it on a board; the last step stands one step before the end."""
    if step < warmup:
        return (step + 1) / (warmup + 1)
    left = min(1.0, (steps - step) / (decay + 1))
    if shape in ("wsd", "linear"):
        return final + (1 - final) * left
    if shape == "cosine":
        return final + (1 - final) * (0.5 - 0.5 * math.cos(math.pi * left))
    return 1.0 if shape == "constant" else max(final, (warmup / max(warmup, step + 1)) ** 0.5)


@pytest.mark.parametrize("shape", ["wsd", "linear", "cosine", "inverse_sqrt", "constant"])
@pytest.mark.parametrize("final", [0.0, 0.1])
@pytest.mark.parametrize("steps", [1, 7, 100, 1001])
def test_every_schedule_is_its_closed_form(shape: Any, final: float, steps: int) -> None:
    schedule = Schedule(shape=shape, warmup_share=0.1, decay_share=0.3, final_share=final)
    warmup = max(1, round(0.1 * steps))
    decay = max(1, round(0.3 * steps)) if shape == "wsd" else steps - warmup
    for step in range(steps):
        assert schedule.factor(step, steps) == pytest.approx(
            closed(shape, step, steps, warmup, decay, final), rel=1e-12
        )


def whole_batch(rows: int = ROWS) -> Batch:
    return next(Sequence(piece_rows=rows))[0]


@pytest.mark.parametrize(("smoothing", "z_weight"), [(0.0, 0.0), (0.1, 0.0), (0.0, 1e-2), (0.1, 1e-3)])
def test_a_step_is_the_mean_over_all_labels_that_teach(smoothing: float, z_weight: float) -> None:
    one = trainer(objective=NextToken(smoothing=smoothing, z_weight=z_weight), piece_rows=3)
    loss, count, sums = one.gradients(next(one.source))
    batch = whole_batch()
    keep = batch.labels_BT >= 0
    hidden = one.network.hidden(batch.tokens_BT, batch.positions_BT, batch.documents_BT)
    logits, labels = (hidden @ one.network.head_VD.T)[keep], batch.labels_BT[keep]
    plain = F.cross_entropy(logits, labels, label_smoothing=smoothing) + z_weight * logits.logsumexp(-1).square().mean()
    assert count == int(keep.sum()) and loss == pytest.approx(plain.item(), rel=1e-6)
    assert sums["nats"] / count == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-6)
    names = list(one.optimizer.named)
    for name, truth in zip(names, torch.autograd.grad(plain, [one.optimizer.named[n] for n in names]), strict=True):
        found = one.optimizer.named[name].grad
        assert found is not None and float((found - truth).norm() / truth.norm().clamp(min=1e-9)) < 1e-5, name


def rows_in(batch: Batch, order: list[int]) -> Batch:
    """The rows in another order."""
    tensors = {name: getattr(batch, name)[order] for name in ("tokens_BT", "labels_BT", "positions_BT", "documents_BT")}
    return replace(batch, sample_ids=[batch.sample_ids[place] for place in order], **tensors)


def gradient_of(batches: list[Batch]) -> Tensor:
    one = trainer()
    one.gradients(batches)
    return torch.cat([p.grad.flatten() for p in one.optimizer.named.values() if p.grad is not None])


def test_neither_the_order_of_rows_nor_their_cut_changes_the_gradient() -> None:
    batch = whole_batch()
    whole = gradient_of([batch])
    turned = rows_in(batch, [5, 2, 7, 0, 1, 6, 4, 3])
    for pieces in ([turned], turned.pieces(1), turned.pieces(3), [*turned.pieces(5)][::-1]):
        assert float((gradient_of(pieces) - whole).norm() / whole.norm()) < 1e-5  # fp32 sums in another order


def packed(first: int, second: int) -> tuple[Batch, list[Batch]]:
    """Two documents in one row, and each alone."""
    generator = torch.Generator().manual_seed(first)
    parts = [torch.randint(VOCABULARY, (size + 1,), generator=generator) for size in (first, second)]
    tokens, labels = torch.cat([part[:-1] for part in parts]), torch.cat([part[1:] for part in parts])
    positions = torch.cat([torch.arange(first), torch.arange(second)])
    documents = torch.cat([torch.zeros(first), torch.ones(second)]).int()
    one = Batch(tokens[None], labels[None], positions[None], documents[None], "text", [0])
    alone = []
    for part in parts:
        places = torch.arange(len(part) - 1)[None]
        alone.append(Batch(part[None, :-1], part[None, 1:], places, torch.zeros_like(places).int(), "text", [0]))
    return one, alone


@pytest.mark.parametrize("sizes", [(7, 5), (1, 11), (20, 3)])
def test_the_gradient_of_packed_documents_is_that_of_separate_ones(sizes: tuple[int, int]) -> None:
    row, alone = packed(*sizes)
    apart = gradient_of(alone)
    assert float((gradient_of([row]) - apart).norm() / apart.norm()) < 1e-5


@pytest.mark.parametrize("fault", ["one document", "border too late", "border too early"])
def test_a_leak_between_documents_is_seen_in_gradient_and_evidence(fault: str) -> None:
    row, alone = packed(7, 5)
    documents = row.documents_BT.clone()
    documents[0] = {
        "one document": torch.zeros(12),
        "border too late": torch.tensor([0] * 8 + [1] * 4),
        "border too early": torch.tensor([0] * 6 + [1] * 6),
    }[fault].int()
    apart = gradient_of(alone)
    assert float((gradient_of([replace(row, documents_BT=documents)]) - apart).norm() / apart.norm()) > 0.01

    @dataclass
    class Leaking:
        """The network as it would be if its mask were drawn from wrong borders."""

        network: Any
        device: Any

        def hidden(self, tokens: Tensor, positions: Tensor, given: Tensor | None = None) -> Tensor:
            return self.network.hidden(tokens, positions, documents if given is not None else None)  # type: ignore[no-any-return]

    assert pack_difference(trainer().network, row) < PACK_TOLERANCE / 10
    assert pack_difference(Leaking(trainer().network, torch.device("cpu")), row) > PACK_TOLERANCE  # type: ignore[arg-type]


@dataclass
class Steep:
    """A finite loss whose gradient is not a number: the root of zero."""

    figures = NextToken().figures

    def count(self, batch: Batch) -> Tensor:
        return NextToken().count(batch)

    def __call__(self, model: Model, batch: Batch) -> Loss:
        loss = NextToken()(model, batch)
        steep = bool(24 in batch.sample_ids)
        return Loss(loss.sum + ((model.head_VD.sum() * 0.0).sqrt() if steep else 0.0), loss.sums)


@pytest.mark.parametrize("kind", ["muon", "adamw", "lion", "adafactor", "schedule_free"])
def test_a_gradient_that_is_no_number_changes_nothing_at_all(kind: str) -> None:
    one = trainer(kind=kind, objective=Steep(), piece_rows=2)
    one.average = Average(0.9)
    for _ in range(3):
        one.step()
    before = {f"{f}|{n}": t.detach().clone() for f, group in one.tensors().items() for n, t in group.items()}
    state = {key: value for key, value in one.state().items() if key != "source"}
    with pytest.raises(WuxingError, match=r"the gradient of step 3 is not finite; .* Samples 24, 25.*record-24"):
        one.step()
    after = {f"{f}|{n}": t for f, group in one.tensors().items() for n, t in group.items()}
    assert before.keys() == after.keys() and all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert {key: value for key, value in one.state().items() if key != "source"} == state
