"""A watch drawn for the terminal."""

from __future__ import annotations

from rich.console import RenderableType

from wuxing.monitor.watch import Watch


def render(watch: Watch) -> RenderableType:
    """Tables and sparklines; `rich.live.Live` may show a new one every few seconds."""
    raise NotImplementedError
