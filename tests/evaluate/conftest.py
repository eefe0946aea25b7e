"""Fixtures of the small world."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from small_world import ARITHMETIC, Shelf, stories, trained

from wuxing.core.artifact import Artifact
from wuxing.core.record import Record


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path / "home")


@pytest.fixture(scope="session")
def world() -> dict[str, list[Record]]:
    records = stories(460, "world")
    return {"train": records[:400], "validation": records[400:420], "test": records[420:]}


@pytest.fixture(scope="session")
def tokenizer(world: dict[str, list[Record]]) -> Any:
    from wuxing.text.train import train_tokenizer

    texts = [record.text or "" for record in world["train"]] + ["What is 7 + 5? The answer is 12."] * 20
    return train_tokenizer(texts, 400)


@pytest.fixture(scope="session")
def networks(world: dict[str, list[Record]], tokenizer: Any) -> dict[str, Any]:
    """Two trained for 12 and 60 steps: clearly apart, and both better than nothing."""
    import torch

    torch.set_num_threads(1)
    return {name: trained(tokenizer, world["train"], steps) for name, steps in (("early", 12), ("late", 60))}


@pytest.fixture
def lived(
    shelf: Shelf, world: dict[str, list[Record]], tokenizer: Any, networks: dict[str, Any]
) -> dict[str, Artifact]:
    """A corpus, a task, a tokenizer's corpus and a chain of two models."""
    from wuxing.task.task_kind import TaskKind

    articles = shelf.corpus("articles", world)
    arithmetic = shelf.make(TaskKind(), "arithmetic", ARITHMETIC)
    early = shelf.model("early", networks["early"], tokenizer, {"data.articles": articles})
    late = shelf.model("late", networks["late"], tokenizer, {"start_from": early, "data.arithmetic": arithmetic})
    return {"articles": articles, "arithmetic": arithmetic, "early": early, "late": late}
