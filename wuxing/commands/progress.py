"""How a run in progress is shown in a terminal."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from wuxing.core.amount import bytes_text

if TYPE_CHECKING:
    from collections.abc import Callable

    from wuxing.train.watch.view import View

STYLE = {"running": "green", "stopped": "yellow", "finished": "cyan"}


def dashboard(view: View) -> Any:
    """One screen: where it stands, and the course of the loss."""
    from rich.console import Group
    from rich.panel import Panel
    from rich.text import Text

    from wuxing.commands import show
    from wuxing.train.watch.page import clock
    from wuxing.train.watch.view import braille

    share = "" if view.utilisation is None else f"  {view.utilisation:.0%} of the products' rate"
    done = view.step / max(1, view.steps)
    width = 40
    bar = "━" * round(done * width)
    left = "" if view.left is None else f"  {clock(view.left[0])} – {clock(view.left[1])} left"
    lines = [
        Text.assemble((bar, "green"), ("━" * (width - len(bar)), "dim"), f" {view.step:,} of {view.steps:,}{left}"),
        Text(f"{view.tokens_per_second:,.0f} tokens/s{share}  {view.waited:.1%} waiting for data"),
    ]
    if view.limit:
        lines.append(Text(f"limited by {view.limit}", "dim"))
    last = view.last
    if last:
        memory = bytes_text(last.get("memory_bytes", 0))
        lines.append(
            Text(
                f"loss {last['loss']:.4f}  learning rate {last['learning_rate']:.3g}  "
                f"gradient norm {last['gradient_norm']:.3g}  memory {memory}"
            )
        )
    if view.measured:
        step, value = view.measured[-1]
        first = view.measured[0][1]
        lines.append(Text(f"{view.metric.replace('_', ' ')} {value:.4f} at step {step:,}, {first:.4f} at the start"))
    shares = {name.removeprefix("share/"): value for name, value in last.items() if name.startswith("share/")}
    if shares:
        lines.append(Text("shares " + "  ".join(f"{name} {share:.0%}" for name, share in shares.items())))
    points = view.curves.get("loss", [])
    if len(points) > 1:
        lines.append(Text())
        plot = braille([(float(x), y) for x, y in points], 60, 8)
        high, low = max(y for _, y in points), min(y for _, y in points)
        for number, row in enumerate(plot):
            label = f"{high:8.3g} " if number == 0 else f"{low:8.3g} " if number == len(plot) - 1 else " " * 9
            lines.append(Text.assemble((label, "dim"), (row, "blue")))
        lines.append(Text(f"{'':9}loss, step {points[0][0]:,} to {points[-1][0]:,}", "dim"))
    lines += _events(view)
    title = Text.assemble((view.name, "bold"), "  ", (view.state, STYLE[view.state]))
    return Panel(Group(*lines), title=title, title_align="left", width=min(100, show.console().width))


def _events(view: View) -> list[Any]:
    """What happened to it: processes lost, leaps of the loss, knobs."""
    from rich.text import Text

    lines = []
    for lost in view.lost[-3:]:
        after = (
            f"{lost['processes']} processes went on after step {lost['step']:,}"
            if lost["step"] is not None
            else "all processes start anew"
            if lost["replaced"]
            else "the same command goes on from the last save"
        )
        lines.append(Text(f"{lost['who']}: {after}", "red"))
    if len(view.lost) > 3:
        lines.append(Text(f"{len(view.lost)} losses of processes in all", "red"))
    for leap in view.leaps[-3:]:
        lines.append(Text(f"the loss leapt at step {leap['step']:,}: {', '.join(leap['records'][:3])}", "yellow"))
    for knob in view.adjustments[-3:]:
        lines.append(
            Text(f"{knob['knob']} {knob['value']:g} from step {knob['step'] + 1:,} on ({knob['why']})", "cyan")
        )
    return lines


def watch(look: Callable[[], View], page: Path | None, language: str, live: bool) -> View:
    """Show the run, again and again while it runs and `live` is asked for; the page is written as often."""
    import time

    from rich.live import Live

    from wuxing.commands import show
    from wuxing.core.file import write_text
    from wuxing.train.watch.page import run_page

    def write(view: View) -> None:
        if page is not None:
            write_text(page, run_page(view, language, renew=live))

    view = look()
    write(view)
    if not live or view.state != "running":
        show.console().print(dashboard(view))
        return view
    with Live(dashboard(view), console=show.console(), auto_refresh=False) as screen:
        while view.state == "running":
            time.sleep(2)
            view = look()
            write(view)
            screen.update(dashboard(view), refresh=True)
    return view
