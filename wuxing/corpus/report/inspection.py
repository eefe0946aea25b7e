"""A look at raw data as a page, with the same plots as the data report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from wuxing.core.amount import bytes_text
from wuxing.corpus.report.step import panel_of
from wuxing.corpus.report.words import CorpusWords, words_of
from wuxing.page.block import (
    Block,
    Bullets,
    Card,
    Code,
    Figure,
    Inline,
    Item,
    Items,
    Paragraph,
    Part,
    Plot,
    Report,
    Section,
    Table,
    Verbatim,
)
from wuxing.page.number import format_count, format_share
from wuxing.page.plot import Bar, Histogram, draw_bars, draw_histograms

BARS_DRAWN = 24


def write_page(path: Path, found: Mapping[str, Any], language: str = "en") -> None:
    """Write what `inspect` found as one HTML file that loads nothing.  UsageError for an unknown language."""
    from wuxing.core.error import UsageError
    from wuxing.core.file import write_text
    from wuxing.page.render import render_html

    words = words_of(language)
    if not path.parent.is_dir():
        raise UsageError(f"there is no folder {path.parent}", "Make it first, or give another path to --page")
    write_text(path, render_html(present_inspection(found, words), words))


def present_inspection(found: Mapping[str, Any], words: CorpusWords) -> Report:
    """The page of an inspection in one language."""
    page = _Page(found, words)
    sections = [
        ("columns", [Part(None, page.columns())]),
        ("read", [Part(None, page.records())]),
        ("records", page.contents()),
        ("statistics", page.measures()),
        ("would_drop", [Part(None, page.drops())]),
        ("some", [Part(None, page.samples())]),
        ("suggestion", [Part(None, [Paragraph([words("suggestion.text")]), Verbatim(found["suggestion"])])]),
    ]
    made = [Section(key, words(f"section.{key}"), [part for part in parts if part.blocks]) for key, parts in sections]
    return Report(
        title=words("title.inspect").replace("{name}", found["source"]),
        subtitle=words("subtitle.inspect" if found["whole"] else "subtitle.inspect_part").replace(
            "{rows}", format_count(found["rows"])
        ),
        language=words.language,
        cards=page.cards(),
        sections=[section for section in made if section.parts],
        sources=[],
        numbered=False,
    )


class _Page:
    def __init__(self, found: Mapping[str, Any], words: CorpusWords):
        self.found, self.words = found, words

    def count(self, value: float, place: str, said: str | None = None) -> Figure:
        """A figure, with the key of the JSON answer that it stands under."""
        return Figure(said or format_count(value), f"inspect --json: {place}", float(value))

    def cards(self) -> list[Card]:
        found, words = self.found, self.words
        formats = words.comma.join(f"{name} {count:,}" for name, count in found["formats"].items())
        read = sum(count for kind, count in found["records"].items() if not kind.startswith("not read"))
        size = [bytes_text(found["bytes"])] if found["bytes"] else []
        return [
            Card(words("card.files"), self.count(found["files"], "files"), [words.comma.join([formats, *size])]),
            Card(words("card.rows"), self.count(found["rows"], "rows"), [words("whole" if found["whole"] else "part")]),
            Card(words("card.records"), self.count(read, "records"), [format_share(read, found["rows"])]),
            Card(
                words("card.would_drop"),
                self.count(sum(found["would_drop"].values()), "would_drop"),
                [format_share(sum(found["would_drop"].values()), read)],
            ),
        ]

    def columns(self) -> list[Block]:
        rows: list[list[list[Inline]]] = []
        for name, column in self.found["columns"].items():
            types = self.words.comma.join(f"{kind} {count:,}" for kind, count in column["types"].items())
            missing = column["missing"]
            share = format_share(missing, self.found["rows"])
            place = f"columns.{name}.missing"
            rows.append([[Code(name)], [types], [self.count(missing, place)], [self.count(missing, place, share)]])
        if not rows:
            return []
        columns = [self.words(f"col.{name}") for name in ("field", "types", "missing", "share")]
        reading = [f"{name} ← {value}" for name, value in self.found["reading"].items()]
        said: list[Block] = (
            [Paragraph([self.words("read_as"), self.words.colon, Code("; ".join(reading))])] if reading else []
        )
        return [*said, Table(columns, rows, (2, 3), sortable=len(rows) > 1)]

    def records(self) -> list[Block]:
        rows: list[list[list[Inline]]] = []
        for kind, count in self.found["records"].items():
            reason = kind.removeprefix("not read: ")
            places = self.found["not_read"].get(reason, []) if reason != kind else []
            said = self.words.get(f"kind.{kind}", "") or self.words("kind.not_read").replace(
                "{reason}", self.words.reason(f":{reason}")
            )
            example: list[Inline] = [Code(f"{places[0]['place']}: {places[0]['detail']}")] if places else ["–"]
            share = format_share(count, self.found["rows"])
            rows.append([[said], [self.count(count, f"records.{kind}")], [share], example])
        columns = [self.words(f"col.{name}") for name in ("records", "rows", "share", "example")]
        blocks: list[Block] = [Table(columns, rows, (1, 2))]
        if self.found["notes"]:
            blocks.append(Bullets([[note] for note in self.found["notes"]]))
        return blocks

    def contents(self) -> list[Part]:
        words, parts = self.words, []
        lengths = self.found["lengths"]
        if lengths and lengths["count"]:
            label = words("axis.characters" if self.found["characters"] else "axis.bytes")
            marks = [(lengths["quantiles"]["0.5"], words("median"))]
            panel = Histogram(
                label, lengths["edges"], lengths["counts"], lengths["scale"] == "log", marks, cumulative=True
            )
            caption = words("plot.lengths")
            blocks: list[Block] = [Plot("lengths", caption, ["lengths"], draw_histograms(caption, [panel], 1))]
            parts.append(Part(words("part.lengths"), blocks))
        for name, said in (("languages", words.language_name), ("labels", str), ("private", words.found)):
            counts: Mapping[str, int] = self.found[name]
            if counts:
                total = sum(counts.values())
                caption = words(f"plot.{name}" if name != "private" else "plot.private_found")
                bars = [
                    Bar(said(key), count, f"{format_count(count)} · {format_share(count, total)}")
                    for key, count in list(counts.items())[:BARS_DRAWN]
                ]
                heading = words("section.privacy" if name == "private" else f"part.{name}")
                parts.append(Part(heading, [Plot(name, caption, [name], draw_bars(caption, bars))]))
        return [*parts, *self._duplicates()]

    def _duplicates(self) -> list[Part]:
        if not self.found["duplicates"]:
            return []
        rows: list[list[list[Inline]]] = []
        for name, share in self.found["duplicates"].items():
            kind = "exact" if name == "equal" else "near"
            said = f"{100 * share:.2f} %"
            rows.append([[self.words(f"part.{kind}")], [self.count(share, f"duplicates.{name}", said)]])
        table = Table([self.words("section.duplicates"), self.words("col.share")], rows, (1,))
        return [Part(self.words("section.duplicates"), [table])]

    def measures(self) -> list[Part]:
        from wuxing.corpus.clean.config import CleanStep

        parts = []
        for step, measures in self.found["measures"].items():
            settings = CleanStep.model_validate(step).settings.model_dump(mode="json")
            panels = [
                panel_of(self.words, name, measure, settings)
                for name, measure in measures.items()
                if measure["max"] > measure["min"]
            ]
            if panels:
                caption = self.words("plot.measures").replace("{step}", self.words.step(step))
                svg = draw_histograms(caption, panels, 3 if len(panels) > 4 else 2)
                parts.append(
                    Part(self.words.step(step), [Plot(f"measures-{step}", caption, [f"measures.{step}"], svg)])
                )
        return parts

    def drops(self) -> list[Block]:
        items = []
        for reason, count in self.found["would_drop"].items():
            example = self.found["would_drop_examples"][reason]
            note: list[Inline] = [self.words.reason(f":{reason}"), " · ", self.count(count, f"would_drop.{reason}")]
            note += [f" · {example['detail']}"] if example["detail"] else []
            items.append(Item(example["id"], note, example["text"]))
        return [Paragraph([self.words("would_drop.text")]), Items(items)] if items else []

    def samples(self) -> list[Block]:
        items: Sequence[Item] = [
            Item(
                sample["id"],
                [Code(sample["label"])] if sample.get("label") else [],
                sample.get("text") or sample.get("image") or sample.get("audio") or "",
                turns=[
                    *((turn["role"], turn["content"]) for turn in sample.get("messages", ())),
                    *((self.words(name), sample[name]) for name in ("chosen", "rejected") if sample.get(name)),
                ],
            )
            for sample in self.found["samples"]
        ]
        return [Items(items)] if items else []
