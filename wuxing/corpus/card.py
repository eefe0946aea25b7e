"""The card of a corpus: what it is made of, under which licences, what became of every row, what it is for.

`card.md` is a dataset card as the Hugging Face hub reads it: its head is YAML with licence, languages, size and splits;
its sections follow Gebru et al., Datasheets for Datasets (2021), as far as records can answer.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from wuxing.core.file import write_json, write_text
from wuxing.core.record import Fates
from wuxing.core.step import Draft
from wuxing.corpus.clean import StepCount
from wuxing.corpus.config import CorpusConfig
from wuxing.page.text import flat, visible
from wuxing.source.row import Origin

# fmt: off
HUB_LICENSES = (
    "apache-2.0", "mit", "bsd", "bsd-2-clause", "bsd-3-clause", "cc", "cc0-1.0", "cc-by-2.0", "cc-by-3.0",
    "cc-by-4.0", "cc-by-sa-3.0", "cc-by-sa-4.0", "cc-by-nc-2.0", "cc-by-nc-3.0", "cc-by-nc-4.0",
    "cc-by-nc-sa-4.0", "cc-by-nd-4.0", "cc-by-nc-nd-4.0", "gpl", "gpl-2.0", "gpl-3.0", "lgpl-3.0", "agpl-3.0",
    "mpl-2.0", "odbl", "pddl", "odc-by", "cdla-permissive-2.0", "isc", "unlicense", "wtfpl", "zlib", "ofl-1.1",
)
# fmt: on
"""Licences that the hub knows by these names; others are `other` with a name."""
SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
LARGER_SIZES = ((10_000_000, "1M<n<10M"), (100_000_000, "10M<n<100M"), (1_000_000_000, "100M<n<1B"))
LANGUAGE_SHARE = 0.01
"""Languages of fewer records are not named in the card's head."""


def write_card(draft: Draft, config: CorpusConfig, origins: list[Origin], fates: Fates, steps: list[StepCount]) -> None:
    """Write `card.json` and `card.md`."""
    sources = [
        {"name": source.label, "license": source.license, **origin.card}
        for source, origin in zip(config.sources, origins, strict=True)
    ]
    card = {
        "name": draft.name,
        "card": config.card.model_dump(mode="json"),
        "sources": sources,
        "licenses": sorted({source.license for source in config.sources}),
        "sizes": draft.evidence.value("sizes"),
        "languages": draft.evidence.value("languages"),
        "fates": fates.to_json(),
        "cleaning": [step.to_json() for step in steps],
        "duplicates": config.duplicates.model_dump(mode="json"),
        "split": config.split.model_dump(mode="json"),
    }
    write_json(draft.file("card.json"), card)
    write_text(draft.file("card.md"), head_of(card) + _markdown(card))


def head_of(card: dict[str, Any]) -> str:
    """The YAML that the hub reads.  Values are JSON strings, which YAML reads as strings whatever they hold."""
    names = sorted({name.lower() for name in card["licenses"]})
    licenses = sorted({name if name in HUB_LICENSES else "other" for name in names})
    total = sum(card["languages"].values()) or 1
    languages = [
        code
        for code, count in sorted(card["languages"].items(), key=lambda item: (-item[1], item[0]))
        if re.fullmatch(r"[a-z]{2,3}", code) and count >= LANGUAGE_SHARE * total
    ]
    records = sum(size["records"] for size in card["sizes"].values())
    size = next((name for bound, name in (*SIZES, *LARGER_SIZES) if records < bound), "n>1B")
    lines = ["---", f"pretty_name: {_quoted(card['name'])}", "license:", *(f"- {name}" for name in licenses)]
    if "other" in licenses:
        others = ", ".join(sorted(name for name in card["licenses"] if name.lower() not in HUB_LICENSES))
        lines.append(f"license_name: {_quoted(others)}")
    if languages:
        lines += ["language:", *(f"- {_quoted(code)}" for code in languages)]  # "no" would be a truth value
    lines += [
        "size_categories:",
        f"- {size}",
        "tags:",
        "- wuxing",
        "configs:",
        "- config_name: default",
        "  data_files:",
    ]
    for split, counts in card["sizes"].items():
        if counts["records"]:
            lines += [f"  - split: {split}", f"    path: {split}.parquet"]
    return "\n".join([*lines, "---", "", ""])


