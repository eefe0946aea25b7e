"""`report.html` and `report.zh.html`: what was done to which records, before and after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from wuxing.augment.config import AugmentationConfig
from wuxing.augment.picture import peaks_of, spectrogram
from wuxing.augment.sample import Sample, find
from wuxing.augment.string import TEXTS
from wuxing.augment.worker import asked
from wuxing.core.evidence import Evidence
from wuxing.core.file import write_text
from wuxing.core.record import Fates, Record
from wuxing.core.step import Draft, content_of
from wuxing.corpus.preview import data_uri
from wuxing.page.block import (
    Card,
    Change,
    Changes,
    Code,
    Figure,
    Fold,
    Gallery,
    Inline,
    Item,
    Items,
    Paragraph,
    Part,
    Report,
    Section,
    Table,
    compose,
)
from wuxing.page.difference import differences
from wuxing.page.flow import draw_wave
from wuxing.page.number import format_count, format_figure, format_percent
from wuxing.page.render import render_html
from wuxing.page.text import cut
from wuxing.page.words import LANGUAGES, Words

MOST_CHARACTERS = 1500
MOST_SOUND_BYTES = 400_000
"""Longer sounds are drawn, not written into the page."""


def write_page(
    draft: Draft, config: AugmentationConfig, data: Path, ids: list[str], operations: Mapping[str, int], fates: Fates
) -> None:
    """Write the page in both languages."""
    samples = find(draft.path, data, ids)
    for language in LANGUAGES:
        words = Words(language, TEXTS)
        suffix = "" if language == "en" else f".{language}"
        report = _Page(draft, config, operations, fates, words).report(samples)
        write_text(draft.path / f"report{suffix}.html", render_html(report, words))


class _Page:
    def __init__(
        self,
        draft: Draft,
        config: AugmentationConfig,
        operations: Mapping[str, int],
        fates: Fates,
        words: Words,
    ):
        self.draft, self.config, self.operations, self.fates, self.words = draft, config, operations, fates, words
        self.copies = asked(fates)

    def report(self, samples: Sequence[Sample]) -> Report:
        t = self.words
        other = "report.html" if t.language == "zh" else "report.zh.html"
        sections = [
            Section("operations", t("section.operations"), [Part(None, [self._operations()])]),
            Section("samples", t("section.samples"), self._samples(samples)),
            Section("fates", t("section.fates"), [Part(None, [self._fates(), self._checks(self.draft.evidence)])]),
        ]
        subtitle = t("subtitle").format(data=self.config.data, seed=self.draft.seed)
        return Report(
            t("title").format(name=self.draft.name),
            subtitle,
            t.language,
            self._cards(),
            sections,
            [],
            numbered=False,
            links=[(t("other"), other)],
        )

    def _cards(self) -> list[Card]:
        t, counts = self.words, self.fates.counts
        train = int(self.draft.summary["train"])
        held_out = counts["kept"] + counts["augmented"] - train
        share = Figure(format_percent(counts["augmented"] / self.copies if self.copies else 0), "evidence.json")
        note = compose(t("note.copies"), {"number": _figure(self.config.copies, "recipe"), "share": share})
        return [
            Card(t("card.train"), _figure(train, "train.parquet"), []),
            Card(t("card.copies"), _figure(counts["augmented"], "fates.json"), note),
            Card(t("card.held_out"), _figure(held_out, "fates.json"), []),
        ]

    def _operations(self) -> Table:
        t = self.words
        rows: list[list[list[Inline]]] = []
        for step in self.config.steps:
            settings = content_of(step.operation)
            said = ", ".join(f"{name} {_short(value)}" for name, value in settings.items() if value is not None)
            count = self.operations.get(step.chosen, 0)
            share = Figure(format_percent(count / self.copies if self.copies else 0), "operations.json")
            rows.append([[Code(step.chosen)], [cut(said, 300)], [_figure(count, "operations.json")], [share]])
        names = [t(f"column.{name}") for name in ("operation", "settings", "copies", "share")]
        return Table(names, rows, numeric=(2, 3))

    def _samples(self, samples: Sequence[Sample]) -> list[Part]:
        t, content = self.words, self.config.operations.content
        intro = Paragraph(compose(t("samples.drawn"), {"count": _figure(len(samples), "changed.parquet")}))
        if content == "text":
            changes = Changes(
                [
                    Change(
                        _heading(s),
                        *differences(_text(s.before), _text(s.after)),
                    )
                    for s in samples
                ]
            )
            return [Part(None, [intro, changes])]
        if content == "image":
            items = [item for sample in samples for item in self._pictures(sample)]
            return [Part(None, [intro, Gallery(items), Fold([t("numbers")], [self._numbers(samples)])])]
        parts = [Part(None, [intro, Paragraph([t("sound")])])]
        for sample in samples[:12]:
            parts.append(
                Part(
                    _heading(sample),
                    [Items([self._sound(sample.before, "before"), self._sound(sample.after, "after")])],
                )
            )
        return parts

    def _pictures(self, sample: Sample) -> list[Item]:
        t = self.words
        done = ", ".join(name for step in sample.operations for name in step)
        soft = sample.after.meta.get("soft_label")
        label = _soft(soft) if soft else str(sample.after.label)
        before: list[Inline] = [f"{t('before')} · {sample.before.label}"]
        after: list[Inline] = [f"{t('after')} · {label} · {done}"]
        return [
            Item(sample.before.id, before, image=data_uri(sample.before.image or b"")),
            Item(sample.after.id, after, image=data_uri(sample.after.image or b"")),
        ]

    def _numbers(self, samples: Sequence[Sample]) -> Table:
        rows: list[list[list[Inline]]] = [
            [[Code(sample.after.id)], [Code(name)], [_numbers(numbers)]]
            for sample in samples
            for step in sample.operations
            for name, numbers in step.items()
        ]
        return Table([self.words(f"column.{name}") for name in ("copy", "operation", "numbers")], rows)

    def _sound(self, record: Record, side: Literal["before", "after"]) -> Item:
        from wuxing.media.audio import decode

        data = record.audio or b""
        sound = decode(data)
        note: list[Inline] = [self.words(side)]
        if len(data) > MOST_SOUND_BYTES:
            note.append(self.words("too_long"))
        return Item(
            record.id,
            note,
            image=data_uri(spectrogram(sound.mono_T)),
            audio=data_uri(data) if len(data) <= MOST_SOUND_BYTES else "",
            wave=draw_wave(record.id, peaks_of(sound.mono_T)),
        )

    def _fates(self) -> Table:
        t = self.words
        rows: list[list[list[Inline]]] = [
            [[Code(fate)], [_figure(count, "fates.json")]] for fate, count in self.fates.counts.most_common()
        ]
        return Table([t("column.fate"), t("column.records")], rows, numeric=(1,))

    def _checks(self, evidence: Evidence) -> Table:
        t = self.words
        rows: list[list[list[Inline]]] = [
            [[Code(check.name)], [t(check.verdict)], [Code(_short(check.value)), f" {check.note}"]]
            for check in evidence.checks
        ]
        return Table([t(f"column.{name}") for name in ("check", "verdict", "note")], rows)


def _heading(sample: Sample) -> str:
    done = "; ".join(f"{name} {_numbers(numbers)}" for step in sample.operations for name, numbers in step.items())
    return f"{sample.after.id} · {done}"


def _numbers(numbers: Mapping[str, Any]) -> str:
    return " ".join(f"{name} {_short(value)}" for name, value in numbers.items())


def _soft(shares: Mapping[str, float]) -> str:
    return " + ".join(f"{share:.0%} {label}" for label, share in sorted(shares.items(), key=lambda item: -item[1]))


def _short(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return cut(str(value), 120)
    return format_figure(value)


def _figure(count: int, source: str) -> Figure:
    return Figure(format_count(count), source, count)


def _text(record: Record) -> str:
    if record.messages is not None:
        text = "\n".join(f"{message['role']}: {message['content']}" for message in record.messages)
    else:
        text = record.text or ""
    return cut(text, MOST_CHARACTERS)
