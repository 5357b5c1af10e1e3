"""With nobody to answer, requests are refused; a worker that is away for a moment is waited for."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay.api.workers_gauge import WorkersGauge
from forebay.core.errors import NotReadyError, QueueUnavailableError
from tests.api.door import Door, eventually, working
from tests.api.test_app import ASK, CHAT


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Workers:
    """The one method of a queue that is asked."""

    def __init__(self) -> None:
        self.alive = 0
        self.looks = 0
        self.away = False

    async def workers(self) -> int:
        self.looks += 1
        await asyncio.sleep(0)
        if self.away:
            raise QueueUnavailableError("away")
        return self.alive


def refused(gauge: WorkersGauge) -> bool:
    try:
        asyncio.run(gauge.check())
    except NotReadyError:
        return True
    return False


@given(st.lists(st.tuples(st.floats(0, 40), st.integers(0, 1)), max_size=40))
def test_it_opens_after_long_and_closes_with_the_first_sign_of_life(
    events: list[tuple[float, int]],
) -> None:
    clock, queue = Clock(), Workers()
    gauge = WorkersGauge(queue, 30.0, clock)  # type: ignore[arg-type]
    looked_s, missing_since = -1e9, None
    for wait_s, alive in events:
        clock.now += wait_s
        queue.alive = alive
        if clock.now - looked_s >= 1.0:
            looked_s = clock.now
            missing_since = None if alive else missing_since or clock.now
        expected = missing_since is not None and clock.now - missing_since >= 30.0
        assert refused(gauge) == expected
    assert queue.looks <= len(events)


async def test_a_burst_looks_once() -> None:
    clock, queue = Clock(), Workers()
    gauge = WorkersGauge(queue, 30.0, clock)  # type: ignore[arg-type]
    await gauge.check()
    clock.now += 60
    found = await asyncio.gather(*(gauge.check() for _ in range(200)), return_exceptions=True)
    assert queue.looks == 2
    assert all(isinstance(one, NotReadyError) for one in found)


async def test_a_burst_after_a_quiet_night_is_taken_whole() -> None:
    clock, queue = Clock(), Workers()
    gauge = WorkersGauge(queue, 30.0, clock)  # type: ignore[arg-type]
    queue.alive = 1
    await gauge.check()
    clock.now += 8 * 3600
    await asyncio.gather(*(gauge.check() for _ in range(50)))
    assert queue.looks == 2


async def test_a_server_that_is_away_tells_nothing_of_the_workers() -> None:
    clock, queue = Clock(), Workers()
    gauge = WorkersGauge(queue, 30.0, clock)  # type: ignore[arg-type]
    queue.away = True
    for _ in range(3):
        with pytest.raises(QueueUnavailableError):
            await gauge.check()
        clock.now += 60
    queue.away = False
    await gauge.check()


async def test_nobody_is_ever_refused_where_that_is_off() -> None:
    clock, queue = Clock(), Workers()
    gauge = WorkersGauge(queue, 0.0, clock)  # type: ignore[arg-type]
    clock.now += 1e6
    await gauge.check()
    assert queue.looks == 0


async def test_the_door_refuses_without_workers_and_takes_again_with_one(door) -> None:
    gauge = WorkersGauge(door.queue, 0.05)
    object.__setattr__(door.services, "workers", gauge)
    await gauge.check()  # the first look that finds nobody
    await asyncio.sleep(0.1)
    gone = await door.http.post(CHAT, json=ASK)
    assert (gone.status_code, gone.json()["error"]["code"]) == (503, "not_ready")
    assert int(gone.headers["Retry-After"]) >= 1
    assert await door.waiting() == 0
    async with working(door):
        await eventually(partial(answers, door))


async def answers(door: Door) -> bool:
    return (await door.http.post(CHAT, json=ASK)).status_code == 200
