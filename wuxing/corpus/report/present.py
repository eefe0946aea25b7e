"""From facts to the data report: which figures stand where, in which words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from wuxing.core.amount import bytes_text
from wuxing.core.splits import SPLITS
from wuxing.corpus.report.card import card_parts
from wuxing.corpus.report.content import contamination_parts, duplicates_parts, privacy_parts, sample_parts
from wuxing.corpus.report.facts import Facts
from wuxing.corpus.report.step import drop_parts, step_parts
from wuxing.corpus.report.warning import warnings_of
from wuxing.corpus.report.words import CorpusWords
from wuxing.page.block import (
    Block,
    Bullets,
    Card,
    Code,
    Figure,
    Inline,
    Paragraph,
    Part,
    Plot,
    Report,
    Section,
    Table,
    compose,
)
from wuxing.page.flow import Stage, draw_flow
from wuxing.page.number import format_count, format_figure, format_share
from wuxing.page.plot import Bar, Histogram, draw_bars, draw_histograms, draw_shares

LABELS_DRAWN = 24
LANGUAGES_DRAWN = 6
FATES_NAMED = 3


def present(facts: Facts, words: CorpusWords) -> Report:
    """The report of a corpus in one language."""
    title = compose(words("title"), {"name": facts.id.partition("/")[2]})
    other = "zh" if words.language == "en" else "en"
    sections = [
        _section(words, "summary", [Part(None, _summary(facts, words))]),
        _section(words, "origin", [Part(None, _origin(facts, words))]),
        _section(words, "fates", _fates(facts, words)),
        _section(words, "records", _records(facts, words)),
        _section(words, "steps", step_parts(facts, words)),
        _section(words, "drops", drop_parts(facts, words)),
        _section(words, "duplicates", duplicates_parts(facts, words)),
        _section(words, "contamination", contamination_parts(facts, words)),
        _section(words, "privacy", privacy_parts(facts, words)),
        _section(words, "samples", sample_parts(facts, words)),
        _section(words, "evidence", [Part(None, _evidence(facts, words))]),
        _section(words, "card", card_parts(facts, words)),
    ]
    return Report(
        title="".join(str(part) for part in title),
        subtitle=words("subtitle").replace("{id}", facts.id).replace("{digest}", facts.digest[:12]),
        language=words.language,
        cards=_cards(facts, words),
        sections=[section for section in sections if section.parts],
        sources=[facts.id],
        numbered=False,
        links=[(words("other_language"), "report.html" if other == "en" else f"report.{other}.html")],
    )


def _section(words: CorpusWords, key: str, parts: Sequence[Part]) -> Section:
    return Section(key, words(f"section.{key}"), [part for part in parts if part.blocks])


# ------------------------------------------------------------------------------------------------------- the top
def _cards(facts: Facts, words: CorpusWords) -> list[Card]:
    lost = [fate for fate in facts.at("fates") if fate != "kept"]
    cards = [
        Card(words("card.rows"), facts.count("rows"), compose(words("card.sources"), {"n": _sources(facts)})),
        Card(words("card.kept"), facts.count("kept"), compose(words("of_rows"), {"share": facts.share(("kept",))})),
    ]
    if lost:
        largest = max(lost, key=lambda fate: (facts.at("fates", fate), fate))
        figure = facts.count("fates", largest)
        cards.append(
            Card(words("card.largest_loss"), figure, [words.fate(largest), " · ", facts.share(("fates", largest))])
        )
    failed = [check for check in facts.checks if check.verdict == "failed"]
    judged = [check for check in facts.checks if check.verdict != "measured"]
    source = f"{facts.id} evidence.json"
    said = Figure(f"{len(judged) - len(failed)} / {len(judged)}", source)
    note = [words("card.all_passed")] if not failed else [Code(", ".join(check.name for check in failed[:3]))]
    cards.append(Card(words("card.evidence"), said, note))
    return cards


def _sources(facts: Facts) -> Figure:
    return Figure(format_count(len(facts.at("sources"))), facts.place("sources"))


def _summary(facts: Facts, words: CorpusWords) -> list[Block]:
    characters = sum(facts.at("splits", split, "characters") for split in facts.splits)
    size = sum(facts.at("splits", split, "bytes") for split in facts.splits)
    splits: list[Inline] = []
    for split in SPLITS:
        splits += [
            words("comma") if splits else "",
            words(f"split.{split}"),
            " ",
            facts.count("splits", split, "records"),
        ]
    said = compose(
        words("summary.media" if facts.is_media else "summary.text"),
        {
            "rows": facts.count("rows"),
            "kept": facts.count("kept"),
            "share": facts.share(("kept",)),
            "splits": splits,
            "characters": facts.measured(format_count(characters), characters, "splits"),
            "bytes": facts.measured(bytes_text(size), size, "splits"),
        },
    )
    found = warnings_of(facts, words)
    if not found:
        return [Paragraph(said), Paragraph([words("no_warnings")])]
    return [Paragraph(said), Bullets([warning.said for warning in found], [warning.grave for warning in found])]


def _origin(facts: Facts, words: CorpusWords) -> list[Block]:
    cards = {source.get("name"): source for source in facts.card.get("sources", [])}
    rows: list[list[list[Inline]]] = []
    for number, source in enumerate(facts.at("sources")):
        card = cards.get(source["name"], {})
        size: list[Inline] = [facts.measured(bytes_text(source["bytes"]), source["bytes"], "sources", number, "bytes")]
        rows.append(
            [
                [Code(source["name"])],
                [source["license"]],
                [words.origin(card)],
                [facts.count("sources", number, "rows")],
                [facts.count("sources", number, "kept")],
                [facts.share(("sources", number, "kept"), ("sources", number, "rows"))],
                size if source["bytes"] else ["–"],
                [Code(str(card["sha256"])[:16])] if card.get("sha256") else ["–"],
            ]
        )
    columns = ("source", "license", "from", "rows", "kept", "share", "bytes", "digest")
    return [Table([words(f"col.{name}") for name in columns], rows, numeric=(3, 4, 5, 6), sortable=len(rows) > 1)]


# --------------------------------------------------------------------------------------------------------- fates
def _fates(facts: Facts, words: CorpusWords) -> list[Part]:
    caption = words("plot.flow")
    ends = [(words(f"split.{split}"), facts.at("splits", split, "records")) for split in facts.splits]
    flow = Plot("flow", caption, [facts.place("fates")], draw_flow(caption, stages_of(facts, words), ends))
    rows: list[list[list[Inline]]] = []
    for fate in facts.fates:
        rows.append([[words.fate(fate)], [Code(fate)], [facts.count("fates", fate)], [facts.share(("fates", fate))]])
    table = Table([words(f"col.{name}") for name in ("fate", "name", "rows", "share")], rows, (2, 3), sortable=True)
    blocks: list[Block] = [Paragraph([words("fates.text")]), flow, table]
    if len(facts.at("sources")) > 1:
        blocks.append(_fates_by_source(facts, words))
    return [Part(None, blocks)]


def stages_of(facts: Facts, words: CorpusWords) -> list[Stage]:
    """What leaves where, in the order of the road: reading, fields, each step, duplicates."""
    left: dict[str, int] = dict(facts.at("fates"))
    kept, remaining = left.pop("kept", 0), facts.at("rows")
    stages = [Stage(words("stage.raw"), remaining)]

    def leave(label: str, lost: dict[str, int], always: bool = False) -> None:
        nonlocal remaining
        count = sum(lost.values())
        if count or always:
            named = sorted(lost.items(), key=lambda item: (-item[1], item[0]))[:FATES_NAMED]
            stages.append(Stage(label, remaining, count, words("comma").join(words.reason(f) for f, n in named if n)))
        remaining -= count

    leave(words("stage.unreadable"), {f: left.pop(f) for f in list(left) if f.startswith("unreadable")})
    dropped_by_steps: dict[str, int] = {}
    for step in facts.at("steps"):
        for reason, count in step["dropped"].items():
            dropped_by_steps[reason] = dropped_by_steps.get(reason, 0) + count
    before = {}
    for fate in list(left):
        kind, _, reason = fate.partition(":")
        if kind == "filtered":
            count = left.pop(fate)
            before[fate] = max(0, count - dropped_by_steps.get(reason, 0))
    leave(words("stage.fields"), {fate: count for fate, count in before.items() if count})
    for step in facts.at("steps"):
        leave(words.step(step["step"]), {f"filtered:{reason}": n for reason, n in step["dropped"].items()}, True)
    for fate in ("duplicate", "near_duplicate"):
        leave(words.fate(fate), {fate: left.pop(fate)} if fate in left else {})
    for fate in sorted(left):
        leave(words.fate(fate), {fate: left[fate]})
    stages.append(Stage(words("stage.kept"), kept))
    return stages


def _fates_by_source(facts: Facts, words: CorpusWords) -> Block:
    caption = words("plot.fates_by_source")
    named = facts.fates[:5]
    bars = []
    for source in facts.at("sources")[:40]:
        total = source["rows"] or 1
        parts = [(words.fate(fate), source["fates"].get(fate, 0) / total) for fate in named]
        rest = sum(count for fate, count in source["fates"].items() if fate not in named) / total
        bars.append((source["name"], [*parts, (words("fate.other"), rest)] if len(facts.at("fates")) > 5 else parts))
    return Plot("fates-by-source", caption, [facts.place("sources")], draw_shares(caption, bars, words("axis.rows")))


# ------------------------------------------------------------------------------------------------------- records
def _records(facts: Facts, words: CorpusWords) -> list[Part]:
    parts = [Part(words("part.sizes"), [_sizes(facts, words)])]
    if any(set(facts.at("splits", split, "languages")) - {"script:none"} for split in facts.splits):
        parts.append(Part(words("part.languages"), _counted(facts, words, "languages", LANGUAGES_DRAWN)))
    if any(facts.at("splits", split, "labels") for split in facts.splits):
        parts.append(Part(words("part.labels"), _counted(facts, words, "labels", LABELS_DRAWN)))
    parts.append(Part(words("part.lengths"), _lengths(facts, words)))
    return parts


def _sizes(facts: Facts, words: CorpusWords) -> Table:
    kinds = [kind for kind in ("documents", "dialogues", "images", "audio") if any(_of(facts, s, kind) for s in SPLITS)]
    rows: list[list[list[Inline]]] = []
    for split in SPLITS:
        counts: list[list[Inline]] = [[facts.count("splits", split, kind)] for kind in ("records", *kinds)]
        size = _of(facts, split, "bytes")
        length: list[list[Inline]] = [] if facts.is_media else [[facts.count("splits", split, "characters")]]
        rows.append(
            [
                [words(f"split.{split}")],
                *counts,
                [facts.share(("splits", split, "records"), ("kept",))],
                *length,
                [facts.measured(bytes_text(size), size, "splits", split, "bytes")],
            ]
        )
    columns = ["split", "records", *kinds, "share_kept", *([] if facts.is_media else ["characters"]), "bytes"]
    return Table([words(f"col.{name}") for name in columns], rows, tuple(range(1, len(columns))))


def _of(facts: Facts, split: str, name: str) -> Any:
    return facts.at("splits", split, name)


def _counted(facts: Facts, words: CorpusWords, what: str, most: int) -> list[Block]:
    """Languages or labels: the counts of the whole as bars, and their shares in each split."""
    totals: dict[str, int] = {}
    for split in facts.splits:
        for name, count in _of(facts, split, what).items():
            totals[name] = totals.get(name, 0) + count
    rest = totals.pop("", 0)
    ordered = sorted(totals, key=lambda name: (-totals[name], name))
    shown, whole = ordered[:most], sum(totals.values()) + rest
    rest += sum(totals[name] for name in ordered[most:])
    caption = words(f"plot.{what}")
    said = words.language_name if what == "languages" else str
    bars = [
        Bar(said(name), totals[name], f"{format_count(totals[name])} · {format_share(totals[name], whole)}")
        for name in shown
    ]
    bars += [Bar(words("fate.other"), rest, f"{format_count(rest)} · {format_share(rest, whole)}", 5)] if rest else []
    blocks: list[Block] = [Plot(what, caption, [facts.place("splits")], draw_bars(caption, bars))]
    if len(facts.splits) > 1 and 1 < len(shown) <= 12:
        named = shown[:5]
        stacked = []
        for split in facts.splits:
            found, records = _of(facts, split, what), _of(facts, split, "records") or 1
            parts = [(said(name), found.get(name, 0) / records) for name in named]
            if len(ordered) > len(named):
                parts.append((words("fate.other"), max(0.0, 1 - sum(share for _, share in parts))))
            stacked.append((words(f"split.{split}"), parts))
        caption = words(f"plot.{what}_by_split")
        blocks.append(Plot(f"{what}-by-split", caption, [facts.place("splits")], draw_shares(caption, stacked)))
    return blocks


def _lengths(facts: Facts, words: CorpusWords) -> list[Block]:
    panels = []
    for split in facts.splits:
        lengths = _of(facts, split, "lengths")
        if lengths["count"]:
            panels.append(
                Histogram(
                    words(f"split.{split}"),
                    lengths["edges"],
                    lengths["counts"],
                    log=lengths["scale"] == "log",
                    marks=[(lengths["quantiles"]["0.5"], words("median"))],
                    cumulative=True,
                    label=words("axis.bytes" if facts.is_media else "axis.characters"),
                )
            )
    if not panels:
        return []
    caption = words("plot.lengths")
    sources = [facts.place("splits", split, "lengths") for split in facts.splits]
    return [Plot("lengths", caption, sources[:1], draw_histograms(caption, panels)), _quantiles(facts, words)]


def _quantiles(facts: Facts, words: CorpusWords) -> Table:
    names = ("0.05", "0.25", "0.5", "0.75", "0.95")
    rows: list[list[list[Inline]]] = []
    for split in facts.splits:
        lengths = _of(facts, split, "lengths")
        if not lengths["count"]:
            continue
        row: list[list[Inline]] = [[words(f"split.{split}")]]
        for name in ("min", "mean", "max"):
            row.append(
                [
                    facts.measured(
                        format_figure(round(lengths[name], 1)), lengths[name], "splits", split, "lengths", name
                    )
                ]
            )
        for name in names:
            value = lengths["quantiles"][name]
            row.append(
                [facts.measured(format_figure(round(value)), value, "splits", split, "lengths", "quantiles", name)]
            )
        rows.append(row)
    headings = [words(f"col.{name}") for name in ("split", "min", "mean", "max")]
    headings += [f"{float(name):.0%}".replace("%", " %") for name in names]
    return Table(headings, rows, tuple(range(1, 9)))


def _evidence(facts: Facts, words: CorpusWords) -> list[Block]:
    rows: list[list[list[Inline]]] = []
    for check in facts.checks:
        value, threshold = (words.value(part) for part in (check.value, check.threshold))
        source = f"{facts.id} evidence.json {check.name}"
        rows.append(
            [
                [words(f"verdict.{check.verdict}")],
                [Code(check.name)],
                [Figure(value, source)] if value else ["–"],
                [threshold or "–"],
                [words.note(check.note)],
            ]
        )
    columns = ("verdict", "check", "value", "threshold", "note")
    return [Paragraph([words("evidence.text")]), Table([words(f"col.{name}") for name in columns], rows)]
