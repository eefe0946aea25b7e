"""How measures, their differences and intervals are printed, the same in every language."""

from __future__ import annotations

from wuxing.page.number import MINUS, format_percent


def format_value(metric: str, value: float) -> str:
    """Shares as percent, bits with three digits."""
    return format_percent(value) if metric.startswith("accuracy") else f"{value:.3f}"


def format_difference(metric: str, value: float) -> str:
    """With its sign; shares in percentage points."""
    text = f"{100 * value:+.1f} pp" if metric.startswith("accuracy") else f"{value:+.3f}"
    return text.replace("-", MINUS)


def format_interval(metric: str, low: float, high: float, signed: bool = False) -> str:
    """[57.0, 65.3] % or [1.912, 1.954]."""
    sign = "+" if signed else ""
    if metric.startswith("accuracy"):
        unit = "pp" if signed else "%"
        return f"[{100 * low:{sign}.1f}, {100 * high:{sign}.1f}] {unit}".replace("-", MINUS)
    return f"[{low:{sign}.3f}, {high:{sign}.3f}]".replace("-", MINUS)


def format_p(p: float, said: bool = False) -> str:
    """`< 0.001` or `0.020`; `said`, to stand after the letter p: `< 0.001` or `= 0.020`."""
    return "< 0.001" if p < 0.001 else f"{'= ' if said else ''}{p:.3f}"


def format_minutes(seconds: float) -> str:
    return f"{seconds / 60:.1f}"
