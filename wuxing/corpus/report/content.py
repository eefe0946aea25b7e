"""Duplicates, private data, and the records themselves."""

from __future__ import annotations

from wuxing.corpus.report.facts import CLUSTERS_SHOWN, MEMBERS_SHOWN, Facts, Row
from wuxing.corpus.report.step import SHOWN_CHARACTERS
from wuxing.corpus.report.words import CorpusWords
from wuxing.page.block import (
    Block,
    Code,
    Figure,
    Fold,
    Gallery,
    Inline,
    Item,
    Items,
    Paragraph,
    Part,
    Plot,
    Table,
    compose,
)
from wuxing.page.chart import Cloud, draw_scatter
from wuxing.page.flow import draw_wave
from wuxing.page.number import format_count, format_figure
from wuxing.page.plot import Bar, Histogram, draw_bars, draw_histograms
from wuxing.page.text import cut

SOUNDS_SHOWN = 6
ITEMS_SHOWN = 40
TURNS_SHOWN = 6
BINS = 24


# ---------------------------------------------------------------------------------------------------- duplicates
def duplicates_parts(facts: Facts, words: CorpusWords) -> list[Part]:
    """Clusters by size, and the largest with what they hold."""
    parts = []
    for kind in ("exact", "near"):
        found = facts.at("duplicates", kind)
        if not found["dropped"]:
            continue
        said = compose(
            words(f"duplicates.{kind}"),
            {
                "dropped": facts.count("duplicates", kind, "dropped"),
                "clusters": facts.count("duplicates", kind, "clusters"),
            },
        )
        caption = words("plot.clusters")
        bars = [Bar(words.cluster_size(int(size)), count) for size, count in _by_size(found["sizes"])]
        plot = Plot(f"clusters-{kind}", caption, [facts.place("duplicates", kind, "sizes")], draw_bars(caption, bars))
        clusters: list[Block] = []
        for number in range(min(CLUSTERS_SHOWN, len(found["largest"]))):
            clusters.append(_cluster(facts, words, kind, number))
        parts.append(Part(words(f"part.{kind}"), [Paragraph(said), plot, *clusters]))
    substring = facts.at("duplicates", "substring")
    if substring.get("records"):
        values = {name: facts.count("duplicates", "substring", name) for name in ("records", "characters")}
        parts.append(Part(words("part.substring"), [Paragraph(compose(words("duplicates.substring"), values))]))
    return parts or [Part(None, [Paragraph([words("duplicates.none")])])]


def _by_size(sizes: dict[str, int]) -> list[tuple[str, int]]:
    return sorted(sizes.items(), key=lambda item: int(item[0]))


def _cluster(facts: Facts, words: CorpusWords, kind: str, number: int) -> Fold:
    cluster = facts.at("duplicates", kind, "largest", number)
    size = facts.count("duplicates", kind, "largest", number, "size")
    items = []
    for place, id in enumerate([cluster["id"], *cluster["members"]][: MEMBERS_SHOWN + 1]):
        note: list[Inline] = [words("cluster.kept" if place == 0 else "cluster.dropped")]
        row = facts.twins.get(id)
        items.append(record_item(row, words, note) if row else Item(id, note))
    return Fold([size, " × ", Code(cut(cluster["id"], 90))], [Items(items)])


def record_item(row: Row, words: CorpusWords, note: list[Inline]) -> Item:
    """A record of any kind, shown."""
    if row.get("picture"):
        return Item(row["id"], note, image=row["picture"].uri)
    if row.get("outline"):
        return Item(row["id"], note, wave=draw_wave(row["id"], row["outline"].peaks), audio=row["outline"].uri)
    turns = [(turn["role"], cut(turn["content"], SHOWN_CHARACTERS)) for turn in row.get("messages") or []]
    replies = [(words(name), cut(row[name], SHOWN_CHARACTERS)) for name in ("chosen", "rejected") if row.get(name)]
    return Item(row["id"], note, cut(row.get("text") or "", SHOWN_CHARACTERS), turns=(*turns[:TURNS_SHOWN], *replies))


# ------------------------------------------------------------------------------------------------------- privacy
def privacy_parts(facts: Facts, words: CorpusWords) -> list[Part]:
    """What was found by kind, and what an independent check still finds."""
    found, left = facts.at("privacy", "found"), facts.at("privacy", "left")
    kinds = sorted({*found, *left}, key=lambda kind: (-found.get(kind, 0), kind))
    if not kinds:
        searched = any(step["step"] == "privacy" for step in facts.at("steps"))
        return [Part(None, [Paragraph([words("privacy.clean" if searched else "privacy.none")])])]
    rows: list[list[list[Inline]]] = []
    for kind in kinds:
        cells: list[list[Inline]] = []
        for side in ("found", "left"):
            cells.append([facts.count("privacy", side, kind)] if kind in facts.at("privacy", side) else ["0"])
        rows.append([[words.found(kind)], [Code(f"<{kind}>")], *cells])
    table = Table([words(f"col.{name}") for name in ("kind", "replaced_by", "replaced", "left")], rows, (2, 3))
    blocks: list[Block] = [Paragraph([words("privacy.text")])]
    if found:
        caption = words("plot.privacy")
        bars = [Bar(words.found(kind), found[kind]) for kind in kinds if found.get(kind)]
        blocks.append(Plot("privacy", caption, [facts.place("privacy", "found")], draw_bars(caption, bars)))
    return [Part(None, [*blocks, table])]


