"""The loop itself: exact resumption, ranks, counts, and stopping before anything is spoilt."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from wuxing.core.error import WuxingError
from wuxing.data.batch import Batch
from wuxing.model.architecture import Architecture, resolve
from wuxing.model.network import Network
from wuxing.objective.next_token import NextToken
from wuxing.objective.objective import Loss, Model, Objective
from wuxing.train.config import OptimizerConfig
from wuxing.train.trainer import Trainer
from wuxing.train.update.guard import WINDOW
from wuxing.train.update.optimizer import Optimizer
from wuxing.train.update.schedule import Schedule

VOCABULARY, TOKENS, ROWS = 61, 12, 8
POISON = 60


@dataclass
class Sequence:
    """Rows with uneven numbers of labels, drawn from (seed, place); every rank takes its share."""

    piece_rows: int = ROWS
    rank: int = 0
    ranks: int = 1
    position: int = 0
    masked_at: int = -1
    poison_at: int = -1
    strange_at: int = -1
    figures: dict[str, float] = field(default_factory=dict)
    digest: str = "sequence"

    def __next__(self) -> list[Batch]:
        places = list(range(self.position + self.rank, self.position + ROWS, self.ranks))
        self.position += ROWS
        rows = [self._row(place) for place in places]
        batch = Batch(
            tokens_BT=torch.stack([tokens for tokens, _ in rows]),
            labels_BT=torch.stack([labels for _, labels in rows]),
            positions_BT=torch.arange(TOKENS).expand(len(rows), TOKENS).contiguous(),
            documents_BT=torch.zeros(len(rows), TOKENS, dtype=torch.int32),
            sample_ids=places,
        )
        return batch.pieces(self.piece_rows)

    def _row(self, place: int) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(place)
        step = place // ROWS
        tokens = (torch.arange(TOKENS + 1) * (1 + place % 3) + place) % 50
        labels = tokens[1:].clone()
        labels[: int(torch.randint(TOKENS, (1,), generator=generator))] = -100
        if step == self.masked_at:
            labels[:] = -100
        if step == self.poison_at:
            labels[-1] = POISON
        if step == self.strange_at:
            labels = torch.randint(50, 60, (TOKENS,), generator=generator)
        return tokens[:-1], labels

    def state_dict(self) -> dict[str, Any]:
        return {"position": self.position}

    def load_state_dict(self, state: Any) -> None:
        self.position = state["position"]

    def describe(self, sample_id: int) -> list[str]:
        return [f"record-{sample_id}"]


@dataclass
class Poisoned:
    """Next-token loss that is infinite for one label: a fault planted in the data."""

    figures = NextToken().figures

    def count(self, batch: Batch) -> Tensor:
        return NextToken().count(batch)

    def __call__(self, model: Model, batch: Batch) -> Loss:
        loss = NextToken()(model, batch)
        return Loss(loss.sum * (torch.inf if bool((batch.labels_BT == POISON).any()) else 1.0), loss.sums)


def trainer(steps: int = 10, objective: Objective | None = None, kind: str = "muon", **source: Any) -> Trainer:
    network = Network(resolve(Architecture(size="40k", width=32, layers=2, max_positions=64), VOCABULARY))
    network.initialise(5)
    optimizer = Optimizer(network, OptimizerConfig.model_validate({"kind": kind}), 0.01)
    return Trainer(network, Sequence(**source), objective or NextToken(), optimizer, Schedule(), steps)


def run(one: Trainer, steps: int) -> Trainer:
    for _ in range(steps):
        one.step()
    return one


def flat(one: Trainer) -> Tensor:
    return torch.cat([p.detach().flatten() for p in one.network.parameters()])


@pytest.mark.parametrize("kind", ["muon", "adamw"])
def test_resumed_equals_never_stopped_bit_for_bit(kind: str) -> None:
    straight, first, second = (trainer(kind=kind) for _ in range(3))
    run(straight, 10)
    run(first, 4)
    tensors = {name: {k: v.clone() for k, v in group.items()} for name, group in first.tensors().items()}
    second.load(tensors, json.loads(json.dumps(first.state())))
    run(second, 6)
    assert torch.equal(flat(second), flat(straight))
    assert second.state() == straight.state()


@pytest.mark.parametrize("piece_rows", [1, 2, 3])
def test_pieces_do_not_change_what_is_learnt(piece_rows: int) -> None:
    whole, cut = trainer(), trainer(piece_rows=piece_rows)
    for step in range(6):
        assert cut.step().loss == pytest.approx(whole.step().loss, rel=1e-4), step
    # fp32 sums in another order, six updates; Muon's bf16 orthogonalisation passes on what crosses a rounding border
    assert float((flat(cut) - flat(whole)).norm() / flat(whole).norm()) < 5e-3


def test_one_step_in_pieces_has_the_same_gradient() -> None:
    whole, cut = trainer(), trainer(piece_rows=1)
    found = [one.gradients(next(one.source)) for one in (whole, cut)]
    assert found[0][1] == found[1][1] and found[0][0] == pytest.approx(found[1][0], rel=1e-6)
    for name, parameter in whole.optimizer.named.items():
        other = cut.optimizer.named[name].grad
        assert parameter.grad is not None and other is not None
        assert float((parameter.grad - other).norm() / parameter.grad.norm().clamp(min=1e-12)) < 1e-5, name


def test_a_step_without_labels_is_an_error_that_names_it() -> None:
    one = run(trainer(masked_at=2), 2)
    before = flat(one).clone()
    with pytest.raises(WuxingError, match=r"step 2 has no label that teaches.*Samples 16, 17.*record-16"):
        one.step()
    assert torch.equal(flat(one), before)


def test_an_infinite_loss_stops_before_the_update() -> None:
    one = run(trainer(objective=Poisoned(), poison_at=3), 3)
    before = flat(one).clone()
    with pytest.raises(WuxingError, match=r"the loss of step 3 is not finite; .*Samples 24, .*record-24"):
        one.step()
    assert torch.equal(flat(one), before) and all(p.grad is None for p in one.network.parameters())


def test_a_leap_of_the_loss_is_named_with_its_records() -> None:
    steps = WINDOW // 2 + 12
    one = trainer(steps=200, strange_at=steps - 1)
    reports = [one.step() for _ in range(steps)]
    assert reports[-1].spike[:2] == [f"record-{(steps - 1) * ROWS}", f"record-{(steps - 1) * ROWS + 1}"]
    assert all(not report.spike for report in reports[:-1])


def test_long_gradients_are_clipped_to_the_bound() -> None:
    one = trainer(kind="adamw")
    one.clip = 1e-3
    pieces = next(one.source)
    one.gradients(pieces)
    norm = one._norm()
    one.optimizer.zero()
    one.source.load_state_dict({"position": 0})
    assert one.step().gradient_norm == pytest.approx(norm) and norm > one.clip


RANKS = """
import json, sys, torch, torch.distributed as dist
sys.path.insert(0, sys.argv[1])
from test_trainer import flat, run, trainer
rank, ranks, port, out = int(sys.argv[2]), int(sys.argv[3]), sys.argv[4], sys.argv[5]
torch.set_num_threads(1)
dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=ranks)
one = run(trainer(rank=rank, ranks=ranks), 6)
torch.save(flat(one), f"{out}/{rank}.pt")
print(json.dumps(one.state()))
"""


def test_two_processes_learn_what_one_does(tmp_path: Path) -> None:
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    here = str(Path(__file__).parent)
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", RANKS, here, str(rank), "2", port, str(tmp_path)], stdout=subprocess.PIPE, text=True
        )
        for rank in range(2)
    ]
    states = [json.loads(process.communicate(timeout=120)[0].splitlines()[-1]) for process in processes]
    alone = run(trainer(), 6)
    found = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    assert torch.equal(found[0], found[1])
    # as for pieces: other order of fp32 sums
    assert float((found[0] - flat(alone)).norm() / flat(alone).norm()) < 5e-3
    for state in states:
        assert {k: state[k] for k in ("done", "positions", "taught")} == {
            k: alone.state()[k] for k in ("done", "positions", "taught")
        }
