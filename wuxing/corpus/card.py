"""The card of a corpus: what it is made of, under which licences, and what became of every row."""

from __future__ import annotations

from typing import Any

from wuxing.core.file import write_json, write_text
from wuxing.core.record import Fates
from wuxing.core.step import Draft
from wuxing.corpus.clean import StepCount
from wuxing.corpus.config import CorpusConfig
from wuxing.source.row import Origin


def write_card(draft: Draft, config: CorpusConfig, origins: list[Origin], fates: Fates, steps: list[StepCount]) -> None:
    """Write `card.json` and `card.md`."""
    sources = [
        {"name": source.label, "license": source.license, **origin.card}
        for source, origin in zip(config.sources, origins, strict=True)
    ]
    card = {
        "name": draft.name,
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
    write_text(draft.file("card.md"), _markdown(card))


def _markdown(card: dict[str, Any]) -> str:
    lines = [f"# Corpus {card['name']}", "", "## Sources", "", "| name | licence | from | files |", "|---|---|---|---|"]
    for source in card["sources"]:
        origin = source.get("package") or source.get("exchanges") or "files"
        digest = f" `{source['sha256'][:12]}`" if "sha256" in source else ""
        lines.append(f"| {source['name']} | {source['license']} | {origin}{digest} | {len(source.get('files', ()))} |")
    lines += ["", "## Sizes", "", "| split | records | characters | bytes |", "|---|--:|--:|--:|"]
    for split, size in card["sizes"].items():
        lines.append(f"| {split} | {size['records']:,} | {size['characters']:,} | {size['bytes']:,} |")
    lines += ["", f"## Fates of {card['fates']['total']:,} rows", "", "| fate | rows |", "|---|--:|"]
    lines += [f"| {fate} | {count:,} |" for fate, count in card["fates"]["counts"].items()]
    lines += ["", "## Cleaning", "", "| step | reached | changed | dropped | found |", "|---|--:|--:|---|---|"]
    for step in card["cleaning"]:
        dropped, found = (_listed(step[column]) for column in ("dropped", "found"))
        lines.append(f"| {step['step']} | {step['records']:,} | {step['changed']:,} | {dropped} | {found} |")
    languages = _listed(card["languages"])
    return "\n".join([*lines, "", "## Languages", "", languages or "none", ""])


def _listed(counts: dict[str, int]) -> str:
    top = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:12]
    return ", ".join(f"{name} {count:,}" for name, count in top)
