"""The watch over exchange files, written here as a server writes them."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

import pytest
from rich.console import Console

from wuxing.core.error import WuxingError
from wuxing.core.exchange import Exchange, ExchangeLog, Judgement
from wuxing.core.file import write_json
from wuxing.monitor.feedback import judged
from wuxing.monitor.show import render, sparkline
from wuxing.monitor.watch import Watch, watch

NOON = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


def exchange(n: int, minutes: float = 0, finish: str = "stop", tokens: float = 10, artifact: int = 1) -> Exchange:
    random = Random(n)
    return Exchange(
        f"chatcmpl-{n}",
        (NOON + timedelta(minutes=minutes)).isoformat(timespec="microseconds"),
        f"release/tiny@v{artifact}",
        "c",
        "t",
        [{"role": "user", "content": f"question {n}"}],
        f"answer {n}",
        finish,
        {"temperature": 0.0, "top_p": 1.0},
        {
            "prompt_tokens": tokens,
            "reply_tokens": 11.0,
            "mean_logprob": random.gauss(-1, 0.3),
            "seconds_to_first_token": 0.1 + n / 1000,
            "seconds": 1.1 + n / 1000,
        },
        "first",
    )


def reference(seed: int, mean: float = -1.0) -> dict[str, object]:
    random = Random(seed)
    logprobs = [random.gauss(mean, 0.3) for _ in range(200)]
    return {"model": "solver", "signals": {"mean_logprob": logprobs, "prompt_tokens": [10.0] * 200}}


@pytest.fixture
def log(tmp_path: Path) -> ExchangeLog:
    return ExchangeLog(tmp_path, "tiny")


def test_traffic_latency_and_thumbs(log: ExchangeLog) -> None:
    for n in range(101):
        log.write(exchange(n, minutes=n, finish="length" if n < 5 else "cancelled" if n < 7 else "stop"))
    log.judge(Judgement("chatcmpl-1", "down", "2026-11-22T13:00:00+00:00"))
    log.judge(Judgement("chatcmpl-1", "up", "2026-11-22T13:01:00+00:00", "better on a second look"))
    log.judge(Judgement("chatcmpl-2", "down", "2026-11-22T13:00:00+00:00"))
    log.judge(Judgement("chatcmpl-of-another-life", "down", "2026-11-22T13:00:00+00:00"))
    seen = watch(log.home, "tiny", reference(99))
    assert (seen.requests, seen.tokens_in, seen.tokens_out) == (101, 1010, 1111)
    assert [hour.requests for hour in seen.hours] == [60, 41]
    assert seen.first_token is not None and seen.total is not None
    assert seen.first_token.p50 == pytest.approx(0.15)
    assert seen.total.p99 == pytest.approx(1.199)
    assert seen.finishes == {"stop": 94, "length": 5, "cancelled": 2}
    assert seen.thumbs == {"up": 1, "down": 1} and seen.comments == 1
    assert seen.tokens_per_second == pytest.approx(10.0)
    assert seen.verdict == "steady" and {d.samples for d in seen.drift} == {99}
    assert vars(judged(log.home, "tiny")) == {"exchanges": 101, "up": 1, "down": 1, "comments": 1, "unknown": 1}


def test_since_and_version_choose_exchanges(log: ExchangeLog) -> None:
    for n in range(10):
        log.write(exchange(n, minutes=60 * n, artifact=1 + n // 5))
    assert watch(log.home, "tiny", {}, since=NOON + timedelta(hours=7)).requests == 3
    assert watch(log.home, "tiny", {}, since=datetime(2026, 11, 22, 19)).requests == 3
    assert watch(log.home, "tiny", {}, artifact="release/tiny@v2").requests == 5
    assert watch(log.home, "tiny", {}, since=NOON + timedelta(days=2)).verdict == "too_few"


def test_silent_hours_are_shown(log: ExchangeLog) -> None:
    log.write(exchange(1, minutes=0))
    log.write(exchange(2, minutes=60 * 5))
    log.write(exchange(3, minutes=60 * 24 * 30))
    hours = watch(log.home, "tiny", {}).hours
    assert len(hours) == 72 and [h.requests for h in hours] == [0] * 71 + [1]
    early = watch(log.home, "tiny", {}, artifact=None).hours
    assert early == hours


def test_drifted_traffic_is_called_so(log: ExchangeLog) -> None:
    for n in range(155):
        log.write(exchange(n))
    assert watch(log.home, "tiny", reference(98)).verdict == "steady"
    moved = watch(log.home, "tiny", reference(98, mean=-1 - 0.6 * 0.3 * 1.2))
    assert moved.verdict == "drifted"
    assert {d.signal: d.verdict for d in moved.drift} == {"prompt_tokens": "steady", "mean_logprob": "drifted"}


def test_only_replies_drawn_like_the_reference_are_compared_with_it(log: ExchangeLog) -> None:
    """Greedy replies are likelier than sampled ones: that is no drift."""
    for n in range(60):
        log.write(exchange(n))
    window = {**reference(98, mean=-3.0), "settings": {"temperature": 1.0, "top_p": 1.0, "max_tokens": 8}}
    greedy = watch(log.home, "tiny", {"solver": window})
    assert greedy.reference == "solver" and greedy.other_settings == 60
    assert {d.signal: d.verdict for d in greedy.drift} == {"prompt_tokens": "steady", "mean_logprob": "too_few"}
    assert "60 replies drawn with other settings than the reference are not compared" in drawn(greedy)
    window["settings"] = {"temperature": 0.0, "top_p": 1.0, "max_tokens": 8}
    window["signals"] = {"reply_tokens": [8.0] * 100}  # cut at 8, as the live 11 would have been
    assert watch(log.home, "tiny", {"solver": window}).verdict == "steady"


def test_a_line_cut_by_a_kill_is_left_out(log: ExchangeLog) -> None:
    for n in range(3):
        log.write(exchange(n))
    (path,) = log.files()
    whole = path.read_bytes()
    for cut in range(len(whole) - 40, len(whole), 7):
        path.write_bytes(whole[:cut])
        assert watch(log.home, "tiny", {}).requests == 2


def test_nothing_yet(tmp_path: Path) -> None:
    seen = watch(tmp_path, "tiny", reference(1))
    assert seen.requests == 0 and seen.verdict == "too_few" and seen.first_token is None
    with pytest.raises(WuxingError, match="no answers of tiny have been kept yet"):
        judged(tmp_path, "tiny")
    ExchangeLog(tmp_path, "tiny").write(exchange(1))
    with pytest.raises(WuxingError, match="no judged exchanges yet: 1 answers of tiny"):
        judged(tmp_path, "tiny")


def test_json_and_picture(log: ExchangeLog) -> None:
    for n in range(60):
        log.write(exchange(n, minutes=4 * n))
    write_json(
        log.home / "deployments" / "tiny" / "20261122T000000" / "deployment.json",
        {"release": "release/tiny@v1", "time": "2026-11-22T11:00:00.0+00:00", "failures": []},
    )
    seen = watch(log.home, "tiny", reference(1, mean=-3.0))
    value = json.loads(json.dumps(seen.to_json(), allow_nan=False))
    assert value["verdict"] == "drifted" and value["drift"][1]["shift"]["threshold"] >= 0.4
    text = drawn(seen)
    print(text)
    for word in ("DRIFTED", "60 release/tiny@v1", "p50 130 ms", "mean_logprob", "evidence complete", "████"):
        assert word in text, text
    assert "No answers of tiny" in drawn(watch(log.home, "tiny", {}, since=NOON + timedelta(days=9)))


def drawn(seen: Watch) -> str:
    console = Console(width=110, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(render(seen))
    return console.export_text()


def test_sparkline() -> None:
    assert sparkline([0, 1, 50, 100]) == " ▁▄█"
    assert sparkline([]) == "" and sparkline([0, 0]) == "  "
