"""What Prometheus reads at `/metrics`.  Names and labels never hold a prompt, a key or an unbounded set of values."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from wuxing.serve.worker import Worker

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
RATES = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000)


class _Failures(Collector):
    """The worker's own count of failures, as a counter."""

    def __init__(self, worker: Worker):
        self.worker = worker

    def collect(self) -> Iterable[Metric]:
        yield CounterMetricFamily("wuxing_engine_failures", "Steps of the engine that raised", self.worker.failures)


class Metrics:
    """The figures of one server, in a registry of its own."""

    def __init__(self, release: str, worker: Worker):
        disable_created_metrics()  # a time stamp beside each figure doubles the page and no rule reads it
        self.registry = registry = CollectorRegistry()
        Info("wuxing_release", "The release that answers", registry=registry).info({"id": release})
        self.requests = Counter("wuxing_requests", "Requests ended", ["path", "status"], registry=registry)
        self.in_flight = Gauge("wuxing_requests_in_flight", "Requests being answered", registry=registry)
        self.seconds = Histogram(
            "wuxing_request_seconds", "Whole time of a request", ["path"], buckets=SECONDS, registry=registry
        )
        self.first_token = Histogram(
            "wuxing_first_token_seconds", "Time to an answer's first token", buckets=SECONDS, registry=registry
        )
        self.speed = Histogram(
            "wuxing_answer_tokens_per_second", "Speed of one answer", buckets=RATES, registry=registry
        )
        self.tokens = Counter("wuxing_tokens", "Tokens", ["direction"], registry=registry)
        self.finishes = Counter("wuxing_answers", "Answers ended", ["finish"], registry=registry)
        self.exchanges = Counter("wuxing_exchanges_written", "Exchanges written", registry=registry)
        self.lost = Counter("wuxing_exchanges_lost", "Exchanges that could not be written", registry=registry)
        self.thumbs = Counter("wuxing_thumbs", "Judgements of answers", ["thumb"], registry=registry)
        Gauge("wuxing_queue", "Answers that wait for a row", registry=registry).set_function(lambda: worker.queued)
        Gauge("wuxing_rows_in_use", "Rows of the engine in use", registry=registry).set_function(
            lambda: worker.rows_in_use
        )
        Gauge("wuxing_engine_alive", "1 while the engine's thread runs", registry=registry).set_function(
            lambda: float(worker.alive)
        )
        registry.register(_Failures(worker))
        for thumb in ("up", "down"):
            self.thumbs.labels(thumb)
        for direction in ("in", "out"):
            self.tokens.labels(direction)

    def text(self) -> bytes:
        return generate_latest(self.registry)
