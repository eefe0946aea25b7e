"""A watch drawn for the terminal."""

from __future__ import annotations

from rich import box
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from wuxing.monitor.drift import Distance, Drift
from wuxing.monitor.watch import Latency, Watch

BARS = " ▁▂▃▄▅▆▇█"
COLOURS = {"steady": "green", "drifted": "red", "too_few": "yellow"}
WORDS = {"steady": "steady", "drifted": "DRIFTED", "too_few": "too few answers"}


def render(watch: Watch) -> RenderableType:
    """Tables and sparklines; `rich.live.Live` may show a new one every few seconds."""
    if not watch.requests:
        place = f" since {watch.since}" if watch.since else ""
        return Panel(f"No answers of {watch.release} have been kept{place}.", title=watch.release, box=box.ROUNDED)
    title = Text.assemble(
        (watch.release, "bold"), "  drift: ", (WORDS[watch.verdict], f"bold {COLOURS[watch.verdict]}")
    )
    return Panel(Group(_traffic(watch), Text(""), _drift(watch)), title=title, box=box.ROUNDED, padding=(1, 2))


def sparkline(values: list[int]) -> str:
    """One bar a value, the highest as high as a line; a small value is never shown as none."""
    top = max(values, default=0)
    steps = len(BARS) - 1
    return "".join(BARS[-(-value * steps // top)] if top else BARS[0] for value in values)


def _traffic(watch: Watch) -> Table:
    table = Table.grid(padding=(0, 3))
    table.add_column(style="dim")
    table.add_column()
    table.add_column(style="dim")
    table.add_column()
    table.add_row("answers", f"{watch.requests:,}", "first token", _latency(watch.first_token))
    tokens = f"{watch.tokens_in:,} in, {watch.tokens_out:,} out"
    table.add_row("tokens", tokens, "whole answer", _latency(watch.total))
    table.add_row("ended", _counts(watch.finishes), "speed", _speed(watch.tokens_per_second))
    thumbs = f"{watch.thumbs['up']} up, {watch.thumbs['down']} down, {watch.comments} with a comment"
    table.add_row("thumbs", thumbs, "version", _counts(watch.artifacts))
    hours = watch.hours[-48:]
    table.add_row("per hour", sparkline([hour.requests for hour in hours]), "hours", f"{len(hours)}, newest last")
    deployment = watch.last_deployment
    if deployment:
        refused = f"refused: {deployment['failures'][0]}" if deployment["failures"] else "evidence complete"
        table.add_row("deployed", deployment["time"][:19] + "Z", "", refused)
    return table


def _drift(watch: Watch) -> RenderableType:
    if not watch.drift:
        return Text("No reference window: this release carries no signals of an evaluation.", style="yellow")
    table = Table(box=box.SIMPLE_HEAD, title=f"against the evaluation of {watch.reference}", title_style="dim")
    table.add_column("signal")
    for name in ("then", "now", "PSI", "KS", "shift (sd)", "samples"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    for one in watch.drift:
        table.add_row(*_drift_row(one))
    notes = ["value/threshold: a threshold is an effect size, raised where few samples could pass it by chance"]
    if watch.other_settings:
        notes.append(f"{watch.other_settings} replies drawn with other settings than the reference are not compared")
    return Group(table, Text("\n".join(notes), style="dim"))


def _drift_row(one: Drift) -> list[RenderableType]:
    means = [f"{mean:.4g}" if mean is not None else "–" for mean in (one.reference_mean, one.mean)]
    distances = [_distance(distance) for distance in (one.psi, one.ks, one.shift)]
    samples = f"{one.reference_samples}/{one.samples}"
    verdict = Text(WORDS[one.verdict], style=COLOURS[one.verdict])
    return [one.signal, *means, *distances, samples, verdict]


def _distance(distance: Distance | None) -> Text:
    if distance is None:
        return Text("–")
    text = f"{distance.value:.2f}/{distance.threshold:.2f}"
    return Text(text, style="bold red" if distance.alarms else "")


def _latency(latency: Latency | None) -> str:
    if latency is None:
        return "–"
    return f"p50 {_seconds(latency.p50)}  p90 {_seconds(latency.p90)}  p99 {_seconds(latency.p99)}"


def _seconds(seconds: float) -> str:
    return f"{1000 * seconds:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


def _speed(rate: float | None) -> str:
    return "–" if rate is None else f"{rate:.0f} tokens/s (median)"


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items())
