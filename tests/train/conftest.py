"""One small world for all tests of training."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from small_run import build_world, train_base

from wuxing.core.artifact import Artifact


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
