"""What processes find out together about a network that is cut over them; the lead writes it as JSON.

`python shard_world.py RANK RANKS PORT REPLICAS DIRECTORY`: every process trains the same steps twice, whole on each and
cut, and compares; and saves, and reads what was saved.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from test_trainer import ROWS, VOCABULARY, Sequence
from torch import Tensor

from wuxing.compute import team
from wuxing.compute.mesh import Topology
from wuxing.data.batch import Batch
from wuxing.model.architecture import Architecture, resolve
from wuxing.model.network import Network
from wuxing.objective.next_token import NextToken
from wuxing.train.config import OptimizerConfig
from wuxing.train.numerics import cut_difference
from wuxing.train.save.share import Reader, SharedCheckpoints, read_share, read_whole
from wuxing.train.shard.build import cut_for_run, exact_sum
from wuxing.train.shard.cut import Shards
from wuxing.train.shard.exchange import Exchange, rows_of
from wuxing.train.trainer import Trainer
from wuxing.train.update import optimizer
from wuxing.train.update.average import Average
from wuxing.train.update.dropout import Dropout
from wuxing.train.update.freeze import Freeze
from wuxing.train.update.guard import Guard
from wuxing.train.update.optimizer import Optimizer
from wuxing.train.update.schedule import Schedule

STEPS = 6
CASES: dict[str, dict[str, Any]] = {
    "muon": {},
    "adamw": {"optimizer": {"kind": "adamw"}},
    "lion": {"optimizer": {"kind": "lion"}},
    "adafactor": {"optimizer": {"kind": "adafactor"}},
    "schedule_free": {"optimizer": {"kind": "schedule_free"}, "schedule": {"shape": "constant"}},
    "separate_head": {"tied": False},
    "penalties": {"optimizer": {"l1": 1e-3, "l2": 1e-2, "embedding_rate": 3.0, "vector_rate": 0.5}},
    "clipped": {"optimizer": {"clip": 1e-3}},
    "frozen": {"freeze": {"names": ["model.embed_tokens.*", "model.layers.0.self_attn.*"]}},
    "thawed": {"freeze": {"thaw_every": 0.3}},
    "average": {"average": 0.9},
    "dropout": {"dropout": 0.3},
    "z_loss": {"objective": {"z_weight": 1e-2, "smoothing": 0.1}},
    "recompute": {"recompute": True, "dropout": 0.3},
    "bf16": {"precision": "bfloat16"},
}

EXACT = ["schedule_free", "separate_head", "thawed", "bf16"]


@dataclass
class Uneven(Sequence):
    """Ranks that have other numbers of pieces, and steps in which one of them has nothing to learn from."""

    def __next__(self) -> list[Batch]:
        step = self.position // ROWS
        pieces = [piece for batch in super().__next__() for piece in batch.pieces(1 + self.rank)]
        if step % 3 == 1 and self.rank == 1:
            for piece in pieces:
                piece.labels_BT.fill_(-100)
        return pieces


def shape(tied: bool = True) -> dict[str, Any]:
    small = Architecture(size="40k", width=32, layers=3, max_positions=64, tie_embeddings=tied)
    return resolve(small, VOCABULARY)


def trainer(case: dict[str, Any], topology: Topology | None) -> Trainer:
    precision = getattr(torch, case.get("precision", "float32"))
    shards: Shards | None = None
    if topology is not None:
        shards = cut_for_run(shape(case.get("tied", True)), None, 5, torch.device("cpu"), precision, topology)
    network = shards.network if shards else Network(shape(case.get("tied", True))).initialise(5)
    network.recompute = case.get("recompute", False)
    config = OptimizerConfig.model_validate(case.get("optimizer", {}))
    return Trainer(
        network=network,
        source=Uneven(rank=team.rank(), ranks=team.ranks()),
        objective=NextToken.model_validate(case.get("objective", {})),
        optimizer=Optimizer(network, config, 0.01, shards),
        schedule=Schedule.model_validate(case.get("schedule", {})),
        steps=STEPS,
        precision=precision,
        clip=config.clip,
        freeze=Freeze.model_validate(case.get("freeze", {})),
        guard=Guard(),
        average=Average(case["average"]) if "average" in case else None,
        dropout=Dropout(case["dropout"], 3) if "dropout" in case else None,
        shards=shards,
    )


def rows_here(one: Trainer, name: str, whole: Tensor) -> Tensor:
    """What the cut run keeps of a tensor of the whole run."""
    assert one.shards is not None
    base = name.removeprefix("average|").partition("|")[0]
    if base not in one.shards.matrices or whole.ndim == 0 or name.endswith("|col_var"):
        return whole
    first, last = one.shards.rows(whole.shape[0])
    return whole[first:last]


def worst(cut: Trainer, whole: Trainer) -> float:
    """Largest relative difference of any tensor of the state."""
    found = 0.0
    for group, tensors in cut.tensors().items():
        others = whole.tensors()[group]
        assert tensors.keys() == others.keys(), tensors.keys() ^ others.keys()
        for name, tensor in tensors.items():
            other = rows_here(cut, name, others[name]).detach().double()
            assert tensor.shape == other.shape, (name, tensor.shape, other.shape)
            found = max(found, float((tensor.detach().double() - other).norm() / other.norm().clamp(min=1e-12)))
    return max(team.of_everyone(found))


def judged(one: Trainer) -> float:
    """The loss of the judged weights, on a batch that is the same everywhere."""
    batch = Sequence()._row(3)
    with torch.no_grad(), one.judged() as network, one.autocast():
        loss = NextToken()(network, Batch(batch[0][None], batch[1][None], torch.arange(12)[None], torch.zeros(1, 12)))
    return float(loss.sum)


def compare(case: dict[str, Any], topology: Topology) -> dict[str, Any]:
    whole, cut = trainer(case, None), trainer(case, topology)
    start = {name: tensor.clone() for name, tensor in cut.named.items()}
    reports = [(whole.step(), cut.step()) for _ in range(STEPS)]
    losses = [abs(a.loss - b.loss) / a.loss for a, b in reports]
    before = {name: tensor.clone() for name, tensor in cut.named.items()}
    measured = (judged(whole), judged(cut))
    return {
        "worst": worst(cut, whole),
        "loss": max(losses),
        "counts": [a.count for a, _ in reports] == [b.count for _, b in reports],
        "norms": max(abs(a.gradient_norm - b.gradient_norm) / a.gradient_norm for a, b in reports),
        "judged": abs(measured[0] - measured[1]) / measured[0],
        "looking_changes_nothing": all(torch.equal(before[name], tensor) for name, tensor in cut.named.items()),
        "moved": sorted(name for name, tensor in cut.named.items() if not torch.equal(tensor, start[name])),
        "moved_whole": sorted(name for name, tensor in whole.named.items() if _moved(name, tensor, cut, start)),
    }


def exactly(case: dict[str, Any], topology: Topology) -> float:
    """Largest difference of any tensor where sums must not know how the state is cut."""
    trainers = []
    for one in (trainer(case, topology), trainer(case, None)):
        one.exact = exact_sum(one.shards)
        one.optimizer = Optimizer(one.network, one.optimizer.config, 0.01, one.shards, exactly=True)
        reports = [one.step() for _ in range(STEPS)]
        trainers.append((one, [(report.loss, report.gradient_norm) for report in reports]))
    (cut, mine), (whole, theirs) = trainers
    return worst(cut, whole) if mine == theirs else 1.0


def _moved(name: str, tensor: Tensor, cut: Trainer, start: dict[str, Tensor]) -> bool:
    return not torch.equal(rows_here(cut, name, tensor), start[name])


def exchanged(topology: Topology) -> bool:
    """Matrices of awkward sizes, sent to their owners and back."""
    mesh_group, place = dist.group.WORLD, dist.get_rank()
    good = True
    for count, height, width in ((5, 3, 4), (1, 9, 2), (4, 8, 8), (7, 1, 3)):
        generator = torch.Generator().manual_seed(count)
        matrices = [torch.randn(height, width, generator=generator) for _ in range(count)]
        first, last = rows_of(height, dist.get_world_size(), place)
        exchange = Exchange(mesh_group, dist.get_world_size(), place, count, height, width)
        mine = exchange.to_owners([matrix[first:last] for matrix in matrices])
        owned = matrices[place :: dist.get_world_size()]
        good &= len(mine) == len(owned) and all(torch.equal(a, b) for a, b in zip(mine, owned, strict=True))
        back = exchange.to_rows(mine * 2)
        good &= all(torch.equal(a, 2 * b[first:last]) for a, b in zip(back, matrices, strict=True))
    return not any(team.any_of([not good]))


def saved(directory: Path, topology: Topology, others: list[Topology]) -> Iterator[tuple[str, bool]]:
    """What was saved in one topology, read in each of the others, bit for bit."""
    case = {"optimizer": {"kind": "adafactor"}, "average": 0.9}
    one = trainer(case, topology)
    for _ in range(3):
        one.step()
    checkpoints = SharedCheckpoints(directory / "checkpoints", shards=one.shards)
    checkpoints.prepare(one.tensors())
    checkpoints.save(3, one.tensors(), one.state(), must=True)
    one.step()
    checkpoints.wait()
    path = checkpoints.path(3)
    whole = read_whole(path)
    before = trainer(case, topology)
    for _ in range(3):
        before.step()
    torch.set_rng_state(whole["optimizer"]["random"])
    here = _flat({file: {n: rows_here(before, n, t) for n, t in group.items()} for file, group in whole.items()})
    yield "whole", _equal(_flat(before.tensors()), here)
    for other in others:
        again = trainer(case, other)
        again.load(read_share(path, again.shards), one.state() | {"done": 3, "source": {"position": 3 * ROWS}})
        yield (
            f"to {other.sharding}",
            _equal(
                _flat(again.tensors()),
                _flat({file: {n: rows_here(again, n, t) for n, t in group.items()} for file, group in whole.items()}),
            ),
        )
    stock = {name: torch.empty_like(tensor) for group in whole.values() for name, tensor in group.items()}
    dcp.load(stock, storage_reader=dcp.HuggingFaceStorageReader(str(path)), no_dist=True)
    yield "library", all(torch.equal(stock[name], tensor) for name, tensor in _flat(whole).items())
    sizes = {name: size for name, (_, size) in Reader(path).described.items()}
    yield "shapes", all(size == _flat(whole)[name].shape for name, size in sizes.items())


def _flat(groups: dict[str, dict[str, Tensor]]) -> dict[str, Tensor]:
    return {name: tensor for group in groups.values() for name, tensor in group.items()}


def _equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    different = [name for name in one.keys() | other.keys() if not torch.equal(one[name], other[name])]
    print(*different, file=sys.stderr)
    return not any(team.any_of([bool(different)]))


def main() -> None:
    rank, ranks, port, replicas = (int(word) for word in sys.argv[1:5])
    directory = Path(sys.argv[5])
    torch.set_num_threads(1)
    native = optimizer.pick_precision
    store = dist.TCPStore("127.0.0.1", port, ranks, rank == 0)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=ranks)
    topology = Topology(replicas, ranks // replicas)
    names = [*CASES] if replicas == 1 else ["muon", "adafactor", "average", "thawed", "bf16"]
    found: dict[str, Any] = {}
    for name in names:
        # the last bits of Muon's iteration in bf16 depend on how many matrices are in a batch
        optimizer.pick_precision = native if name == "bf16" else lambda device: torch.float32
        found[name] = compare(CASES[name], topology)
    optimizer.pick_precision = native
    found["exact"] = {name: exactly(CASES[name], topology) for name in EXACT}
    found["exchanged"] = exchanged(topology)
    others = [Topology(1, ranks), *([Topology(ranks // 2, 2)] if ranks > 2 else [])]
    found["saved"] = dict(saved(directory, topology, others))
    one = trainer({}, topology)
    found["step_cut"] = cut_difference(one.network, one.objective, next(Sequence())[0], one.shards)
    if rank == 0:
        (directory / "found.json").write_text(json.dumps(found))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
