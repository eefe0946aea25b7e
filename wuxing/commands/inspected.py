"""How `inspect` answers on a terminal: tables, bars, and a piece of a recipe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.text import Text

from wuxing.commands import show
from wuxing.core.amount import bytes_text
from wuxing.page.number import format_figure, format_share, short
from wuxing.page.text import cut, cut_middle, flat, visible

BARS = 12
BAR_COLUMNS = 40
EIGHTHS = " ▏▎▍▌▋▊▉█"
LEVELS = "▁▂▃▄▅▆▇█"
ROWS_SHOWN = 12


def print_inspection(found: dict[str, Any]) -> None:
    """An inspection, for people."""
    out = show.console()
    formats = ", ".join(f"{name} {count:,}" for name, count in found["formats"].items()) or "unknown"
    size = f" · {bytes_text(found['bytes'])}" if found["bytes"] else ""
    rows = f"{found['rows']:,} rows" if found["whole"] else f"the first {found['rows']:,} rows"
    out.print(Text.assemble((visible(found["source"]), "bold"), f"   {formats}{size} · {rows}"))
    if found["reading"]:
        reading = ", ".join(f"{name} ← {flat(value)}" for name, value in found["reading"].items())
        out.print(Text(f"read as: {visible(reading)}", "dim"))
    _columns(found)
    _records(found)
    _bars("length", found["lengths"], found["characters"])
    total = sum(found["languages"].values())
    _shares("language", found["languages"], total)
    _shares("label", found["labels"], sum(found["labels"].values()))
    _duplicates(found)
    _shares("private data", found["private"], 0)
    for step, measures in found["measures"].items():
        _measures(step, measures)
    _drops(found)
    for sample in found["samples"]:
        out.print(Text("  " + cut(flat(visible(str(_content(sample)))), 240), "dim"))
    for note in found["notes"]:
        out.print(Text(f"note: {note}", "yellow"))
    out.print(Text("\nto paste under a step with `make: corpus`:", "bold"))
    out.print(Text(found["suggestion"]))


def _content(sample: Mapping[str, Any]) -> Any:
    return sample.get("text") or sample.get("messages") or sample


def _columns(found: dict[str, Any]) -> None:
    rows = []
    for name, column in list(found["columns"].items())[: 2 * ROWS_SHOWN]:
        types = ", ".join(f"{kind} {count:,}" for kind, count in column["types"].items())
        rows.append((visible(name), types, f"{column['missing']:,}", format_share(column["missing"], found["rows"])))
    show.table(("field", "types", "missing", "share"), rows, right=("missing", "share"))


def _records(found: dict[str, Any]) -> None:
    rows = []
    for kind, count in found["records"].items():
        places = found["not_read"].get(kind.removeprefix("not read: "), []) if kind.startswith("not read") else []
        example = f"{visible(cut_middle(places[0]['place'], 60))}: {visible(places[0]['detail'])}" if places else ""
        rows.append((kind, f"{count:,}", format_share(count, found["rows"]), example))
    show.table(("records", "rows", "share", "example"), rows, right=("rows", "share"))


def _bars(label: str, histogram: Mapping[str, Any], characters: Mapping[str, int]) -> None:
    """A histogram as rows of blocks, its bins joined to a dozen."""
    if not histogram:
        return
    unit = "characters" if characters else "bytes"
    rows = []
    for low, high, count in _joined(histogram, BARS):
        rows.append((f"{short(_rounded(low))} – {short(_rounded(high))}", _bar(count, _most(histogram)), f"{count:,}"))
    show.table((f"{label} ({unit})", "", "records"), rows, right=("records",))
    q = histogram["quantiles"]
    named = {
        "least": histogram["min"],
        "5 %": q["0.05"],
        "median": q["0.5"],
        "95 %": q["0.95"],
        "most": histogram["max"],
    }
    show.console().print(Text("  " + "   ".join(f"{name} {value:,.0f}" for name, value in named.items()), "dim"))


def _rounded(value: float) -> float:
    return float(f"{value:.2g}")


def _most(histogram: Mapping[str, Any]) -> int:
    return max((count for *_, count in _joined(histogram, BARS)), default=1)


def _joined(histogram: Mapping[str, Any], most: int) -> list[tuple[float, float, int]]:
    """(low, high, count) of neighbouring bins joined to at most `most` rows."""
    edges, counts = histogram["edges"], histogram["counts"]
    step = -(-len(counts) // most) if counts else 1
    return [
        (edges[at], edges[min(at + step, len(counts))], sum(counts[at : at + step]))
        for at in range(0, len(counts), step)
    ]


def _bar(value: float, most: float) -> str:
    eighths = round(8 * BAR_COLUMNS * value / (most or 1))
    if value and not eighths:
        eighths = 1
    whole, rest = divmod(eighths, 8)
    return "█" * whole + (EIGHTHS[rest] if rest else "")


def _shares(label: str, counts: Mapping[str, int], total: int) -> None:
    if not counts:
        return
    most = max(counts.values())
    items: Sequence[tuple[str, int]] = list(counts.items())
    rows = [
        (visible(str(name)), _bar(n, most), f"{n:,}", format_share(n, total) if total else "")
        for name, n in items[:ROWS_SHOWN]
    ]
    if len(items) > ROWS_SHOWN:
        rest = sum(count for _, count in items[ROWS_SHOWN:])
        rows.append((f"{len(items) - ROWS_SHOWN} others", "", f"{rest:,}", format_share(rest, total) if total else ""))
    show.table((label, "", "count", "share"), rows, right=("count", "share"))


def _duplicates(found: dict[str, Any]) -> None:
    said = {"equal": "records equal to an earlier one", "near": "documents nearly equal to an earlier one"}
    rows = [(said[name], f"{100 * share:.2f} %") for name, share in found["duplicates"].items()]
    show.table(("duplicates", "share"), rows, right=("share",))


def _measures(step: str, measures: Mapping[str, Mapping[str, Any]]) -> None:
    """One line per statistic: its course in small, and where most values lie."""
    rows = []
    for name, histogram in measures.items():
        if histogram["max"] == histogram["min"]:
            continue
        counts = [count for *_, count in _joined(histogram, 20)]
        most = max(counts)
        line = "".join(LEVELS[min(7, -(-8 * count // most) - 1)] if count else " " for count in counts)
        q = histogram["quantiles"]
        values = (histogram["min"], q["0.05"], q["0.5"], q["0.95"], histogram["max"])
        rows.append((name.replace("_", " "), line, *map(format_figure, values)))
    columns = (f"{step}: statistic", "", "least", "5 %", "median", "95 %", "most")
    show.table(columns, rows, right=columns[2:])


def _drops(found: dict[str, Any]) -> None:
    rows = []
    read = sum(count for kind, count in found["records"].items() if not kind.startswith("not read"))
    for reason, count in found["would_drop"].items():
        example = found["would_drop_examples"][reason]
        text = cut(flat(visible(example["text"])), 70)
        rows.append((reason, f"{count:,}", format_share(count, read), f"[{visible(example['detail'])}] {text}"))
    show.table(("defaults would drop", "records", "share", "example"), rows, right=("records", "share"))
