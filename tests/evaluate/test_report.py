"""Reports: every figure traced, nothing loaded, both languages whole, problems by rule."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from small_world import EVALUATION, Shelf, evaluation_parents

from wuxing.core.artifact import Artifact
from wuxing.core.error import UsageError
from wuxing.core.evidence import Evidence
from wuxing.core.file import append_line, write_json
from wuxing.evaluate.evaluation_kind import EvaluationKind
from wuxing.evaluate.fact import Facts, collect
from wuxing.evaluate.problem import find_problems
from wuxing.evaluate.report import Wish, judge_report, write_report
from wuxing.evaluate.report_kind import ReportKind
from wuxing.evaluate.string import TEXT, Words
from wuxing.page.block import Figure, compose, figures_of


def train_log(model: Artifact, objective: str) -> None:
    """What a training run leaves for the report."""
    data = [{"id": "corpus/articles@v1", "by": model.name, "split": "train"}]
    write_json(model.path / "training.json", {"objective": {objective: {}}, "lineage": {"data": data}})
    model.record["summary"].update(parameters=123456, steps=80, positions=163840)
    write_json(model.path / "record.json", model.record)
    log = model.path / "log.jsonl"
    for step in range(1, 81):
        append_line(log, {"step": step, "loss": 9 - step / 20, "tokens": 2048, "reward": step / 100})
        if step % 20 == 0:
            append_line(log, {"step": step, "validation": {"bits_per_byte": 4 - step / 40, "accuracy": step / 100}})


@pytest.fixture
def scores(shelf: Shelf, lived: dict[str, Artifact]) -> Artifact:
    train_log(lived["early"], "next_token")
    train_log(lived["late"], "grpo")
    return shelf.make(EvaluationKind(), "scores", EVALUATION, evaluation_parents(lived))


def make_report(shelf: Shelf, scores: Artifact, **config: Any) -> Artifact:
    return shelf.make(ReportKind(), "report", {"of": "scores", **config}, {"of": scores})


class Page(HTMLParser):
    """Every opened tag must be closed, and every id be there once."""

    VOID = {"meta", "br", "img", "path", "use", "rect", "link"}

    def __init__(self, html: str):
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.targets: list[str] = []
        self.text: list[str] = []
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag not in self.VOID:
            self.open.append(tag)
        for name, value in attributes:
            if name == "id" and value:
                self.ids.append(value)
            if name == "href" and value:
                self.targets.append(value)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.targets += [value for name, value in attributes if name in ("href", "xlink:href") and value]
        self.ids += [value for name, value in attributes if name == "id" and value]

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "script"):
            self.text.append(data)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_page_is_whole_traced_and_loads_nothing(shelf: Shelf, scores: Artifact, language: str) -> None:
    report = make_report(shelf, scores, language=language)
    assert report.failures == []
    html = (report.path / "report.html").read_text()
    page = Page(html)
    assert len(set(page.ids)) == len(page.ids)
    assert {target for target in page.targets if target.startswith("#")} <= {f"#{id}" for id in page.ids}
    assert not [target for target in page.targets if not target.startswith("#")]
    assert "<script" not in html and html.count("http-equiv") == html.count('http-equiv="Content-Security-Policy') == 1
    text = " ".join(page.text)
    for key in ("background", "goal", "method", "results", "problems", "next", "sources"):
        assert Words(language)(key) in text
    for name in ("early", "late", "corpus/articles@v1", "evaluation/scores@v1"):
        assert name in text
    plots = sorted(path.name for path in (report.path / "plots").iterdir())
    assert plots == ["curves-early.svg", "curves-late.svg", "fates.svg", "metrics.svg", "slices-arithmetic.svg"]
    assert html.count("<svg") == len(plots)


def test_chinese_report_has_no_english_sentence(shelf: Shelf, scores: Artifact) -> None:
    report = make_report(shelf, scores, language="zh")
    html = re.sub(r"<(style|code)\b.*?</\1>", "", (report.path / "report.html").read_text(), flags=re.DOTALL)
    html = re.sub(r'<div class="(question|reply)">.*?</div>', "", html, flags=re.DOTALL)
    text = " ".join(Page(html).text)
    assert not re.findall(r"(?:[A-Za-z]+ ){4,}", text.replace("log-probability", ""))


@pytest.mark.parametrize("key", sorted(TEXT))
def test_both_languages_say_the_same_with_the_same_figures(key: str) -> None:
    english, chinese = TEXT[key]
    assert set(re.findall(r"\{\w+\}", english)) == set(re.findall(r"\{\w+\}", chinese))
    assert english and chinese
    if key not in ("metric", "col.n") and len(english) > 12:
        assert re.search(r"[一-鿿]", chinese) and not re.search(r"[一-鿿]", english)


def test_markdown_says_what_the_page_says(shelf: Shelf, scores: Artifact) -> None:
    report = make_report(shelf, scores)
    markdown = (report.path / "report.md").read_text()
    notes = re.findall(r"^\[\^(\d+)\]: `(.+)`$", markdown, flags=re.MULTILINE)
    assert [int(number) for number, _ in notes] == list(range(1, len(notes) + 1))
    used = set(re.findall(r"\[\^(\d+)\](?!:)", markdown))
    assert used <= {number for number, _ in notes}
    for link in re.findall(r"!\[.*?\]\((.+?)\)", markdown):
        assert (report.path / link).read_text().startswith("<?xml")
    tables = re.findall(r"(?:^\|.*\|[ ]*\n)+", markdown, flags=re.MULTILINE)
    assert len(tables) == 5
    for table in tables:
        widths = {len(re.findall(r"(?<!\\)\|", line)) for line in table.strip().splitlines()}
        assert len(widths) == 1, table
    html = (report.path / "report.html").read_text()
    figures = re.findall(r'class="figure" title="[^"]*">([^<]+)<', html)
    for figure in figures:
        plain = figure.replace("\xa0", " ").replace("&lt;", "<")
        assert plain in markdown.replace("\\", ""), plain


def test_equal_records_give_equal_bytes(shelf: Shelf, scores: Artifact) -> None:
    assert make_report(shelf, scores).content == make_report(shelf, scores).content


def test_right_replies_are_shown_and_every_figure_is_still_traced(
    shelf: Shelf, scores: Artifact, tmp_path: Path
) -> None:
    path = scores.path / "samples/late--arithmetic.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows[:3]:
        row["score"]["correct"], row["reply"] = 1.0, "a right reply"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    report = write_report(shelf.home, scores, tmp_path / "out")
    assert report.html.count("a right reply") == 2
    evidence = Evidence()
    judge_report(report, evidence)
    assert evidence.failures() == []


def test_hostile_replies_stay_text(shelf: Shelf, scores: Artifact, tmp_path: Path) -> None:
    path = scores.path / "samples/late--arithmetic.jsonl"
    evil = '<script>alert(1)</script> | `x` [a](http://evil) "quoted" <img src=x onerror=y>\n# heading'
    lines = path.read_text().splitlines()
    row = {"id": "evil", "prompt": [{"role": "user", "content": evil}], "reply": evil, "answer": "1"}
    path.unlink()
    append_line(path, {**row, "score": {"correct": 0.0}, "mean_logprob": -0.0001, "tokens": 1, "finish": "stop"})
    path.write_text(path.read_text() + "\n".join(lines) + "\n")
    report = write_report(shelf.home, scores, tmp_path / "out")
    assert "<script" not in report.html and "<img" not in report.html and "alert(1)" in report.html
    evidence = Evidence()
    judge_report(report, evidence)
    assert evidence.failures() == []
    markdown = (tmp_path / "out/report.md").read_text()
    assert (
        not re.search(r"(?<!\\)<(script|img)", markdown)
        and "\n# heading" not in markdown
        and "](http" not in markdown.replace("\\]", "")
    )


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("left_out", ["corpus", "tasks"])
def test_one_model_on_one_set_is_enough(shelf: Shelf, lived: dict[str, Artifact], left_out: str, language: str) -> None:
    config = {key: value for key, value in EVALUATION.items() if key != left_out} | {"models": ["late"]}
    roles = {"models.0": "late", "corpus": "articles", "tasks.0": "arithmetic"}
    parents = {role: lived[name] for role, name in roles.items() if not role.startswith(left_out)}
    scores = shelf.make(EvaluationKind(), "one", config, parents)
    assert scores.failures == []
    report = make_report(shelf, scores, language=language)
    assert report.failures == []
    Page((report.path / "report.html").read_text())


def test_choices_of_models_and_corpora_are_checked(shelf: Shelf, scores: Artifact, tmp_path: Path) -> None:
    report = write_report(shelf.home, scores, tmp_path / "out", "en", Wish(title="Only late", models=("late",)))
    assert report.title == "Only late" and "Training of early" not in report.html
    with pytest.raises(UsageError, match='no model "lat"\\. Did you mean "late"'):
        write_report(shelf.home, scores, tmp_path / "out", "en", Wish(models=("lat",)))
    with pytest.raises(UsageError, match='no report in "fr"'):
        write_report(shelf.home, scores, tmp_path / "out", "fr")


# ------------------------------------------------------------------------------------------------ seeded faults
def test_a_figure_without_a_known_artifact_is_caught(shelf: Shelf, scores: Artifact, tmp_path: Path) -> None:
    report = write_report(shelf.home, scores, tmp_path / "out")
    report.cards[0] = replace(report.cards[0], figure=Figure("0.99", "model/invented@v1"))
    evidence = Evidence()
    judge_report(report, evidence)
    assert [line.split(" ")[0] for line in evidence.failures()] == ["figures_traced"]


def test_a_page_that_loads_something_is_caught(shelf: Shelf, scores: Artifact, tmp_path: Path) -> None:
    report = write_report(shelf.home, scores, tmp_path / "out")
    report.html += '<img src="https://example.org/x.png">'
    evidence = Evidence()
    judge_report(report, evidence)
    assert [line.split(" ")[0] for line in evidence.failures()] == ["self_contained"]


def test_a_missing_ancestor_is_caught(shelf: Shelf, scores: Artifact, lived: dict[str, Artifact]) -> None:
    (lived["articles"].path / "record.json").unlink()
    report = make_report(shelf, scores)
    assert [line.split(" ")[0] for line in report.failures] == ["sources_found"]
    assert "corpus/articles@v1" in (report.path / "report.md").read_text()


# ------------------------------------------------------------------------------------------------ problems by rule
def kinds_of(facts: Facts) -> set[str]:
    return {problem.kind for problem in find_problems(facts)}


def test_every_rule_fires_on_its_fault_only(shelf: Shelf, scores: Artifact) -> None:
    facts = collect(shelf.home, scores)
    late = next(model for model in facts.models if model.name == "late")
    results = facts.results
    baselines = results["baselines"]
    for model in facts.models:
        model.metrics["accuracy/arithmetic"] = {"value": 0.8, "low": 0.77, "high": 0.83, "n": 700}
        model.details["arithmetic"].update(stopped=1.0, slices={})
        model.curves.clear()
    results["comparisons"] = [
        {"metric": "accuracy/arithmetic", "a": "early", "b": "late", "difference": 0.2, "p_adjusted": 0.001}
        | {"low": 0.1, "high": 0.3, "n": 700}
    ]
    assert kinds_of(facts) == set()
    late.details["arithmetic"]["stopped"] = 0.5
    assert kinds_of(facts) == {"endless"}
    late.details["arithmetic"]["stopped"] = 1.0
    late.metrics["accuracy/arithmetic"] = {"value": 0.8, "low": 0.7, "high": 0.86, "n": 90}
    assert kinds_of(facts) == {"small"}
    late.metrics["accuracy/arithmetic"] = {"value": 0.81, "low": 0.78, "high": 0.84, "n": 700}
    late.details["arithmetic"]["slices"] = {"add, 2 digits": {"value": 0.4, "low": 0.3, "high": 0.5, "n": 90}}
    assert kinds_of(facts) == {"slice"}
    late.details["arithmetic"]["slices"] = {}
    baselines["accuracy/arithmetic"]["value"] = 0.8
    assert kinds_of(facts) == {"baseline"}
    baselines["accuracy/arithmetic"]["value"] = 0.0
    results["comparisons"][0].update(p_adjusted=0.4)
    assert kinds_of(facts) == {"unsure"}
    results["comparisons"][0].update(p_adjusted=0.001, difference=-0.2)
    assert [(problem.kind, problem.grave) for problem in find_problems(facts)] == [("worse", True)]
    results["comparisons"][0].update(difference=0.2)
    late.curves["validation.bits_per_byte"] = [(0, 3.0), (1, 2.5), (2, 2.3)]
    assert kinds_of(facts) == {"unfinished"}
    late.curves.clear()
    results["overlap"].update(leaked=2, near=1)
    assert kinds_of(facts) == {"leaked", "near"}
    results["overlap"].update(leaked=0, near=0)
    facts.corpora[0].fates["filtered:too_short"] = facts.corpora[0].total
    assert kinds_of(facts) == {"dropped"}
    del facts.corpora[0].fates["filtered:too_short"]
    late.artifact.record["failures"] = ["finite is False"]
    assert kinds_of(facts) == {"failed"}
    late.artifact.record["accepted"] = {"reason": "a trial"}
    assert kinds_of(facts) == {"accepted"}
    for problem in find_problems(facts):
        assert f"problem.{problem.kind}" in TEXT and f"next.{problem.kind}" in TEXT


def test_compose_keeps_every_word_and_figure() -> None:
    figure = Figure("12", "task/x@v1")
    assert compose("from {n} to {n}, {name}.", {"n": figure, "name": "so"}) == [
        "from ",
        figure,
        " to ",
        figure,
        ", ",
        "so",
        ".",
    ]
    with pytest.raises(KeyError):
        compose("{missing}", {})


def test_all_figures_are_found(shelf: Shelf, scores: Artifact, tmp_path: Path) -> None:
    report = write_report(shelf.home, scores, tmp_path / "out")
    found = figures_of(report)
    assert len(found) == report.html.count('class="figure"') > 60
    assert {figure.source for figure in found} <= set(report.sources)
