"""The thread that owns the engine: failures cost only what ran, places are given back, a stop leaves nobody waiting."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from wuxing.core.artifact import Artifact
from wuxing.generate.engine import Engine, Event, Request
from wuxing.model.files import load_network
from wuxing.model.network import Network
from wuxing.serve.error import ApiError
from wuxing.serve.worker import Worker


class Failing(Engine):
    """The real engine, except that its third step breaks, as a device that runs out of memory would."""

    steps = 0

    def step(self) -> list[Event]:
        Failing.steps += 1
        if Failing.steps == 3:
            raise RuntimeError("out of memory while answering 'a secret prompt'")
        return super().step()


@pytest.fixture
def network(release: Artifact) -> Network:
    return load_network(release.path / "model")


@pytest.fixture
def start(network: Network) -> Iterator[Callable[..., Worker]]:
    workers: list[Worker] = []

    def make(kind: type[Engine] = Engine, rows: int = 2, waiting: int = 2) -> Worker:
        worker = Worker(lambda: kind(network, rows, frozen=True), rows, waiting)
        worker.start()
        workers.append(worker)
        return worker

    yield make
    for worker in workers:
        worker.stop()


def request(name: str, tokens: int = 1500) -> Request:
    return Request(name, [5, 6, 7], tokens, temperature=0.0)


async def drain(inbox: asyncio.Queue[Any], answers: int) -> dict[int, Any]:
    """What each answer ended with: its last event, or its error."""
    ended: dict[int, Any] = {}
    while len(ended) < answers:
        index, item = await asyncio.wait_for(inbox.get(), 20)
        if isinstance(item, ApiError) or item.finish:
            ended[index] = item
    return ended


def test_a_failing_step_costs_what_ran_and_no_more(
    start: Callable[..., Worker], caplog: pytest.LogCaptureFixture
) -> None:
    Failing.steps = 0
    worker = start(Failing)

    async def main() -> None:
        first: asyncio.Queue[Any] = asyncio.Queue()
        worker.submit([request("a"), request("b"), request("waits", 5)], first)
        ended = await drain(first, 3)
        assert [ended[n].status for n in (0, 1)] == [500, 500]
        assert "secret" not in ended[0].message
        assert ended[2].finish == "length"  # it had not begun, so it lost nothing
        second: asyncio.Queue[Any] = asyncio.Queue()
        worker.submit([request("c", 5)], second)
        assert (await drain(second, 1))[0].finish == "length"

    asyncio.run(main())
    assert worker.failures == 1 and worker.alive and worker.rows_in_use == 0
    assert "engine failed" in caplog.text


def test_the_queue_takes_all_answers_of_a_request_or_none(start: Callable[..., Worker]) -> None:
    worker = start(rows=2, waiting=2)

    async def main() -> None:
        inbox: asyncio.Queue[Any] = asyncio.Queue()
        with pytest.raises(ApiError) as full:
            worker.submit([request(str(n)) for n in range(5)], inbox)
        assert full.value.status == 429 and worker.queued == 0
        tickets = worker.submit([request(str(n)) for n in range(4)], inbox)
        index, _ = await inbox.get()
        assert index in (0, 1) and worker.rows_in_use == 2 and worker.queued == 2
        worker.cancel(tickets[3])
        assert worker.queued == 1
        for ticket in tickets[:3]:
            worker.cancel(ticket)
        for _ in range(200):
            if not worker.rows_in_use:
                break
            await asyncio.sleep(0.01)
        assert worker.rows_in_use == worker.queued == 0

    asyncio.run(main())


def test_a_stop_answers_everybody(start: Callable[..., Worker]) -> None:
    worker = start()

    async def main() -> None:
        inbox: asyncio.Queue[Any] = asyncio.Queue()
        worker.submit([request(str(n)) for n in range(4)], inbox)
        await inbox.get()
        assert await asyncio.to_thread(worker.stop)
        ended = await drain(inbox, 4)
        assert {item.status for item in ended.values()} == {503}
        with pytest.raises(ApiError, match="stopping"):
            worker.submit([request("late")], inbox)

    asyncio.run(main())
    assert not worker.alive


def test_an_engine_that_cannot_be_built_again_leaves_nobody_waiting(network: Network) -> None:
    built: list[int] = []

    def build() -> Engine:
        built.append(1)
        if len(built) > 1:
            raise MemoryError
        return Failing(network, 2, frozen=True)

    Failing.steps = 0
    worker = Worker(build, 1, 4)
    worker.start()

    async def main() -> None:
        inbox: asyncio.Queue[Any] = asyncio.Queue()
        worker.submit([request("a"), request("b")], inbox)
        ended = await drain(inbox, 2)
        assert ended[0].status == 500 and ended[1].status == 503

    asyncio.run(main())
    worker.stop()
    assert not worker.alive


def test_replies_do_not_pile_up(start: Callable[..., Worker]) -> None:
    worker = start()

    async def main() -> None:
        for n in range(20):
            inbox: asyncio.Queue[Any] = asyncio.Queue()
            worker.submit([request(str(n), 2)], inbox)
            await drain(inbox, 1)

    asyncio.run(main())
    worker.stop()
    assert worker._engine.take_replies() == []
