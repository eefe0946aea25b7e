"""What a trainer offers beside the loop: optimizers, averages, freezing, guards, early stopping."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from small_run import base_config, base_parents, make_in
from test_trainer import ROWS, flat, run, trainer
from torch import Tensor

from wuxing.core.artifact import Artifact
from wuxing.core.context import Context
from wuxing.core.error import UsageError, WuxingError
from wuxing.core.file import read_json
from wuxing.model.network import Network
from wuxing.train.config import OptimizerConfig, Stop, Validation
from wuxing.train.model_kind import ModelKind
from wuxing.train.run import Run, stop_reason
from wuxing.train.save.checkpoint import Checkpoints
from wuxing.train.trainer import Trainer
from wuxing.train.update.average import Average
from wuxing.train.update.freeze import Freeze, check_names, learning
from wuxing.train.update.guard import WINDOW, Guard, overfits
from wuxing.train.update.optimizer import Lion, Optimizer, ScheduleFree
from wuxing.train.watch.adjust import ask

KINDS = ("muon", "adamw", "lion", "adafactor", "schedule_free")


def gradients(steps: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(3)
    return [torch.randn(5, 4, generator=generator, dtype=torch.float64) for _ in range(steps)]


def stepped(make: Callable[[list[Any]], torch.optim.Optimizer], given: list[Tensor]) -> tuple[Tensor, Any]:
    parameter = torch.nn.Parameter(torch.ones(5, 4, dtype=torch.float64))
    optimizer = make([{"params": [parameter], "weight_decay": 0.1}])
    for gradient in given:
        parameter.grad = gradient.clone()
        optimizer.step()
    return parameter.detach(), optimizer.state[parameter]


def test_lion_is_its_definition() -> None:
    found, _ = stepped(lambda groups: Lion(groups, 0.01, (0.9, 0.99)), gradients(7))
    weight, momentum = torch.ones(5, 4, dtype=torch.float64), torch.zeros(5, 4, dtype=torch.float64)
    for gradient in gradients(7):
        direction = torch.sign(0.9 * momentum + 0.1 * gradient)
        weight = weight - 0.01 * (direction + 0.1 * weight)
        momentum = 0.99 * momentum + 0.01 * gradient
    assert torch.allclose(found, weight, rtol=0, atol=1e-14)


def test_schedule_free_is_its_definition() -> None:
    """Line by line from the paper: every iterate is kept, and x is the mean of all z weighted by the squared rates."""
    given = gradients(9)
    found, state = stepped(lambda groups: ScheduleFree(groups, 0.02, (0.9, 0.99)), given)
    z = x = y = torch.ones(5, 4, dtype=torch.float64)
    square = torch.zeros_like(z)
    every_z = []
    for step, gradient in enumerate(given, 1):
        square = 0.99 * square + 0.01 * gradient**2
        z = z - 0.02 * (gradient / ((square / (1 - 0.99**step)).sqrt() + 1e-8) + 0.1 * y)
        every_z.append(z)
        x = torch.stack(every_z).mean(0)
        y = 0.1 * z + 0.9 * x
    assert torch.allclose(found, y, rtol=0, atol=1e-12) and torch.allclose(state["x"], x, rtol=0, atol=1e-12)


def test_penalties_are_the_gradients_of_their_sums() -> None:
    network = trainer().network
    optimizer = Optimizer(network, OptimizerConfig(kind="adamw", l1=0.3, l2=0.7), 0.01)
    for parameter in optimizer.named.values():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.penalise()
    matrices = [p for n, p in network.named_parameters() if p.ndim == 2 and "embed" not in n]
    penalty = sum((0.3 * p.abs().sum() + 0.35 * p.square().sum() for p in matrices), torch.zeros(()))
    for parameter, truth in zip(matrices, torch.autograd.grad(penalty, matrices), strict=True):
        assert parameter.grad is not None and torch.allclose(parameter.grad, truth, rtol=1e-6, atol=1e-8)
    assert all(not bool(p.grad.any()) for n, p in optimizer.named.items() if p.ndim == 1 and p.grad is not None)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_learns_and_goes_on_bit_for_bit(kind: str) -> None:
    straight, first, second = (trainer(kind=kind) for _ in range(3))
    for one in (straight, first, second):
        one.average = Average(0.9)
    losses = [straight.step().loss for _ in range(10)]
    assert losses[-1] < losses[0] - 0.05
    run(first, 4)
    with first.judged():
        pass  # looking at the averaged weights leaves no trace
    tensors = {name: {k: v.clone() for k, v in group.items()} for name, group in first.tensors().items()}
    second.load(tensors, json.loads(json.dumps(first.state())))
    run(second, 6)
    assert torch.equal(flat(second), flat(straight))
    assert second.average is not None and straight.average is not None
    for name, tensor in straight.average.tensors.items():
        assert torch.equal(second.average.tensors[name], tensor)


def test_the_average_is_the_one_of_its_formula() -> None:
    average, values = Average(0.8), [torch.tensor([float(n * n)]) for n in range(1, 9)]
    truth = values[0].double()
    for step, value in enumerate(values, 1):
        average.update({"w": value}, step)
        if step > 1:
            decay = min(0.8, step / (step + 9))
            truth = decay * truth + (1 - decay) * value
    assert float(average.tensors["w"]) == pytest.approx(float(truth), rel=1e-6)


def test_frozen_parameters_stay_and_blocks_thaw_from_above() -> None:
    one = trainer(kind="adamw")
    one.freeze = Freeze(names=("model.embed_tokens.*",), thaw_every=0.5)
    before = {name: p.detach().clone() for name, p in one.network.named_parameters()}
    run(one, 5)  # the first half: only the last block and the final norm
    moved = {name for name, p in one.network.named_parameters() if not torch.equal(p, before[name])}
    assert moved == {name for name in before if "layers.1." in name} | {"model.norm.weight"}
    run(one, 1)
    moved = {name for name, p in one.network.named_parameters() if not torch.equal(p, before[name])}
    assert moved == set(before) - {"model.embed_tokens.weight"}


def test_thawing_counts_blocks_from_the_last() -> None:
    names = [f"model.layers.{layer}.mlp.weight" for layer in range(4)] + ["model.embed_tokens.weight", "model.norm.w"]
    blocks = [len(learning(names, Freeze(thaw_every=0.25), step, 100)) for step in (0, 24, 25, 50, 75, 99)]
    assert blocks == [2, 2, 3, 4, 5, 5]  # the norm and one block; embeddings would come after the whole run
    assert learning(names, Freeze(), 0, 100) == set(names)
    with pytest.raises(UsageError, match="no parameter is called"):
        check_names(names, Freeze(names=("model.layer.*",)))
    with pytest.raises(UsageError, match="nothing to learn"):
        check_names(names, Freeze(names=("*",)))


SPIKED = WINDOW // 2 + 12


def test_a_skipped_leap_changes_no_weight() -> None:
    one = trainer(steps=200, strange_at=SPIKED - 1)
    one.guard = Guard(spike="skip")
    run(one, SPIKED - 1)
    before = flat(one).clone()
    report = one.step()
    assert report.skipped and one.skips == 1 and torch.equal(flat(one), before)
    assert not one.step().skipped and not torch.equal(flat(one), before)


@dataclass
class Steps:
    """A held-out measure that is a list: what the run does with it can be foretold."""

    values: list[float]
    metric: str = "bits_per_byte"
    lower_is_better: bool = True
    seen: list[Tensor] = field(default_factory=list)

    def __call__(self, network: Network) -> dict[str, float]:
        self.seen.append(torch.cat([p.detach().flatten() for p in network.parameters()]).clone())
        return {self.metric: self.values[min(len(self.seen), len(self.values)) - 1]}


def run_of(one: Trainer, directory: Path, values: list[float], **settings: Any) -> Run:
    directory.mkdir(exist_ok=True)
    settings["validation"] = Validation(times=settings.pop("times", 5))
    defaults: dict[str, Any] = {"save_every_seconds": 1e9, "learning_rate": 0.01, "name": "base"}
    return Run(
        one, Steps(values), Checkpoints(directory / "checkpoints"), directory, Context(home=directory),
        **{**defaults, **settings},
    )  # fmt: skip


def test_a_rewound_run_equals_one_that_never_saw_the_samples(tmp_path: Path) -> None:
    mark, steps = SPIKED - 4, SPIKED + 12
    leapt = trainer(steps=steps, strange_at=SPIKED - 1)
    leapt.guard = Guard(spike="rewind", rewind_steps=mark)
    rewound = run_of(leapt, tmp_path / "a", [1.0], times=1)
    rewound.finish()
    assert [rewind["step"] for rewind in rewound.rewinds] == [SPIKED] and leapt.done == steps
    clean = run(trainer(steps=steps, strange_at=SPIKED - 1), mark)
    clean.source.load_state_dict({"position": SPIKED * ROWS})
    run(clean, steps - mark)
    assert torch.equal(flat(leapt), flat(clean))
    logged = [json.loads(line) for line in (tmp_path / "a" / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in logged if "loss" in line] == list(range(1, steps + 1))


def test_a_rewound_run_that_was_killed_equals_one_that_was_not(tmp_path: Path) -> None:
    mark, steps = SPIKED - 4, SPIKED + 12

    def start(name: str, **settings: Any) -> Run:
        one = trainer(steps=steps, strange_at=SPIKED - 1)
        one.guard = Guard(spike="rewind", rewind_steps=mark)
        return run_of(one, tmp_path / name, [1.0], times=1, **settings)

    straight = start("straight")
    straight.finish()
    for killed_at in (SPIKED - 2, SPIKED + 3):
        first = start(f"killed{killed_at}", save_every_seconds=0.0)
        step, made = first.trainer.step, [0]

        def counted(step: Any = step, made: list[int] = made, stop: int = killed_at) -> Any:
            made[0] += 1
            if made[0] > stop:
                raise KeyboardInterrupt
            return step()

        first.trainer.step = counted  # type: ignore[method-assign]
        with pytest.raises(KeyboardInterrupt):
            first.finish()
        first.checkpoints.wait()
        second = start(f"killed{killed_at}", save_every_seconds=0.0)
        assert second.resume()
        second.finish()
        assert torch.equal(flat(second.trainer), flat(straight.trainer))


def test_leaps_that_come_back_stop_the_run(tmp_path: Path) -> None:
    one = trainer(steps=200, strange_at=SPIKED - 1)
    one.guard = Guard(spike="rewind", rewind_steps=SPIKED - 4, max_rewinds=1)
    state = run_of(one, tmp_path, [1.0], times=1)
    state.rewinds = [{"step": 3, "records": []}]
    state._take_up = lambda checkpoint: None  # type: ignore[method-assign]
    with pytest.raises(WuxingError, match="going back does not help"):
        state.finish()


def test_a_run_that_runs_away_is_stopped() -> None:
    one = trainer(steps=400, kind="adamw")
    run(one, 60)
    for group in one.optimizer.parts[0].param_groups:
        group["lr"] = 3.0
    one.optimizer.base = [[3.0] * len(rates) for rates in one.optimizer.base]
    with pytest.raises(WuxingError, match="training has diverged"):
        run(one, 300)


@pytest.mark.parametrize(
    ("stop", "measured", "reason"),
    [
        (Stop(target=1.5), [3.0, 2.0, 1.5], "the target 1.5 is reached"),
        (Stop(target=1.5), [3.0, 2.0, 1.6], ""),
        (Stop(patience=2), [3.0, 2.0, 2.1, 1.9, 1.95], ""),
        (Stop(patience=2), [3.0, 2.0, 2.1, 2.0], "2 measurements in a row brought no improvement"),
        (Stop(patience=1, min_improvement=0.2), [3.0, 2.0, 1.9], "1 measurements in a row brought no improvement"),
        (Stop(patience=1), [], ""),
    ],
)
def test_why_a_run_stops_early(stop: Stop, measured: list[float], reason: str) -> None:
    assert stop_reason(stop, measured, 1) == reason


def test_accuracy_counts_upwards() -> None:
    assert stop_reason(Stop(target=0.9), [-0.2, -0.91], -1) and not stop_reason(Stop(target=0.9), [-0.2, -0.89], -1)


def test_the_best_weights_are_kept_and_a_run_ends_early(tmp_path: Path) -> None:
    one = trainer(steps=50)
    state = run_of(one, tmp_path, [3.0, 2.0, 1.0, 1.5, 1.6, 0.1], keep="best", stop=Stop(patience=2))
    state.finish()
    assert one.done == 40 and state.best_step == 20 and state.kept["bits_per_byte"] == 1.0
    last = flat(one).clone()
    with state.chosen() as network:
        assert torch.equal(torch.cat([p.detach().flatten() for p in network.parameters()]), state.validate.seen[2])
    assert torch.equal(flat(one), last)


@pytest.mark.parametrize("kind", ["muon", "schedule_free"])
def test_what_is_measured_is_what_is_kept(kind: str, tmp_path: Path) -> None:
    one = trainer(steps=20, kind=kind)
    one.average = Average(0.9) if kind == "muon" else None
    state = run_of(one, tmp_path, [3.0, 2.0, 2.5, 2.6, 2.7, 2.8], keep="best")
    state.finish()
    with state.chosen() as network:
        kept = torch.cat([p.detach().flatten() for p in network.parameters()])
    assert torch.equal(kept, state.validate.seen[1]) and not torch.equal(kept, flat(one))


def test_overfitting_is_two_worse_measurements_while_the_loss_falls() -> None:
    assert overfits([3.0, 2.0, 2.1, 2.2], [None, 2.0, 1.5, 1.0])
    assert not overfits([3.0, 2.0, 2.1, 2.2], [None, 2.0, 1.5, 1.6])
    assert not overfits([3.0, 2.0, 2.1], [None, 2.0, 1.5])
    assert not overfits([3.0, 2.0, 2.1, 2.05], [None, 2.0, 1.5, 1.0])


def test_schedules_are_their_formulas() -> None:
    from wuxing.train.update.schedule import Schedule, falls

    steps, warmup = 200, 20
    linear = Schedule(shape="linear", warmup_share=0.1, final_share=0.2)
    root = Schedule(shape="inverse_sqrt", warmup_share=0.1)
    for step in range(steps):
        rising = (step + 1) / (warmup + 1)
        assert linear.factor(step, steps) == pytest.approx(
            rising if step < warmup else 0.2 + 0.8 * min(1, (steps - step) / (steps - warmup + 1))
        )
        assert root.factor(step, steps) == pytest.approx(
            rising if step < warmup else math.sqrt(warmup / max(warmup, step + 1))
        )
    plateau = Schedule(shape="plateau", warmup_share=0, patience=2, fall=0.5, final_share=0.1)
    measured = [3.0, 2.0, 2.1, 2.2, 1.9, 2.0, 2.0, 2.0, 2.0]
    assert [falls(measured[:n], 2) for n in range(10)] == [0, 0, 0, 0, 1, 1, 1, 2, 2, 3]
    assert plateau.factor(50, steps, measured) == 0.125 and plateau.factor(50, steps, measured * 9) == 0.1


def test_a_recipe_asks_for_all_of_it(world: dict[str, Artifact], tmp_path: Path) -> None:
    config = base_config(
        optimizer={"kind": "lion", "learning_rate": 0.003, "l2": 0.01},
        schedule={"shape": "plateau"},
        average=0.9,
        keep="best",
        stop={"target": 1.0},
        freeze={"names": ["model.layers.0.self_attn.q_norm.*"]},
        guard={"spike": "rewind", "rewind_steps": 6},
    )
    made = make_in(tmp_path / "m", ModelKind(), config, base_parents(world), Context(home=tmp_path))
    assert made.record["failures"] == []
    training = read_json(made.path / "training.json")
    kept = next(line for line in training["validation"] if line["step"] == training["kept_step"])
    assert kept["bits_per_byte"] == min(line["bits_per_byte"] for line in training["validation"])
    assert training["ended"] in ("the target 1 is reached", "the budget is spent")


def adjusted(directory: Path, at: int, **knobs: str) -> Callable[[Trainer], Any]:
    """A step that asks for knobs after `at` finished steps, as another process would."""
    step = Trainer.step

    def asking(self: Trainer) -> Any:
        report = step(self)
        if self.done == at and not (directory / "asked.jsonl").exists():
            ask(directory, knobs, "ann", "the loss is rough", "2026-01-01")
        return report

    return asking


def test_a_knob_is_turned_at_the_next_step_and_again_after_a_kill(
    world: dict[str, Artifact], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed after the knob, resumed from before it: the weights are those of a run that was never killed."""
    save, tell = Run.save, Run._tell

    def early(self: Run, must: bool = True) -> None:
        if self.trainer.done <= 6:
            save(self, must)

    def killed(self: Run, report: Any, bar: Any) -> None:
        tell(self, report, bar)
        if report.step == 14:
            raise KeyboardInterrupt

    def make(name: str) -> Path:
        monkeypatch.setattr(Trainer, "step", adjusted(tmp_path / name, 9, learning_rate="0.002", steps="20"))
        return make_in(tmp_path / name, ModelKind(), base_config(), base_parents(world), Context(home=tmp_path)).path

    straight = make("straight")
    monkeypatch.undo()
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Run, "save", early)
        patch.setattr(Run, "_tell", killed)
        patch.setattr(Run, "_worth_saving", property(lambda self: self.trainer.done == 6))
        make("killed")
    monkeypatch.undo()
    again = make("killed")
    assert (straight / "model.safetensors").read_bytes() == (again / "model.safetensors").read_bytes()
    training = read_json(again / "training.json")
    assert training["steps"] == 20
    assert [(line["step"], line["knob"], line["value"]) for line in training["adjustments"]] == [
        (9, "learning_rate", 0.002),
        (9, "steps", 20),
    ]


def test_a_run_may_be_ended_now(world: dict[str, Artifact], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Trainer, "step", adjusted(tmp_path / "m", 11, steps="1"))
    made = make_in(tmp_path / "m", ModelKind(), base_config(), base_parents(world), Context(home=tmp_path))
    training = read_json(made.path / "training.json")
    assert made.record["failures"] == [] and training["steps"] == 11 and training["validation"][-1]["step"] == 11


@pytest.mark.parametrize("knob", [{"rate": "1"}, {"clip": "x"}, {"steps": "-4"}, {"learning_rate": "nan"}])
def test_knobs_that_make_no_sense_are_refused(knob: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "start.json").write_text("{}")
    with pytest.raises(UsageError):
        ask(tmp_path, knob, "ann", "", "")
    assert not (tmp_path / "asked.jsonl").exists()