# ------------------------------------------------------------------------------------------------- contamination
def contamination_parts(facts: Facts, words: CorpusWords) -> list[Part]:
    """The evaluation items that records gave away, those with most records first."""
    parts = []
    for found in facts.contamination:
        source = f"{facts.id} contamination.json"
        met: dict[str, int] = found["records_by_item"]
        values = {
            "items": Figure(format_count(sum(found["items"].values())), source),
            "found": Figure(format_count(found["found"]), source),
            "records": Figure(format_count(sum(met.values())), source),
        }
        sets: list[list[list[Inline]]] = []
        for name, items in found["items"].items():
            mine = [item for item in met if item.startswith(f"{name}/")]
            records = sum(met[item] for item in mine)
            row: list[list[Inline]] = [[Code(name)]]
            row += [[Figure(format_count(n), source, float(n))] for n in (items, len(mine), records)]
            sets.append(row)
        columns = [words(f"col.{name}") for name in ("set", "items", "given_away", "records")]
        blocks: list[Block] = [Paragraph(compose(words("contamination.text"), values))]
        blocks.append(Table(columns, sets, (1, 2, 3), sortable=len(sets) > 1))
        if met:
            rows: list[list[list[Inline]]] = [
                [[Code(cut(item, 160))], [Figure(format_count(n), source, float(n))]]
                for item, n in list(met.items())[:ITEMS_SHOWN]
            ]
            shown = Table([words("col.item"), words("col.records")], rows, (1,), sortable=len(rows) > 1)
            blocks.append(Fold([words("contamination.items")], [shown]))
        parts.append(Part(None, blocks))
    return parts


# ------------------------------------------------------------------------------------------------------- records
def sample_parts(facts: Facts, words: CorpusWords) -> list[Part]:
    """Some of the records that were kept."""
    parts = [Part(None, [Paragraph([words("samples.text")])])]
    for split in facts.splits:
        rows = facts.kept[split]
        pictures = [row for row in rows if row.get("picture")]
        sounds = [row for row in rows if row.get("outline")][:SOUNDS_SHOWN]
        blocks: list[Block] = []
        if pictures:
            blocks.append(Gallery([_thumb(row) for row in pictures]))
        if sounds:
            blocks.append(Items([_sound(row) for row in sounds]))
        others = [row for row in rows if row.get("text") or row.get("messages")]
        if others:
            blocks.append(Items([record_item(row, words, _label(row)) for row in others]))
        parts.append(Part(words(f"split.{split}"), blocks))
    return [*parts, *_media_parts(facts, words)]


def _label(row: Row) -> list[Inline]:
    return [Code(row["label"])] if row.get("label") else []


def _thumb(row: Row) -> Item:
    size = f"{row['picture'].width} × {row['picture'].height}"
    return Item(row["id"], [row["label"] or "", " " if row["label"] else "", size], image=row["picture"].uri)


def _sound(row: Row) -> Item:
    sound = row["outline"]
    note = [*_label(row), f" {sound.seconds:.2f} s · {sound.rate:,} Hz"]
    return Item(row["id"], note, wave=draw_wave(row["id"], sound.peaks), audio=sound.uri)


def _media_parts(facts: Facts, words: CorpusWords) -> list[Part]:
    """Sizes of pictures and lengths of sounds, of an even sample of the kept records."""
    parts = []
    clouds, lengths = [], []
    for number, split in enumerate(facts.splits):
        rows = facts.measured_media.get(split, [])
        sized = [row for row in rows if row.get("size")]
        if sized:
            points = [(float(row["size"][0]), float(row["size"][1])) for row in sized]
            tips = [f"{row['id']} {row['size'][0]} × {row['size'][1]}" for row in sized]
            clouds.append(Cloud(words(f"split.{split}"), points, tips, number))
        lengths += [row["seconds"] for row in rows if row.get("seconds")]
    if clouds:
        caption = words("plot.sizes")
        spread = {value for cloud in clouds for point in cloud.points for value in point}
        svg = draw_scatter(caption, clouds, words("axis.width"), words("axis.height"), max(spread) > 20 * min(spread))
        parts.append(Part(words("part.picture_sizes"), [Plot("sizes", caption, [f"{facts.id} *.parquet"], svg)]))
    if lengths:
        caption = words("plot.seconds")
        panel = histogram_of(lengths, words("axis.seconds"), words("axis.seconds"))
        plot = Plot("seconds", caption, [f"{facts.id} *.parquet"], draw_histograms(caption, [panel], 1))
        parts.append(Part(words("part.seconds"), [plot]))
    return parts


def histogram_of(values: list[float], title: str, label: str) -> Histogram:
    """Equal bins over plain values; bins of equal ratio where the largest is many times the median."""
    ordered = sorted(values)
    low, high, median = ordered[0], ordered[-1], ordered[len(ordered) // 2]
    log = low > 0 and high > 8 * median
    if high <= low:
        high = low + 1
    edges = [low * (high / low) ** (n / BINS) if log else low + (high - low) * n / BINS for n in range(BINS + 1)]
    counts = [0] * BINS
    place = 0
    for value in ordered:
        while place < BINS - 1 and value >= edges[place + 1]:
            place += 1
        counts[place] += 1
    return Histogram(title, edges, counts, log, marks=[(median, format_figure(median))], label=label)
