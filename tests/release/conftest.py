"""A small trained-looking model with its evaluation, to release."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from small_release import signed, trained_network

from wuxing.core.artifact import Artifact
from wuxing.core.file import write_json
from wuxing.model.files import save_network
from wuxing.release.prompt import TEXTS
from wuxing.text.tokenizer import Tokenizer
from wuxing.text.train import train_tokenizer


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    """Merges of several scripts, so that every split rule matters."""
    return train_tokenizer([*TEXTS * 3, "the cat sat on the mat and the dog ate 12 + 34 = 46 apples " * 20], 700)


@pytest.fixture
def make_parents(tmp_path: Path, tokenizer: Tokenizer) -> Callable[..., dict[str, Artifact]]:
    """`make_parents(gain=0.3)`: a model `solver`, and an evaluation in which it beats `base` by that."""

    def make(gain: float = 0.3, half: float = 0.1, **settings: Any) -> dict[str, Artifact]:
        home = tmp_path / "home"
        corpus = home / "corpus" / "articles" / "v1"
        write_json(corpus / "card.json", {"sources": [{"name": "wiki", "license": "cc-by-sa-4.0"}]})
        signed("corpus", "articles", corpus)
        write_json(home / "task" / "sums" / "v1" / "task.json", {})
        signed("task", "sums", home / "task" / "sums" / "v1")
        model = home / "model" / "solver" / "v1"
        save_network(trained_network(tokenizer, **settings), model)
        tokenizer.save(model)
        lineage = {"data.articles": "corpus/articles@v1", "data.sums": "task/sums@v1"}
        solver = signed("model", "solver", model, lineage)

        def figure(value: float) -> dict[str, float]:
            return {"value": value, "low": value - half, "high": value + half, "n": 100}

        scores = home / "evaluation" / "scores" / "v1"
        results = {
            "models": {
                "base": {"id": "model/base@v1", "metrics": {"accuracy/sums": figure(0.1)}},
                "solver": {"id": solver.id, "metrics": {"accuracy/sums": figure(0.1 + gain)}},
            },
            "comparisons": [
                {"metric": metric, "a": "base", "b": "solver", "difference": sign * gain, "p": 0.01, "n": 100}
                | {"low": sign * gain - half, "high": sign * gain + half}
                for metric, sign in (("accuracy/sums", 1), ("bits_per_byte/articles", -1))
            ],
        }
        write_json(scores / "results.json", results)
        reference = {name: {"model": name, "signals": {"mean_logprob": [-1.0]}} for name in ("base", "solver")}
        write_json(scores / "reference.json", reference)
        row = {"id": "1", "prompt": [{"role": "user", "content": "12 + 3 = ?"}], "reply": "15"}
        (scores / "samples").mkdir()
        (scores / "samples" / "solver--sums.jsonl").write_text(json.dumps(row) + "\n")
        return {"model": solver, "evaluation": signed("evaluation", "scores", scores)}

    return make
