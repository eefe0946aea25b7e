"""A look at data before a recipe is written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from wuxing.core.context import Context
from wuxing.core.error import UsageError
from wuxing.corpus.inspect import inspect
from wuxing.source.config import SourceConfig


def offline(tmp_path: Path) -> Context:
    """A context whose language model is no model: scripts are counted in its place."""
    return Context(home=tmp_path / "home")


@pytest.mark.network
def test_what_it_finds_in_real_dialogues(data_directory: Path, tmp_path: Path) -> None:
    found = inspect(data_directory / "chat" / "alpaca_zh_demo.jsonl.gz", Context(home=tmp_path))
    assert found.formats == {"jsonl": 1}
    assert (found.rows, found.whole) == (1000, True)
    assert found.reading == {"prompt": "{instruction}\n\n{input}", "reply": "output"}
    assert found.columns["instruction"] == {"present": 1.0, "missing": 0, "types": {"str": 1000}}
    assert found.records == {"dialogues": 1000}
    assert found.languages["zh"] > 900
    assert found.duplicates["equal"] == pytest.approx(0.008)
    assert found.characters["min"] < found.characters["median"] < found.characters["max"]
    json.dumps(found.to_json(), allow_nan=False)


def test_private_data_are_counted_and_never_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    for name in ("PIP_FIND_LINKS", "PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    lines = [{"text": f"Write to someone{n}@example.org about the house on the hill."} for n in range(5)]
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"text": \n')
    found = inspect(tmp_path / "p.jsonl", offline(tmp_path))
    assert found.private == {"mail": 5}
    assert found.records == {"documents": 5, "not read: broken_json": 1}
    assert found.would_drop == {"too_short": 5}
    assert "@" not in json.dumps(found.samples)
    assert found.languages == {"script:latin": 5}
    assert "scripts in place of languages" in found.notes[0]


def test_it_stops_at_a_bound_and_says_so(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("one\ntwo\nthree\n")
    found = inspect(SourceConfig(files=str(tmp_path / "t.txt"), per="line"), offline(tmp_path), max_rows=2)
    assert (found.rows, found.whole) == (2, False)


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="There is no file"):
        inspect(tmp_path / "nothing")
