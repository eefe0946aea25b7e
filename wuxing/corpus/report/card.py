"""The data card as a part of the report: who may use the corpus for what, and what is known of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from wuxing.corpus.report.facts import Facts
from wuxing.corpus.report.words import CorpusWords
from wuxing.page.block import Block, Code, Figure, Inline, Paragraph, Part, Table, compose
from wuxing.page.number import format_percent

GIVEN = ("about", "uses", "limits", "contact", "citation")


def card_parts(facts: Facts, words: CorpusWords) -> list[Part]:
    """What the recipe says of the corpus, and what its records say."""
    given = facts.card.get("card") or {}
    rows: list[list[list[Inline]]] = []

    def say(key: str, said: Sequence[Inline]) -> None:
        rows.append([[words(f"card.{key}")], list(said)])

    for key in GIVEN[:3]:
        say(key, [given[key]] if given.get(key) else [words("card.not_given")])
    say("licenses", [words("comma").join(facts.card.get("licenses", [])) or "–"])
    say("languages", _languages(facts, words))
    splits: list[Inline] = []
    for split in facts.splits:
        splits += [words("comma") if splits else "", Code(f"{split}.parquet")]
    columns: list[Inline] = [Code("id, source, text, messages, image, audio, label, chosen, rejected, liked, meta")]
    say("structure", compose(words("card.structure_text"), {"splits": splits, "columns": columns}))
    say("processing", _processing(facts, words))
    kinds = sorted(facts.at("privacy", "found"))
    searched = any(step["step"] == "privacy" for step in facts.at("steps"))
    said = words("comma").join(map(words.found, kinds)) or words("card.no_steps")
    personal = compose(words("card.redacted"), {"kinds": said}) if searched else [words("card.not_redacted")]
    say("personal", personal)
    for key in GIVEN[3:]:
        if given.get(key):
            say(key, [given[key]])
    table = Table(["", ""], rows)
    blocks: list[Block] = [Paragraph([words("card.text")]), table]
    return [Part(None, blocks)]


def _languages(facts: Facts, words: CorpusWords) -> list[Inline]:
    totals: dict[str, int] = {}
    for split in facts.splits:
        for name, count in facts.at("splits", split, "languages").items():
            totals[name] = totals.get(name, 0) + count
    ordered = sorted(totals, key=lambda name: (-totals[name], name))[:8]
    return [words("comma").join(map(words.language_name, ordered)) or "–"]


def _processing(facts: Facts, words: CorpusWords) -> list[Inline]:
    split: dict[str, Any] = facts.card.get("split") or {}
    steps = words("comma").join(words.step(step["step"]) for step in facts.at("steps"))
    shares = {
        name: Figure(format_percent(split.get(name, 0)), f"{facts.id} card.json#/split/{name}")
        for name in ("validation", "test")
    }
    return compose(words("card.processing_text"), {"steps": steps or words("card.no_steps"), **shares})
