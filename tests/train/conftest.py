"""One small world for all tests of training."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from small_run import build_world, train_base

from wuxing.compute.team import start_followers
from wuxing.core.artifact import Artifact
from wuxing.core.context import Context


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artifact]:
    return build_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="session")
def base(world: dict[str, Artifact], tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """A base model that was never stopped."""
    return train_base(tmp_path_factory.mktemp("models") / "base", world)


@pytest.fixture(scope="session")
def couple(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Context]:
    """Two processes that train one model after the other: starting them takes longer than a run of so small a model."""
    team = start_followers(2, ["-m", "wuxing.train.together"], timeout_seconds=60)
    try:
        yield Context(home=tmp_path_factory.mktemp("couple"), workers=2, team=team)
    finally:
        team.close()


@pytest.fixture(scope="session")
def pair(world: dict[str, Artifact], tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """A model of 60 steps that two processes trained and nothing disturbed."""
    home = tmp_path_factory.mktemp("pair")
    context = Context(home=home, workers=2, team=start_followers(2, ["-m", "wuxing.train.together"]))
    try:
        return train_base(home / "base", world, context, save_every_seconds=0.05, budget={"steps": 60})
    finally:
        context.team.close()
