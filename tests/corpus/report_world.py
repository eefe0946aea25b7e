"""One small corpus with everything that a report or a browser must show: hostile text, copies, private data."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

from wuxing.core.artifact import Artifact
from wuxing.corpus.kind import CorpusKind

Maker = Callable[..., Artifact]
EVIL = "</script><script>window.hurt=1</script> \u202e turned \x00"
CLEAN = ["normalise", {"quality": {"min_words": 12, "min_stop_words": 0}}, "repetition", "privacy"]


def sentence(number: int) -> str:
    state = Random(number)
    picked = ["".join(state.choice("bcdfglmnprst") + state.choice("aeiou") for _ in range(3)) for _ in range(24)]
    return f"Record {number} tells of the {' and the '.join(picked)} that nobody had seen before day {number}."


def rows() -> list[str]:
    """Kept rows, short ones, copies, near copies, broken lines, private data and hostile text."""
    lines = [json.dumps({"text": sentence(n), "label": f"kind-{n % 3}"}) for n in range(120)]
    lines += [json.dumps({"text": f"Short {n}.", "label": "kind-0"}) for n in range(30)]
    lines += lines[:6]
    lines += ['{"text": "cut', json.dumps({"title": "no text"})]
    lines.append(json.dumps({"text": sentence(500) + " Write to someone@example.org, please.", "label": "kind-1"}))
    lines.append(json.dumps({"text": sentence(501) + EVIL + " Then it ended.", "label": EVIL}))
    return lines


def small_corpus(make_step: Maker, tmp_path: Path) -> Artifact:
    """The corpus `rows` of them."""
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(rows()) + "\n")
    source = {"files": str(path), "fields": {"text": "text", "label": "label"}, "license": "MIT"}
    split = {"validation": 0.1, "test": 0.1}
    config: dict[str, Any] = {"sources": [source], "clean": CLEAN, "split": split, "duplicates": {"near_jaccard": 0.7}}
    return make_step(CorpusKind(), config, name="rows")
