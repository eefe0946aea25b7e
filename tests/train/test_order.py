"""Phases and curricula in a real run: what is seen when, and that a recipe's contradictions are named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from small_run import base_config, make_in, train_base

from wuxing.core.artifact import Artifact
from wuxing.core.context import Context
from wuxing.core.file import read_json, read_lines
from wuxing.data.packing import pack
from wuxing.data.tokens import open_tokens
from wuxing.data.tokens_kind import TokensKind
from wuxing.train.config import ModelConfig
from wuxing.train.model_kind import ModelKind


def test_a_phase_begins_where_it_was_asked_for(world: dict[str, Artifact], tmp_path: Path) -> None:
    later = [{"after": 0.5, "data": {"dialogues": 1.0}}]
    made = train_base(tmp_path / "model", world, data={"articles": 1.0, "dialogues": 0.0}, phases=later)
    assert made.record["failures"] == []
    lines = [line for line in read_lines(made.path / "log.jsonl") if "loss" in line]
    share = [line["taught"] / line["tokens"] for line in lines]
    assert min(share[:12]) > 0.9 > max(share[12:])
    plain = train_base(tmp_path / "plain", world, data={"articles": 1.0, "dialogues": 0.001})
    assert read_json(made.file("training.json"))["plan"] != read_json(plain.file("training.json"))["plan"]
    checks = {check["name"]: check["value"] for check in read_json(made.path / "evidence.json")}
    assert 0 <= checks["loader_wait_share"] < 0.5
    for name, fates in checks["packing_fates"].items():
        assert sum(fates.values()) == read_json(world[name].file("tokens.json"))["splits"]["train"]["documents"]


def test_a_curriculum_begins_with_the_shortest(world: dict[str, Artifact], tmp_path: Path) -> None:
    changes: dict[str, Any] = {"data": {"articles": 1.0}, "whole_documents": True, "budget": {"steps": 4}}
    made = train_base(tmp_path / "model", world, curriculum={"by": "length", "buckets": 4}, **changes)
    assert made.record["failures"] == []
    from wuxing.train.assemble import assemble

    config = ModelConfig.model_validate(base_config(curriculum={"buckets": 4}, make="model", **changes))
    import torch

    parents = {"tokenizer": world["vocabulary"], "data.articles": world["articles"]}
    source: Any = assemble(config, parents, 7, torch.device("cpu"), torch.float32, None).source
    scores = pack(open_tokens(world["articles"].path, "train"), 64, True).scores("length")
    first = [scores[source.plan[i].row] for i in range(len(scores))]
    quarter = len(scores) // 4
    assert max(first[: quarter - 1]) <= min(first[-quarter + 1 :])
    assert source.digest == read_json(made.file("training.json"))["plan"]


def test_a_curriculum_by_a_number_of_the_meta_asks_the_tokens_for_it() -> None:
    config = ModelConfig.model_validate(base_config(make="model", curriculum={"by": "quality"}))
    steps = ModelKind().expand("m", config)
    assert steps["articles.vocabulary.quality"]["scores"] == ["quality"]
    assert ModelKind().parents(config)["data.articles"].reference == "articles.vocabulary.quality"


def test_without_the_document_mask_a_run_is_another_one(world: dict[str, Artifact], tmp_path: Path) -> None:
    made = train_base(tmp_path / "open", world, document_mask=False, budget={"steps": 6})
    masked = train_base(tmp_path / "masked", world, budget={"steps": 6})
    plans = [read_json(one.file("training.json"))["plan"] for one in (made, masked)]
    assert made.record["failures"] == [] and plans[0] != plans[1]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"phases": [{"after": 0.5, "data": {"books": 1.0}}]}, "phases name books"),
        ({"phases": [{"after": 0.5, "data": {"articles": 0.0}}]}, "must be above 0"),
        ({"data": {"articles": 0.0, "dialogues": 1.0}}, "share of articles in data is 0"),
        (
            {"phases": [{"after": 0.5, "data": {"articles": 1}}, {"after": 0.2, "data": {"articles": 1}}]},
            "sort them by after",
        ),
        ({"curriculum": {"buckets": 1}}, "greater than or equal to 2"),
    ],
)
def test_contradictions_are_named(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        ModelConfig.model_validate(base_config(make="model", **changes))


def test_numbers_of_the_meta_reach_the_rows(world: dict[str, Artifact], tmp_path: Path) -> None:
    from small_run import signed

    from wuxing.core.record import Record
    from wuxing.core.splits import write_records

    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for split in ("train", "validation", "test"):
        records = [Record(f"{split}-{n}", "s", text="word " * 5, meta={"quality": n / 10}) for n in range(10)]
        write_records(corpus, split, records)
    parents = {"tokenizer": world["vocabulary"], "data": signed(corpus, "corpus", "c")}
    config = {"tokenizer": "vocabulary", "data": "c", "scores": ["quality"]}
    made = make_in(tmp_path / "tokens", TokensKind(), config, parents, Context(home=tmp_path))
    data = open_tokens(made.path, "train")
    assert data.scores["quality"].tolist() == [n / 10 for n in range(10)]
