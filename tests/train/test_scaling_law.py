"""Scaling laws: known truths found again, intervals that hold as often as they say, runs that cannot be compared."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.optimize import least_squares
from small_run import base_config, train_base

from wuxing.core.artifact import Artifact
from wuxing.core.error import UsageError
from wuxing.core.file import read_json
from wuxing.model.architecture import Architecture, count_parameters, resolve
from wuxing.train.config import ModelConfig
from wuxing.train.plan.finished import block_parameters, read_all, read_finished
from wuxing.train.plan.scaling import PRIOR, SPREAD, Point, _Task, fit

SIZES, BUDGETS = (4e5, 8e5, 16e5), (1e5, 2e5, 4e5)


def truth(parameters: float, positions: float, floor: float = 0.8, alpha: float = 0.4, beta: float = 0.3) -> float:
    return floor + 0.3 * (parameters / 1e6) ** -alpha + 0.6 * (positions / 3e5) ** -beta


def runs(seed: int, noise: float, **law: float) -> list[Point]:
    random = np.random.default_rng(seed)
    return [
        Point(size, data, truth(size, data, **law) * math.exp(noise * random.standard_normal()))
        for size in SIZES
        for data in BUDGETS
    ]


def test_a_known_law_is_found_again_from_many_exact_runs() -> None:
    points = [Point(n, d, truth(n, d)) for n in np.geomspace(1e5, 1e9, 9) for d in np.geomspace(1e5, 1e10, 9)]
    law = fit(points)
    assert law.deviation < 2e-4  # what the priors pull
    known = {"E": 0.8, "A": 0.3 * 1e6**0.4, "B": 0.6 * 3e5**0.3, "alpha": 0.4, "beta": 0.3}
    for name, value in known.items():
        assert value in law.figures[name], name
    assert_allclose([law.figures[name].middle for name in ("E", "alpha", "beta")], [0.8, 0.4, 0.3], rtol=0.02)


def test_intervals_hold_as_often_as_they_say() -> None:
    """A fourth size at twice the data, in worlds drawn around the prior: 48 of 50 at most may miss or hit by luck."""
    hits, worlds, widths = 0, 50, []
    for seed in range(worlds):
        random = np.random.default_rng(1000 + seed)
        law = {
            "floor": random.uniform(0.3, 1.1),
            "alpha": math.exp(random.normal(math.log(0.35), 0.4)),
            "beta": math.exp(random.normal(math.log(0.35), 0.4)),
        }
        said = fit(runs(seed, 0.005, **law), seed, draws=120).predict(3.2e6, 8e5)
        hits += truth(3.2e6, 8e5, **law) * math.exp(0.005 * random.standard_normal()) in said
        widths.append((said.high - said.low) / said.middle)
    # at 90 % fewer than 39 of 50 come by chance once in a thousand times
    assert hits >= 39
    assert float(np.median(widths)) < 0.07, "an interval that holds everything says nothing"


def test_intervals_that_are_too_narrow_would_be_found_out() -> None:
    """The seeded fault of the test above: runs ten times noisier than the law is told."""
    hits = 0
    for seed in range(50):
        law = fit(runs(seed, 0.0005), seed, draws=60)
        narrow = replace(law, noise=law.noise * 0.1, draws=law.best + (law.draws - law.best) * 0.1)
        random = np.random.default_rng(seed)
        hits += truth(3.2e6, 8e5) * math.exp(0.01 * random.standard_normal()) in narrow.predict(3.2e6, 8e5)
    assert hits < 39


def test_the_fit_equals_scipys() -> None:
    task = _Task.of(runs(3, 0.01))

    def distance(theta: np.ndarray) -> np.ndarray:
        misfit = task.misfit(theta[None], task.measured[None])[0]
        return np.concatenate([misfit / 0.01, (theta - PRIOR) / SPREAD])

    theirs = least_squares(distance, PRIOR, xtol=1e-12, ftol=1e-12)  # with its own derivatives
    ours = task.solve(task.measured[None], PRIOR[None], np.array([0.01]), PRIOR[None])
    cost = task.cost(ours, task.measured[None], PRIOR[None], np.array([0.01]))[0]
    assert cost <= 2 * theirs.cost * (1 + 1e-6)
    assert_allclose(ours[0], theirs.x, atol=2e-3)


def test_slopes_equal_differences() -> None:
    task = _Task.of(runs(1, 0.0))
    theta = PRIOR + 0.3
    slopes = task.scale.slopes(theta[None], task.sizes, task.data)[0]
    for k in range(len(theta)):
        step = np.zeros(len(theta))
        step[k] = 1e-6
        ahead, behind = (task.scale.losses((theta + s)[None], task.sizes, task.data)[0] for s in (step, -step))
        assert_allclose(slopes[:, k], (ahead - behind) / 2e-6, rtol=1e-5, atol=1e-9)


def test_predictions_do_not_depend_on_order_units_or_luck() -> None:
    points = runs(5, 0.004)
    said = fit(points).predict(3.2e6, 8e5)
    assert fit(points).predict(3.2e6, 8e5) == said
    backwards = fit(points[::-1]).predict(3.2e6, 8e5)
    assert_allclose(backwards.middle, said.middle, rtol=1e-5)
    nats = fit([replace(point, loss=point.loss * 5.5) for point in points]).predict(3.2e6, 8e5)
    assert_allclose(np.array(nats.to_json()) / 5.5, said.to_json(), rtol=1e-4)
    thousands = fit([replace(p, parameters=p.parameters / 1e3, positions=p.positions / 1e3) for p in points])
    assert_allclose(thousands.predict(3.2e3, 8e2).to_json(), said.to_json(), rtol=1e-4)


def test_more_runs_say_more_and_far_is_less_sure_than_near() -> None:
    def width(count: int, parameters: float, positions: float) -> float:
        points = [point for seed in range(count) for point in runs(seed, 0.005)]
        said = fit(points).predict(parameters, positions)
        return (said.high - said.low) / said.middle

    assert width(8, 3.2e6, 8e5) < width(1, 3.2e6, 8e5)
    assert width(1, 3.2e6, 8e5) < width(1, 3.2e7, 8e6) < width(1, 3.2e9, 8e8)


def test_what_is_no_law_is_refused() -> None:
    with pytest.raises(UsageError, match="3 sizes, 2 given"):
        fit([Point(n, d, 1.0) for n in (1e5, 2e5) for d in BUDGETS])
    for wrong in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(UsageError, match="not above zero"):
            fit([*runs(0, 0.0), Point(1e5, 1e5, wrong, "broken")])


def test_parameters_of_blocks_leave_the_tables_out() -> None:
    for tied in (True, False):
        small, large = (
            resolve(Architecture(size="2m", width=128, layers=2, tie_embeddings=tied), v) for v in (500, 900)
        )
        assert block_parameters(small) == block_parameters(large)
        tables = 1 if tied else 2
        assert count_parameters(large) - count_parameters(small) == tables * 400 * 128


def finished(artifact: Artifact, name: str, **changes: object) -> Artifact:
    """The artifact as the store would give it."""
    config = ModelConfig.model_validate({"make": "model", **base_config(**changes)}).model_dump(mode="json")
    record = {**artifact.record, "name": name, "config": config, "parents": {"tokenizer": {"content": "one"}}}
    return Artifact(artifact.path, record)


def test_runs_of_the_store_become_points_or_are_refused(world: dict[str, Artifact], tmp_path: Path) -> None:
    first = finished(train_base(tmp_path / "a", world, budget={"steps": 4}), "first", budget={"steps": 4})
    point = read_finished(first).point
    training = read_json(first.path / "training.json")
    assert point.positions == training["positions"] and point.loss == training["validation"][-1]["bits_per_byte"]
    assert point.name == "model/first@v1"
    assert point.parameters == count_parameters(read_finished(first).shape) - world_vocabulary(first) * 32
    assert len(read_all([first, first])) == 2
    flat = {"budget": {"steps": 4}, "schedule": {"shape": "constant"}}
    with pytest.raises(UsageError, match="high learning rate"):
        read_finished(finished(first, "flat", **flat))
    other = finished(first, "other", budget={"steps": 4}, validation={"times": 3, "tokens": 2048})
    with pytest.raises(UsageError, match=r"first@v1 and model/other@v1 differ in validation\.tokens"):
        read_all([first, other])
    with pytest.raises(UsageError, match="is no model"):
        read_finished(world["articles"])


def world_vocabulary(model: Artifact) -> int:
    return int(read_finished(model).shape["vocab_size"])
