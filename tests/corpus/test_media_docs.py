"""What the pages on media and on sources elsewhere show can be written in a recipe; the recipes load."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from wuxing.commands.kinds import all_kinds
from wuxing.corpus.config import CorpusConfig

ROOT = Path(__file__).parents[2]
SPLIT = {"validation": 0.1, "test": 0.1}


def snippets(name: str) -> list[Any]:
    text = (ROOT / "docs" / name).read_text(encoding="utf-8")
    return [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)]


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("page", ["media", "remote"])
def test_what_pages_show_is_valid(language: str, page: str) -> None:
    found = snippets(f"{language}/{page}.md")
    assert len(found) == (2 if page == "media" else 4)
    for snippet in found:
        whole = (
            snippet
            if isinstance(snippet, dict)
            else {"sources": [{"name": str(n), **s} for n, s in enumerate(snippet)]}
        )
        CorpusConfig.model_validate({"make": "corpus", "sources": [{"files": "x"}], "split": SPLIT, **whole})


def test_both_languages_show_the_same() -> None:
    for page in ("media", "remote"):
        assert snippets(f"en/{page}.md") == snippets(f"zh/{page}.md")


@pytest.mark.parametrize("name", ["images", "audio"])
def test_recipes_load(name: str) -> None:
    recipe = yaml.safe_load((ROOT / "recipes" / f"{name}.yaml").read_text(encoding="utf-8"))
    for step in recipe["steps"].values():
        all_kinds()[step["make"]]().Config.model_validate(step)
