"""How amounts of memory and disk are written, everywhere: in powers of ten, as disks, links and data sheets are."""

from __future__ import annotations

UNITS = ("B", "kB", "MB", "GB", "TB")


def bytes_text(count: float) -> str:
    """Three digits: `512 B`, `12.3 MB`, `1.46 GB`."""
    unit = 0
    while unit + 1 < len(UNITS) and abs(count) >= (1000 if unit == 0 else 999.5):
        count, unit = count / 1000, unit + 1
    size = abs(count)
    digits = 0 if unit == 0 or size >= 99.95 else 1 if size >= 9.995 else 2
    return f"{count:,.{digits}f} {UNITS[unit]}"
