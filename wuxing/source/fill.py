"""Values for missing fields that are learned from the rows which have them: `fill: {age: {mode: median}}`.

A first pass over all rows of the source; the values found are constants from then on, and stand on the corpus card.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Mapping
from typing import Any

from wuxing.core.context import Context
from wuxing.core.error import WuxingError
from wuxing.source.config import SourceConfig
from wuxing.source.fields import field_of
from wuxing.source.format_config import Fill

MOST_DIFFERENT = 1_000_000
"""Different values that are counted for `most_frequent`."""


def settled(source: SourceConfig, context: Context) -> tuple[SourceConfig, dict[str, Any]]:
    """The source with constants in place of `{mode: ...}`, and these constants, for the card.

    Raises WuxingError where no row has a value, or a mean is asked of what is no number.
    """
    modes = {name: fill.mode for name, fill in source.fill.items() if isinstance(fill, Fill)}
    if not modes:
        return source, {}
    from wuxing.source import rows_in

    numbers: dict[str, list[float]] = {name: [] for name, mode in modes.items() if mode != "most_frequent"}
    counts: dict[str, Counter[str]] = {name: Counter() for name, mode in modes.items() if mode == "most_frequent"}
    for row in rows_in(source, context):
        if isinstance(row.value, Mapping):
            for name in modes:
                _note(name, row.place, field_of(row.value, name), numbers, counts, source)
    found = {name: _value(name, mode, numbers, counts, source) for name, mode in modes.items()}
    return source.model_copy(update={"fill": {**source.fill, **found}}), found


def _note(
    name: str,
    place: str,
    value: Any,
    numbers: dict[str, list[float]],
    counts: dict[str, Counter[str]],
    source: SourceConfig,
) -> None:
    if value is None:
        return
    if name in counts:
        counts[name][str(value)] += 1
        if len(counts[name]) > MOST_DIFFERENT:
            raise WuxingError(
                f"{source.label}: {name} has more than {MOST_DIFFERENT:,} different values, so none is frequent",
                f"Give fill.{name} a constant",
            )
        return
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise WuxingError(
            f'{source.label}: row {place} has "{str(value)[:40]}" in {name}, which is no number',
            f"Write fill: {{{name}: {{mode: most_frequent}}}}, or give it a constant",
        )
    numbers[name].append(number)


def _value(
    name: str, mode: str, numbers: dict[str, list[float]], counts: dict[str, Counter[str]], source: SourceConfig
) -> float | int | str:
    if not (numbers[name] if name in numbers else counts[name]):
        raise WuxingError(f"{source.label}: no row has a {name} to fill in", f"Give fill.{name} a constant")
    if mode == "most_frequent":
        return min(counts[name].items(), key=lambda item: (-item[1], item[0]))[0]
    # fsum: the same whatever the order of the rows
    value = math.fsum(numbers[name]) / len(numbers[name]) if mode == "mean" else statistics.median(numbers[name])
    return int(value) if value.is_integer() else value
