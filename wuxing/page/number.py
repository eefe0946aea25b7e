"""How numbers are printed, the same in every language."""

from __future__ import annotations

import math

MINUS = "−"


def format_count(value: float) -> str:
    """12,345; millions and more in three digits: 1.23 M."""
    for size, unit in ((1e9, "G"), (1e6, "M")):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{round(value):,}"


def format_percent(share: float, digits: int = 1) -> str:
    return f"{100 * share:.{digits}f} %"


def format_share(part: float, whole: float) -> str:
    """As percent; what is there is never printed as 0, what is not all never as 100 %."""
    if not whole:
        return "–"
    share = part / whole
    if 0 < share < 0.0005:
        return "< 0.1 %"
    if 0.9995 <= share < 1:
        return "> 99.9 %"
    return format_percent(share)


def format_figure(value: float) -> str:
    """A measured number of any size in three or four digits."""
    if value == int(value) and abs(value) < 1e6:
        return f"{int(value):,}".replace("-", MINUS)
    if abs(value) >= 1e6:
        return format_count(value) if value > 0 else MINUS + format_count(-value)
    if abs(value) >= 100:
        return f"{value:,.1f}".replace("-", MINUS)
    return f"{value:.3g}".replace("-", MINUS)


def short(value: float) -> str:
    """For the ticks of an axis: 1.5k, 20M."""
    for size, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size * (1 - 1e-9):
            return f"{value / size:g}{unit}".replace("-", MINUS)
    if value and abs(value) < 1e-3:
        return f"{value:.0e}".replace("e-0", "e-").replace("-", MINUS)
    return f"{value:.6g}".replace("-", MINUS)


def percent_tick(value: float) -> str:
    """For the ticks of an axis of shares."""
    return f"{100 * value:g}%"


def nice_ticks(low: float, high: float, most: int = 6) -> list[float]:
    """At most `most` round numbers between the bounds, in steps of 1, 2, 2.5 or 5 times a power of ten."""
    if not high > low:
        return [low]
    rough = (high - low) / max(1, most - 1)
    power = 10.0 ** math.floor(math.log10(rough))
    for step in (power * factor for factor in (1, 2, 2.5, 5, 10)):
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        if last - first + 1 <= most:
            return [round(n * step, 12) for n in range(first, last + 1)]
    return [low, high]


def log_ticks(low: float, high: float, most: int = 7) -> list[float]:
    """Powers of ten between the bounds, with twos and fives where there are few."""
    first, last = math.floor(math.log10(low) + 1e-9), math.ceil(math.log10(high) - 1e-9)
    powers = [10.0**n for n in range(first, last + 1) if low * 0.999 <= 10.0**n <= high * 1.001]
    if len(powers) > most:
        return powers[:: -(-len(powers) // most)]
    for factors in ((1, 2, 5), (1, 3)):
        ticks = [
            f * 10.0**n for n in range(first, last + 1) for f in factors if low * 0.999 <= f * 10.0**n <= high * 1.001
        ]
        if len(ticks) <= most:
            return ticks
    return powers or [low, high]
