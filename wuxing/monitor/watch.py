"""`watch`: what a release was asked and answered, how fast, and whether it still looks like its evaluation."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from wuxing.core.exchange import Exchange, ExchangeLog, now
from wuxing.core.file import read_json, read_lines
from wuxing.monitor.drift import Drift, Verdict, judge_drift

SIGNALS = ("prompt_tokens", "reply_tokens", "mean_logprob")
"""What drift is judged on, where the reference has it."""
SAMPLED = ("reply_tokens", "mean_logprob")
"""Those that depend on how tokens were drawn: only answers drawn as the reference was can be compared with it."""
MOST_HOURS = 72


@dataclass(frozen=True)
class Latency:
    """Percentiles in seconds."""

    p50: float
    p90: float
    p99: float

    @classmethod
    def of(cls, seconds: list[float]) -> Latency | None:
        """Linear between the nearest samples; None of no samples."""
        if not seconds:
            return None
        p50, p90, p99 = np.percentile(seconds, [50, 90, 99]).tolist()
        return cls(p50, p90, p99)


@dataclass(frozen=True)
class Hour:
    """The traffic of one hour, which may be none."""

    start: str
    requests: int
    tokens_in: int
    tokens_out: int


@dataclass(frozen=True)
class Watch:
    """Traffic, latency, thumbs and drift of one release name."""

    release: str
    time: str
    since: str | None
    requests: int
    tokens_in: int
    tokens_out: int
    artifacts: dict[str, int]
    """Answers by the version that gave them."""
    finishes: dict[str, int]
    keys: dict[str, int]
    hours: list[Hour]
    """Every hour from the first request to the last, at most the last 72."""
    first_token: Latency | None
    total: Latency | None
    tokens_per_second: float | None
    """Median over the answers."""
    thumbs: dict[str, int]
    comments: int
    last_deployment: dict[str, Any] | None
    reference: str
    """The model whose evaluation is the reference window."""
    drift: list[Drift]
    other_settings: int
    """Answers drawn at another temperature or top_p than the reference: their replies are not compared with it."""
    verdict: Verdict

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def watch(
    home: Path,
    release_name: str,
    reference: dict[str, Any],
    since: datetime | None = None,
    artifact: str | None = None,
) -> Watch:
    """Read the exchanges of `release_name` and judge them against `reference`: a release's `reference.json`, that is
    one entry {"model", "signals", "settings"}, or such entries by model name of which there is one.

    `since`: only those at or after this time (UTC where it has no zone); `artifact`: only the answers of this version,
    which a reference of its own belongs to.  Answers that were cancelled count as traffic, never for drift.
    """
    log = ExchangeLog(home, release_name)
    if since is not None and since.tzinfo is None:
        since = since.replace(tzinfo=UTC)
    exchanges = [e for e in _since(log, since) if artifact is None or e.artifact == artifact]
    exchanges.sort(key=lambda exchange: exchange.time)
    judged = log.judgements()
    judgements = [judged[e.id] for e in exchanges if e.id in judged]
    reference = _window(reference)
    whole = [e for e in exchanges if e.finish != "cancelled"]
    alike = [e for e in whole if _drawn_alike(e, reference)]
    drift = _drift(reference, whole, alike)
    return Watch(
        release_name,
        now(),
        since.isoformat() if since else None,
        len(exchanges),
        int(sum(e.signals["prompt_tokens"] for e in exchanges)),
        int(sum(e.signals["reply_tokens"] for e in exchanges)),
        _count(e.artifact for e in exchanges),
        _count(e.finish for e in exchanges),
        _count(e.key for e in exchanges),
        _hours(exchanges),
        Latency.of([e.signals["seconds_to_first_token"] for e in exchanges]),
        Latency.of([e.signals["seconds"] for e in exchanges]),
        _speed(exchanges),
        {thumb: sum(j.thumb == thumb for j in judgements) for thumb in ("up", "down")},
        sum(bool(j.comment) for j in judgements),
        _last_deployment(home, release_name),
        str(reference.get("model", "")),
        drift,
        len(whole) - len(alike),
        _overall(drift),
    )


def _since(log: ExchangeLog, since: datetime | None) -> Iterator[Exchange]:
    """The exchanges from `since` on; files of earlier days are not opened."""
    if since is None:
        yield from log.exchanges()
        return
    start = since.astimezone(UTC)
    for path in log.files():
        if path.name.split("-")[0] >= start.strftime("%Y%m%d"):
            lines = (Exchange(**line) for line in read_lines(path))
            yield from (exchange for exchange in lines if datetime.fromisoformat(exchange.time) >= start)


def _window(reference: dict[str, Any]) -> dict[str, Any]:
    """The one entry of a reference that is kept by model name; the reference itself otherwise."""
    if "signals" not in reference and len(reference) == 1:
        (entry,) = reference.values()
        return dict(entry)
    return reference


def _drawn_alike(exchange: Exchange, reference: dict[str, Any]) -> bool:
    settings = reference.get("settings", {})
    return all(exchange.settings.get(name) == settings[name] for name in ("temperature", "top_p") if name in settings)


def _drift(reference: dict[str, Any], whole: list[Exchange], alike: list[Exchange]) -> list[Drift]:
    known, longest = reference.get("signals", {}), reference.get("settings", {}).get("max_tokens", math.inf)
    drift = []
    for name in SIGNALS:
        if name in known:
            values = [e.signals[name] for e in (alike if name in SAMPLED else whole)]
            if name == "reply_tokens":  # the reference's replies were cut here, so live ones are counted up to here
                values = [min(value, longest) for value in values]
            drift.append(judge_drift(name, known[name], values))
    return drift


def _overall(drift: list[Drift]) -> Verdict:
    verdicts = {one.verdict for one in drift}
    if "drifted" in verdicts:
        return "drifted"
    return "steady" if "steady" in verdicts else "too_few"


def _count(values: Iterable[str]) -> dict[str, int]:
    return dict(Counter(values).most_common())


def _hours(exchanges: list[Exchange]) -> list[Hour]:
    if not exchanges:
        return []
    table: dict[datetime, list[int]] = {}
    for exchange in exchanges:
        row = table.setdefault(_hour(exchange.time), [0, 0, 0])
        row[0] += 1
        row[1] += int(exchange.signals["prompt_tokens"])
        row[2] += int(exchange.signals["reply_tokens"])
    last = max(table)
    first = max(min(table), last - timedelta(hours=MOST_HOURS - 1))
    count = int((last - first).total_seconds() // 3600) + 1
    starts = [first + timedelta(hours=n) for n in range(count)]
    return [Hour(start.isoformat(), *table.get(start, [0, 0, 0])) for start in starts]


def _hour(time: str) -> datetime:
    return datetime.fromisoformat(time).astimezone(UTC).replace(minute=0, second=0, microsecond=0)


def _speed(exchanges: list[Exchange]) -> float | None:
    rates = [
        (e.signals["reply_tokens"] - 1) / seconds
        for e in exchanges
        if (seconds := e.signals["seconds"] - e.signals["seconds_to_first_token"]) > 0 and e.signals["reply_tokens"] > 1
    ]
    return float(np.median(rates)) if rates else None


def _last_deployment(home: Path, release_name: str) -> dict[str, Any] | None:
    """The newest `deployment.json` of this release name."""
    found = sorted((home / "deployments" / release_name).glob("*/deployment.json"))
    return dict(read_json(found[-1])) if found else None