def _quoted(text: str) -> str:
    return json.dumps(visible(text), ensure_ascii=False)


def _markdown(card: dict[str, Any]) -> str:
    given = card["card"]
    parts = [f"# Corpus {_cell(card['name'])}"]
    for heading, key in (("About", "about"), ("Uses", "uses"), ("Limits", "limits")):
        parts.append(f"## {heading}\n\n{_text(given[key]) if given[key] else '*Not stated.*'}")
    parts += [_sources(card), _sizes(card), _fates(card), _cleaning(card), _personal(card)]
    parts.append(f"## Languages\n\n{_listed(card['languages']) or 'none'}")
    for heading, key in (("Contact", "contact"), ("Citation", "citation")):
        if given[key]:
            parts.append(f"## {heading}\n\n{_text(given[key])}")
    return "\n\n".join(parts) + "\n"


def _sources(card: dict[str, Any]) -> str:
    rows = []
    for source in card["sources"]:
        package = source.get("package")
        origin = package if isinstance(package, str) else source.get("exchanges") or source.get("url") or "files"
        digest = f" `{source['sha256'][:12]}`" if "sha256" in source else ""
        rows.append(
            (source["name"], source["license"], f"{_cell(str(origin))}{digest}", str(len(source.get("files", ()))))
        )
    return "## Sources\n\n" + _table(("name", "licence", "from", "files"), rows, right=1)


def _sizes(card: dict[str, Any]) -> str:
    rows = [
        (split, *(f"{size[key]:,}" for key in ("records", "characters", "bytes")))
        for split, size in card["sizes"].items()
    ]
    return "## Sizes\n\n" + _table(("split", "records", "characters", "bytes"), rows, right=3)


def _fates(card: dict[str, Any]) -> str:
    rows = [(fate, f"{count:,}") for fate, count in card["fates"]["counts"].items()]
    return f"## Fates of {card['fates']['total']:,} rows\n\n" + _table(("fate", "rows"), rows, right=1)


def _cleaning(card: dict[str, Any]) -> str:
    rows = []
    for step in card["cleaning"]:
        dropped, found = (_listed(step[column]) for column in ("dropped", "found"))
        rows.append((step["step"], f"{step['records']:,}", f"{step['changed']:,}", dropped, found))
    split = card["split"]
    held = f"Held out by a hash of the content: validation {split['validation']:.1%}, test {split['test']:.1%}."
    if not rows:
        return f"## Cleaning\n\nNo step. {held}"
    table = _table(("step", "reached", "changed", "dropped", "found"), rows)
    return f"## Cleaning\n\n{table}\n\n{held}"


def _personal(card: dict[str, Any]) -> str:
    steps = [step for step in card["cleaning"] if step["step"] == "privacy"]
    if not steps:
        return "## Personal data\n\nNo step searched for private data."
    found = _listed(steps[0]["found"])
    return "## Personal data\n\n" + (f"Replaced by their kind: {found}." if found else "Searched for; none was found.")


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]], right: int = 0) -> str:
    """A Markdown table whose last `right` columns hold numbers."""
    marks = ["---"] * (len(columns) - right) + ["--:"] * right
    lines = [f"| {' | '.join(columns)} |", f"|{'|'.join(marks)}|"]
    return "\n".join([*lines, *(f"| {' | '.join(_cell(cell) for cell in row)} |" for row in rows)])


def _cell(text: str) -> str:
    """Text in which Markdown sees neither the end of a cell nor markup of its own."""
    return re.sub(r"([\\|<>\[\]])", r"\\\1", flat(visible(text)))


def _text(text: str) -> str:
    """A person's own words: Markdown, but no head of the card."""
    return re.sub(r"^---", r"\\---", visible(text).strip(), flags=re.MULTILINE)


def _listed(counts: dict[str, int]) -> str:
    top = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:12]
    return ", ".join(f"{name} {count:,}" for name, count in top)
