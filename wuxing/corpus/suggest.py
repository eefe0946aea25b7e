"""A piece of a recipe for data that were looked at: what was found, and a place for what a person must still say."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from wuxing.source.config import SourceConfig

MAIN_LANGUAGE = 0.9
"""Share of records from which a corpus is said to be of a language."""
CODES = 3
"""Codes of languages have two or three letters; scripts are no languages."""


def suggest(
    source: SourceConfig,
    reading: Mapping[str, str],
    records: Mapping[str, int],
    languages: Mapping[str, int],
    private: Mapping[str, int],
) -> str:
    """The keys of a corpus step as YAML; pasted under a step with `make: corpus` they make a corpus."""
    written = source.model_dump(mode="json", exclude_defaults=True)
    lines = ["sources:"]
    for place, (name, value) in enumerate(written.items()):
        lines.append(f"  {'- ' if place == 0 else '  '}{name}: {_flow(value)}")
    if source.license == "unknown":
        lines.append("    license: unknown   # the licence of the data (an SPDX name), if you know it")
    if reading and source.fields is None and not {"image", "audio"} & set(reading):
        # Written out they would be asked of every row; recognised, an empty one is left out.
        lines.append(f"    # read as: {_flow(dict(reading))}; write fields: to read it otherwise")
    lines += ["clean:", *(f"  - {step}" for step in _steps(records, languages, private))]
    if records.get("documents"):
        lines.append("duplicates: {near_jaccard: 0.7}")
    return "\n".join([*lines, "split: {validation: 0.05, test: 0.05}", ""])


def _steps(records: Mapping[str, int], languages: Mapping[str, int], private: Mapping[str, int]) -> list[str]:
    steps = []
    texts = any(records.get(kind) for kind in ("documents", "dialogues", "preferences", "judged dialogues"))
    if texts:
        steps += ["repair", "normalise"]
    if records.get("documents"):
        total = sum(languages.values())
        main = [code for code, count in languages.items() if len(code) <= CODES and count >= 0.05 * total]
        if main and sum(languages[code] for code in main) >= MAIN_LANGUAGE * total:
            shares = ", ".join(f"{code} {languages[code] / total:.0%}" for code in main)
            steps.append(f"language: {{keep: [{', '.join(main)}]}}   # found: {shares}")
        steps += ["quality", "repetition"]
    if texts:
        steps.append("privacy" + (f"   # found: {', '.join(private)}" if private else ""))
    steps += ["image"] if records.get("pictures") else []
    steps += ["audio"] if records.get("sounds") else []
    return steps or ["normalise"]


def _flow(value: Any) -> str:
    """A value in YAML's flow style: JSON is YAML, and quotes whatever YAML would misread."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name}: {_flow(item)}" for name, item in value.items()) + "}"
    return json.dumps(value, ensure_ascii=False)
