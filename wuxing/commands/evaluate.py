"""Verbs of phase three: compare, report."""

from __future__ import annotations

import typer


def register(app: typer.Typer) -> None:
    """Add these verbs to the command."""
