"""Which plots a report shows, and what they are drawn from."""

from __future__ import annotations

from wuxing.evaluate.fact import Facts, ModelFacts
from wuxing.evaluate.string import Words
from wuxing.page.block import Plot
from wuxing.page.chart import Course, Intervals, draw_intervals, draw_lines
from wuxing.page.plot import draw_shares

MARKED = 60
"""A course of fewer points is drawn with dots: they are measurements, not steps."""
FATES_DRAWN = 5
COURSES = {
    "next_token": {"loss": "loss", "bits": "validation.bits_per_byte"},
    "masked": {"loss": "loss", "masked_bits": "validation.masked_bits_per_byte"},
    "classify": {"loss": "loss", "accuracy": "validation.accuracy"},
    "grpo": {"reward": "reward", "accuracy": "validation.accuracy"},
}
"""What is drawn of a training log, by objective."""


def plot_metrics(facts: Facts, words: Words) -> Plot:
    """Every model's value and interval, one panel per measure."""
    panels = []
    for metric, baseline in facts.results["baselines"].items():
        rows = [
            (model.name, value["value"], value["low"], value["high"])
            for model in facts.models
            if (value := model.metrics.get(metric)) is not None
        ]
        percent = metric.startswith("accuracy")
        if rows:
            values = [(value, low, high) for _, value, low, high in rows]
            panels.append(
                Intervals(
                    title=words.metric(metric),
                    rows=[name for name, *_ in rows],
                    series=[("", values)],
                    baseline=baseline["value"],
                    percent=percent,
                    by_row=True,
                )
            )
    caption = words("plot.metrics")
    return Plot("metrics", caption, [facts.evaluation.id], draw_intervals(caption, panels))


def plot_curves(model: ModelFacts, words: Words) -> Plot | None:
    """Loss and bits per byte over the tokens seen, or reward and accuracy over the steps of reinforcement learning."""
    panels: list[Course] = []
    for axis, name in COURSES[model.objective if model.objective in COURSES else "next_token"].items():
        points = model.curves.get(name, [])
        if len(points) > 1:
            panels.append(
                Course(words(f"axis.{axis}"), [("", points)], marks=len(points) < MARKED, percent=axis == "accuracy")
            )
    if not panels:
        return None
    caption = words("plot.curves").replace("{model}", model.name)
    label = words("axis.tokens" if model.by_tokens else "axis.steps")
    return Plot(f"curves-{model.name}", caption, [model.artifact.id], draw_lines(caption, panels, label))


def plot_fates(facts: Facts, words: Words) -> Plot | None:
    """Shares of the raw records of each corpus by fate; the fates that are rare in all of them are drawn together."""
    drawn = [c for c in facts.corpora if c.artifact.kind == "corpus" and c.total]
    shares = [{fate: count / corpus.total for fate, count in corpus.fates.items()} for corpus in drawn]
    largest = sorted({f for found in shares for f in found}, key=lambda f: (-max(x.get(f, 0.0) for x in shares), f))
    named = largest[:FATES_DRAWN]
    bars = []
    for corpus, found in zip(drawn, shares, strict=True):
        parts = [(words.fate(fate), found.get(fate, 0.0)) for fate in named]
        rest = sum(share for fate, share in found.items() if fate not in named)
        parts += [(words("fate.other"), rest)] if len(largest) > FATES_DRAWN else []
        bars.append((corpus.artifact.name, parts))
    sources = [corpus.artifact.id for corpus in drawn]
    if not bars:
        return None
    caption = words("plot.fates")
    return Plot("fates", caption, sources, draw_shares(caption, bars, words("axis.share")))


def plot_slices(facts: Facts, metric: str, words: Words) -> Plot | None:
    """Accuracy of every model on each part of a task."""
    task = metric.partition("/")[2]
    found = {model.name: model.details.get(task, {}).get("slices", {}) for model in facts.models}
    names = sorted({part for slices in found.values() for part in slices})
    if len(names) < 2:
        return None
    series = [
        (model, [(slices[part]["value"], slices[part]["low"], slices[part]["high"]) for part in names])
        for model, slices in found.items()
        if set(names) <= set(slices)
    ]
    caption = words("plot.slices").replace("{task}", task)
    panel = Intervals("", [words.part(name) for name in names], series, percent=True, span=(-0.02, 1.02))
    return Plot(f"slices-{task}", caption, [facts.evaluation.id], draw_intervals(caption, [panel]))
