"""From facts to a report: which figures stand where, in which words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from wuxing.evaluate.fact import Facts, ModelFacts
from wuxing.evaluate.number import format_difference, format_interval, format_minutes, format_p, format_value
from wuxing.evaluate.picture import plot_curves, plot_fates, plot_metrics, plot_slices
from wuxing.evaluate.present_classes import class_parts
from wuxing.evaluate.problem import LEVEL, Problem, best_model, find_problems, lower_is_better
from wuxing.evaluate.quote import samples_of
from wuxing.evaluate.string import Words
from wuxing.page.block import (
    Block,
    Bullets,
    Card,
    Code,
    Figure,
    Inline,
    Paragraph,
    Part,
    Report,
    Section,
    Table,
    compose,
)
from wuxing.page.number import format_count, format_percent

FATES_NAMED = 3


class Presenter:
    """Builds the report of some facts in one language."""

    def __init__(self, facts: Facts, words: Words):
        self.facts, self.words = facts, words
        self.scores = facts.evaluation.id
        self.problems = find_problems(facts)

    def report(self, title: str | None, background: str | None, goal: str | None) -> Report:
        words, sources = self.words, list(self.facts.ancestors)
        sections = [
            self._section("background", [Part(None, [self._background(background)])]),
            self._section("goal", [Part(None, self._goal(goal))]),
            self._section("method", self._method()),
            self._section("results", self._results()),
            self._section("problems", [Part(None, [self._problem_list("problem", "no_problems")])]),
            self._section("next", [Part(None, [self._problem_list("next", "no_next")])]),
            self._section("sources", [Part(None, [self._sources()])]),
        ]
        return Report(
            title=title or words("title").replace("{recipe}", self.facts.recipe),
            subtitle=words("subtitle"),
            language=words.language,
            cards=self._cards(),
            sections=sections,
            sources=sources,
            problems=self.problems,
            missing=self.facts.missing,
        )

    # ---------------------------------------------------------------------------------------------- small things
    def _section(self, key: str, parts: Sequence[Part]) -> Section:
        return Section(key, self.words(key), [part for part in parts if part.blocks])

    def _say(self, key: str, **values: Any) -> list[Inline]:
        return compose(self.words(key), values)

    def _scored(self, text: str) -> Figure:
        """A figure of the evaluation itself."""
        return Figure(text, self.scores)

    def _compared(self, one: Mapping[str, Any]) -> dict[str, Any]:
        metric = one["metric"]
        return {
            "a": one["a"],
            "b": one["b"],
            "metric": self.words.metric(metric),
            "difference": self._scored(format_difference(metric, one["difference"])),
            "interval": self._scored(format_interval(metric, one["low"], one["high"], signed=True)),
            "p": self._scored(format_p(one["p_adjusted"], said=True)),
            "n": self._scored(format_count(one["n"])),
        }

    def _verdict(self, one: Mapping[str, Any]) -> str:
        if one["p_adjusted"] >= LEVEL:
            return "unsure"
        return "better" if (one["difference"] < 0) == lower_is_better(one["metric"]) else "worse"

    def _steps_of_chain(self) -> list[Mapping[str, Any]]:
        """The comparisons of each model with the one it went on from."""
        ids = {model.artifact.id: model.name for model in self.facts.models}
        pairs = {(ids.get(model.start or ""), model.name) for model in self.facts.models}
        return [one for one in self._comparisons() if (one["a"], one["b"]) in pairs]

    def _comparisons(self) -> list[Mapping[str, Any]]:
        shown = {model.name for model in self.facts.models}
        return [one for one in self.facts.results["comparisons"] if {one["a"], one["b"]} <= shown]

    # ---------------------------------------------------------------------------------------------- sections
    def _cards(self) -> list[Card]:
        cards = []
        for metric, baseline in self.facts.results["baselines"].items():
            best = best_model(self.facts, metric)
            if best is None:
                continue
            value = best.metrics[metric]
            interval = self._scored(format_interval(metric, value["low"], value["high"]))
            against = self._scored(format_value(metric, baseline["value"]))
            note: list[Inline] = [Code(best.name), " ", interval, f"  {self.words('col.baseline')} ", against]
            cards.append(Card(self.words.metric(metric), self._scored(format_value(metric, value["value"])), note))
        return cards

    def _background(self, given: str | None) -> Block:
        if given:
            return Paragraph([given])
        raw = [corpus for corpus in self.facts.corpora if corpus.artifact.kind == "corpus"] or self.facts.corpora
        source = raw[0].artifact.id if raw else self.scores
        return Paragraph(
            self._say(
                "background.text",
                recipe=self.facts.recipe,
                total=Figure(format_count(sum(corpus.total for corpus in raw)), source),
                kept=Figure(format_count(sum(sum(corpus.rows.values()) for corpus in raw)), source),
                models=self._scored(format_count(len(self.facts.models))),
            )
        )

    def _goal(self, given: str | None) -> list[Block]:
        items = []
        for one in self._steps_of_chain():
            values = self._compared(one)
            items.append([*self._say("goal.pair", **values), " ", *self._say(f"answer.{self._verdict(one)}", **values)])
        blocks: list[Block] = [Paragraph([given or self.words("goal.text")])]
        return [*blocks, Bullets(items)] if items else blocks

    def _method(self) -> list[Part]:
        words = self.words
        fates = plot_fates(self.facts, words)
        data: list[Block] = [Paragraph([words("data.text")]), self._data_table()]
        return [
            Part(words("data"), [*data, *([fates] if fates else [])]),
            Part(words("tokenizer"), self._tokenizers()),
            Part(words("models"), [Paragraph([words("models.text")]), self._model_table()]),
            Part(words("protocol"), [Bullets(self._protocol())]),
        ]

    def _data_table(self) -> Table:
        rows: list[list[Sequence[Inline]]] = []
        for corpus in self.facts.corpora:
            id = corpus.artifact.id
            others = [(fate, count) for fate, count in corpus.fates.items() if fate != "kept"][:FATES_NAMED]
            named: list[Inline] = []
            for fate, count in others:
                named += [
                    self.words("and") if named else "",
                    f"{self.words.fate(fate)} ",
                    Figure(format_count(count), id),
                ]
            splits = [
                [Figure(format_count(corpus.rows.get(split, 0)), id)] for split in ("train", "validation", "test")
            ]
            total: list[Inline] = [Figure(format_count(corpus.total), id)]
            rows.append([[Code(corpus.artifact.name)], total, *splits, named or ["–"]])
        columns = ("name", "raw", "train", "validation", "test", "fates")
        return Table([self.words(f"col.{column}") for column in columns], rows, numeric=(1, 2, 3, 4))

    def _tokenizers(self) -> list[Block]:
        rows: list[list[Sequence[Inline]]] = []
        for artifact in self.facts.tokenizers:
            summary, verdicts = artifact.record["summary"], {c.name: c.verdict for c in artifact.evidence.checks}
            size = summary.get("bytes per token")
            exact = {verdicts.get("round_trip"), verdicts.get("all_bytes")} == {"passed"}
            rows.append(
                [
                    [Code(artifact.name)],
                    _figure(summary.get("ids"), artifact.id),
                    ["–"] if size is None else [Figure(f"{size:.2f}", artifact.id)],
                    [self.words("exact" if exact else "not_exact")],
                ]
            )
        if not rows:
            return []
        columns = [self.words(f"col.{column}") for column in ("name", "ids", "bytes", "round_trip")]
        return [Paragraph([self.words("tokenizer.text")]), Table(columns, rows, numeric=(1, 2))]

    def _model_table(self) -> Table:
        words = self.words
        rows: list[list[Sequence[Inline]]] = []
        for model in self.facts.models:
            id = model.artifact.id
            start = self._name_of(model.start) if model.start else words("new")
            figures = [_figure(model.figure(name), id) for name in ("parameters", "steps", "positions")]
            minutes: list[Inline] = [Figure(format_minutes(float(model.artifact.record.get("seconds", 0))), id)]
            read = self.words("and").join(self._name_of(data) for data in model.data) or "–"
            objective = words.get(f"objective.{model.objective}", model.objective or "–")
            rows.append([[Code(model.name)], [start], [objective], [read], *figures, minutes])
        columns = ("model", "start", "objective", "read", "parameters", "steps", "tokens", "minutes")
        return Table([words(f"col.{column}") for column in columns], rows, numeric=(4, 5, 6, 7))

    def _name_of(self, id: str) -> str:
        same = [model.name for model in self.facts.models if model.artifact.id == id]
        return same[0] if same else id.partition("/")[2].partition("@")[0]

    def _protocol(self) -> list[list[Inline]]:
        settings = self.facts.results["settings"]
        lines = []
        for key, line in (("bits_per_byte", "bits"), ("masked_bits_per_byte", "masked"), ("classes", "classes")):
            if (told := settings.get(key)) and told["corpus"]:
                documents = self._scored(format_count(told["documents"]))
                lines.append(self._say(f"protocol.{line}", documents=documents))
        for task, items in settings["accuracy"]["items"].items():
            tokens = self._scored(format_count(settings["accuracy"]["max_tokens"]))
            values = {"task": Code(task), "items": self._scored(format_count(items)), "tokens": tokens}
            lines.append(self._say("protocol.accuracy", **values))
        confidence = self._scored(format_percent(settings["intervals"]["confidence"], 0))
        lines.append(self._say("protocol.intervals", confidence=confidence))
        lines.append(self._say("protocol.pairs"))
        lines.append(self._say("protocol.baseline"))
        return lines

    def _results(self) -> list[Part]:
        words, facts = self.words, self.facts
        curves = [plot for model in facts.models if (plot := plot_curves(model, words)) is not None]
        slices = [plot for metric in facts.results["baselines"] if (plot := plot_slices(facts, metric, words))]
        samples = samples_of(facts, words)
        comparisons = [self._comparison_table()] if self._comparisons() else []
        replies: list[Block] = [Paragraph([words("sample.text")]), *samples] if samples else []
        return [
            Part(words("figures"), [plot_metrics(facts, words), self._metric_table()]),
            Part(words("comparisons"), comparisons),
            Part(words("training"), curves),
            Part(words("slices"), slices),
            *class_parts(facts, words),
            Part(words("overlap"), [Paragraph(self._overlap())]),
            Part(words("replies"), replies),
        ]

    def _metric_table(self) -> Table:
        rows: list[list[Sequence[Inline]]] = []
        for metric, baseline in self.facts.results["baselines"].items():
            for model in self.facts.models:
                if (value := model.metrics.get(metric)) is None:
                    continue
                rows.append(
                    [
                        [self.words.metric(metric)],
                        [Code(model.name)],
                        [self._scored(format_value(metric, value["value"]))],
                        [self._scored(format_interval(metric, value["low"], value["high"]))],
                        [self._scored(format_count(value["n"]))],
                        [self._scored(format_value(metric, baseline["value"]))],
                        [self._stopped(model, metric)],
                    ]
                )
        columns = ("metric", "model", "value", "interval", "n", "baseline", "stopped")
        return Table([self.words(f"col.{column}") for column in columns], rows, numeric=(2, 3, 4, 5, 6))

    def _stopped(self, model: ModelFacts, metric: str) -> Inline:
        share = model.details.get(metric.partition("/")[2], {}).get("stopped")
        return "–" if share is None else self._scored(format_percent(share))

    def _comparison_table(self) -> Table:
        rows: list[list[Sequence[Inline]]] = []
        for one in self._comparisons():
            values = self._compared(one)
            verdict = self.words(f"verdict.{self._verdict(one)}")
            rows.append(
                [
                    [values["metric"]],
                    [Code(f"{one['b']} − {one['a']}")],
                    [values["difference"]],
                    [values["interval"]],
                    [self._scored(format_p(one["p_adjusted"]))],
                    [verdict],
                ]
            )
        columns = ("metric", "pair", "difference", "interval", "p", "verdict")
        return Table([self.words(f"col.{column}") for column in columns], rows, numeric=(2, 3, 4))

    def _overlap(self) -> list[Inline]:
        overlap = self.facts.results["overlap"]
        counts = {key: self._scored(format_count(overlap[key])) for key in ("items", "leaked", "near")}
        return self._say("overlap.text", **counts)

    def _problem_list(self, prefix: str, none: str) -> Block:
        if not self.problems:
            return Paragraph([self.words(none)])
        lines, grave = [], []
        for problem in self.problems:
            line = self._say(f"{prefix}.{problem.kind}", **self._values(problem))
            if line not in lines:
                lines.append(line)
                grave.append(problem.grave)
        return Bullets(lines, grave if prefix == "problem" else (), ordered=prefix == "next")

    def _values(self, problem: Problem) -> dict[str, Any]:
        """The problem's values as they are printed."""
        values, metric = problem.values, problem.values.get("metric", "accuracy")
        found: dict[str, Any] = {}
        for key, value in values.items():
            if key == "metric":
                found[key] = self.words.metric(value)
            elif key == "slice":
                found[key] = self.words.part(value)
            elif key == "fate":
                found[key] = self.words.fate(value)
            elif key in ("failure", "ids"):
                found[key] = Code(value)
            elif isinstance(value, str):
                found[key] = value
            else:
                found[key] = Figure(_printed(key, value, metric), problem.source)
        if "low" in values:
            interval = format_interval(metric, values["low"], values["high"], signed=True)
            found["interval"] = Figure(interval, problem.source)
        return found

    def _sources(self) -> Table:
        rows: list[list[Sequence[Inline]]] = []
        for id, artifact in self.facts.ancestors.items():
            verdicts = [check.verdict for check in artifact.evidence.checks]
            checks: list[Inline] = []
            for verdict in ("passed", "failed", "measured"):
                if count := verdicts.count(verdict):
                    said = self._say(verdict, count=Figure(str(count), id))
                    checks += [self.words("and") if checks else "", *said]
            created = str(artifact.record.get("created", ""))[:16].replace("T", " ")
            rows.append([[Code(id)], [Code(artifact.fingerprint[:12])], [created], checks or ["–"]])
        columns = ("artifact", "fingerprint", "created", "checks")
        return Table([self.words(f"col.{column}") for column in columns], rows, anchors=True)


def _printed(key: str, value: Any, metric: str) -> str:
    if key in ("share", "fall", "half", "goal"):
        return format_percent(value)
    if key == "difference":
        return format_difference(metric, value)
    if key in ("value", "whole", "baseline"):
        return format_value(metric, value)
    return format_p(value, said=True) if key.startswith("p") else format_count(value)


def _figure(value: Any, source: str) -> list[Inline]:
    return ["–"] if value is None else [Figure(format_count(value), source)]
