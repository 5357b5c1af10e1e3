"""With nobody to answer, requests are refused; a worker that is away for a moment is waited for."""

from __future__ import annotations

import asyncio
from functools import partial

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
    seen_s = clock.now
    looked_s = -1e9
    for wait_s, alive in events:
        clock.now += wait_s
        queue.alive = alive
        if clock.now - looked_s >= 1.0:
            looked_s = clock.now
            seen_s = clock.now if alive else seen_s
        assert refused(gauge) == (clock.now - seen_s >= 30.0)
    assert queue.looks <= len(events)


async def test_a_burst_looks_once() -> None:
    clock, queue = Clock(), Workers()
    gauge = WorkersGauge(queue, 30.0, clock)  # type: ignore[arg-type]
    clock.now += 60
    found = await asyncio.gather(*(gauge.check() for _ in range(200)), return_exceptions=True)
    assert queue.looks == 1
    assert all(isinstance(one, NotReadyError) for one in found)


async def test_nobody_is_ever_refused_where_that_is_off() -> None:
    clock, queue = Clock(), Workers()
    gauge = WorkersGauge(queue, 0.0, clock)  # type: ignore[arg-type]
    clock.now += 1e6
    await gauge.check()
    assert queue.looks == 0


async def test_the_door_refuses_without_workers_and_takes_again_with_one(door) -> None:
    gauge = WorkersGauge(door.queue, 0.05)
    object.__setattr__(door.services, "workers", gauge)
    await asyncio.sleep(0.1)
    gone = await door.http.post(CHAT, json=ASK)
    assert (gone.status_code, gone.json()["error"]["code"]) == (503, "not_ready")
    assert int(gone.headers["Retry-After"]) >= 1
    assert await door.waiting() == 0
    async with working(door):
        await eventually(partial(answers, door))


async def answers(door: Door) -> bool:
    return (await door.http.post(CHAT, json=ASK)).status_code == 200
