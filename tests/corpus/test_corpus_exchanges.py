"""The loop closes: what people judged in serving becomes a corpus that knows where it came from."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from wuxing.core.artifact import Artifact
from wuxing.core.context import Context
from wuxing.core.error import WuxingError
from wuxing.core.exchange import Exchange, ExchangeLog, Judgement, now
from wuxing.core.splits import SPLITS, read_records
from wuxing.corpus.config import CorpusConfig
from wuxing.corpus.kind import CorpusKind


def served(home: Path) -> ExchangeLog:
    """Twelve answers: praised, blamed, blamed at second thought, broken off, unjudged, and one plain text."""
    log = ExchangeLog(home, "first-model")
    for number in range(12):
        asked = [
            {"role": "prompt" if number == 11 else "user", "content": f"What is {number} + 1? Mail x{number}@y.org"}
        ]
        finish = "cancelled" if number == 9 else "stop"
        log.write(
            Exchange(
                *(f"e{number}", now(), "release/first-model@v2", "c0ffee", "t", asked, f" It is {number + 1}."),
                *(finish, {"temperature": 1.0}, {"reply_tokens": 5.0}),
            )
        )
        if number != 10:
            log.judge(Judgement(f"e{number}", "down" if number in (6, 7) else "up", now()))
    log.judge(Judgement("e8", "down", now()))
    return log


CONFIG = {
    "sources": [{"exchanges": "first-model", "judged": "up"}],
    "clean": ["repair", "normalise", "privacy"],
    "split": {"validation": 0.0, "test": 0.0},
}


def test_praised_answers_become_dialogues_with_their_lineage(
    make_step: Callable[..., Artifact], tmp_path: Path
) -> None:
    served(tmp_path)
    made = make_step(CorpusKind(), CONFIG)
    assert made.record["failures"] == []
    records = [record for split in SPLITS for record in read_records(made.path, split)]
    assert [record.id for record in records] == [f"first-model/e{n}" for n in (0, 1, 2, 3, 4, 5, 11)]
    assert records[2].messages == [
        {"role": "user", "content": "What is 2 + 1? Mail <mail>"},
        {"role": "assistant", "content": "It is 3."},
    ]
    assert records[-1].text == "What is 11 + 1? Mail <mail> It is 12."
    lineage = {name: records[0].meta[name] for name in ("exchange", "release", "model", "thumb")}
    assert lineage == {"exchange": "e0", "release": "release/first-model@v2", "model": "c0ffee", "thumb": "up"}
    counts = json.loads((made.path / "fates.json").read_text())["counts"]
    expected = {"kept": 7, "filtered:judged_down": 3, "filtered:cancelled": 1, "filtered:not_judged": 1}
    assert counts == expected


def test_a_new_judgement_is_a_new_content(tmp_path: Path) -> None:
    log, context = served(tmp_path), Context(home=tmp_path)
    config = CorpusConfig.model_validate({"make": "corpus", **CONFIG})
    before = CorpusKind().inputs(config, context)
    assert CorpusKind().inputs(config, context) == before
    log.judge(Judgement("e6", "up", now()))
    assert CorpusKind().inputs(config, context) != before


def test_a_release_that_nobody_asked_is_named(make_step: Callable[..., Artifact]) -> None:
    with pytest.raises(WuxingError, match="first-model has answered nothing yet"):
        make_step(CorpusKind(), CONFIG)
