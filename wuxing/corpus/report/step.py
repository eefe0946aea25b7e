"""What each cleaning step did: settings, histograms with their thresholds drawn in, what it dropped and changed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from wuxing.corpus.report.facts import CHANGED_SHOWN, DROPPED_SHOWN, Facts, Row
from wuxing.corpus.report.words import CorpusWords
from wuxing.page.block import (
    Block,
    Change,
    Changes,
    Code,
    Fold,
    Gallery,
    Inline,
    Item,
    Items,
    Paragraph,
    Part,
    Piece,
    Plot,
    Table,
)
from wuxing.page.difference import differences
from wuxing.page.flow import draw_wave
from wuxing.page.number import format_figure, format_share
from wuxing.page.plot import Histogram, draw_histograms
from wuxing.page.text import cut

SHOWN_CHARACTERS = 600
DIFF_CHARACTERS = 500
DIFF_CONTEXT = 140
FATES_SHOWN = 60
OPENED = 3
_KIND = re.compile(r"(<[a-z_]{2,20}>)")


def step_parts(facts: Facts, words: CorpusWords) -> list[Part]:
    """A table of all steps, then each with its settings and pictures."""
    steps = facts.at("steps")
    if not steps:
        return [Part(None, [Paragraph([words("steps.none")])])]
    rows: list[list[list[Inline]]] = []
    for number, step in enumerate(steps):
        dropped = sum(step["dropped"].values())
        share = format_share(dropped, step["records"])
        rows.append(
            [
                [str(number + 1)],
                [words.step(step["step"])],
                [facts.count("steps", number, "records")],
                [facts.count("steps", number, "changed")],
                [facts.measured(f"{dropped:,}", dropped, "steps", number, "dropped")],
                [facts.measured(share, dropped / (step["records"] or 1), "steps", number, "dropped")],
                _listed(facts, words, ("steps", number, "found")),
            ]
        )
    columns = ("number", "step", "reached", "changed", "dropped", "share", "found")
    parts = [Part(None, [Table([words(f"col.{name}") for name in columns], rows, (2, 3, 4, 5))])]
    for number, step in enumerate(steps):
        blocks = _step_blocks(facts, words, number, step)
        if blocks:
            parts.append(Part(f"{number + 1} · {words.step(step['step'])}", blocks))
    return parts


def _listed(facts: Facts, words: CorpusWords, path: tuple[str | int, ...]) -> list[Inline]:
    parts: list[Inline] = []
    for name in sorted(facts.at(*path), key=lambda name: (-facts.at(*path, name), name))[:8]:
        parts += [words("comma") if parts else "", words.found(name), " ", facts.count(*path, name)]
    return parts or ["–"]


def _step_blocks(facts: Facts, words: CorpusWords, number: int, step: Mapping[str, Any]) -> list[Block]:
    blocks: list[Block] = []
    settings: list[Inline] = []
    for name, value in step["parameters"].items():
        if value not in (None, {}, []):
            settings += [words("comma") if settings else "", Code(f"{name}: {words.value(value)}")]
    if settings:
        blocks.append(Paragraph([words("settings"), words.colon, *settings]))
    panels = [
        panel_of(words, name, measure, step["parameters"])
        for name, measure in step["measures"].items()
        if measure["count"] and measure["max"] > measure["min"]
    ]
    if panels:
        caption = words("plot.measures").replace("{step}", words.step(step["step"]))
        source = facts.place("steps", number, "measures")
        blocks.append(
            Plot(f"measures-{number}", caption, [source], draw_histograms(caption, panels, 3 if len(panels) > 4 else 2))
        )
    rows = facts.changed.get(f"{number}:{step['step']}", [])[:CHANGED_SHOWN]
    if rows:
        changes = [change_of(row) for row in rows]
        summary: list[Inline] = [words("changes"), " · ", facts.count("steps", number, "changed")]
        blocks.append(Fold(summary, [Changes(changes)], open=number < OPENED))
    return blocks


def panel_of(words: CorpusWords, name: str, measure: Mapping[str, Any], parameters: Mapping[str, Any]) -> Histogram:
    """The histogram of a measure; bounds are the settings `min_<measure>` and `max_<measure>`."""
    low, high = (parameters.get(f"{side}_{name}") for side in ("min", "max"))
    bounds = {side: value for side, value in (("min", low), ("max", high)) if isinstance(value, int | float)}
    return Histogram(
        title=words.measure(name),
        edges=measure["edges"],
        counts=measure["counts"],
        log=measure["scale"] == "log",
        marks=[(float(value), f"{side} {format_figure(value)}") for side, value in bounds.items()],
        cut_below=bounds.get("min"),
        cut_above=bounds.get("max"),
    )


# --------------------------------------------------------------------------------------------------------- drops
def drop_parts(facts: Facts, words: CorpusWords) -> list[Part]:
    """Each fate with some of its records, the largest first."""
    blocks: list[Block] = []
    lost = [fate for fate in facts.at("fates") if fate != "kept"]
    for place, fate in enumerate(lost[:FATES_SHOWN]):
        rows = facts.dropped.get(fate, [])
        summary: list[Inline] = [
            words.fate(fate),
            " · ",
            facts.count("fates", fate),
            " · ",
            facts.share(("fates", fate)),
        ]
        shown = dropped_blocks(rows, words) or [Paragraph([words("drops.none")])]
        blocks.append(Fold(summary, shown, open=place < OPENED))
    if not blocks:
        return []
    return [Part(None, [Paragraph([words("drops.text")]), *blocks])]


def dropped_blocks(rows: list[Row], words: CorpusWords) -> list[Block]:
    """Dropped records: pictures side by side, everything else one under the other."""
    pictures = [row for row in rows if row.get("picture")][: 4 * DROPPED_SHOWN]
    blocks: list[Block] = []
    if pictures:
        blocks.append(Gallery([Item(row["id"], [row["detail"] or ""], image=row["picture"].uri) for row in pictures]))
    others = [row for row in rows if not row.get("picture")][:DROPPED_SHOWN]
    if others:
        blocks.append(Items([dropped_item(row, words) for row in others]))
    return blocks


def dropped_item(row: Row, words: CorpusWords) -> Item:
    """One record that did not go on."""
    note: list[Inline] = [cut(row["detail"], 160)] if row.get("detail") else []
    sound = row.get("outline")
    if sound:
        return Item(row["id"], note, wave=draw_wave(row["id"], sound.peaks), audio=sound.uri)
    text = cut(row.get("text") or "", SHOWN_CHARACTERS)
    return Item(row["id"], note if text else [*note, " ", words("no_text")], text=text)


# ------------------------------------------------------------------------------------------------------- changes
def change_of(row: Row) -> Change:
    """A record before and after, with what differs marked."""
    before, after = row["before"] or "", row["after"] or ""
    if before == after:  # samples are redacted: what the privacy step did is to be seen by its marks only
        marked = _marked(cut(after, DIFF_CHARACTERS))
        return Change(row["id"], [], marked)
    pairs = enumerate(zip(before, after, strict=False))
    differ = next((place for place, (old, new) in pairs if old != new), min(len(before), len(after)))
    start = max(0, differ - DIFF_CONTEXT)
    dots = "…" if start else ""
    before, after = (dots + cut(text[start:], DIFF_CHARACTERS) for text in (before, after))
    return Change(row["id"], *differences(before, after))


def _marked(text: str) -> list[Piece]:
    """The text with the kinds that stand in the place of private data marked."""
    parts = _KIND.split(text)
    return [("added" if place % 2 else "same", part) for place, part in enumerate(parts) if part]
