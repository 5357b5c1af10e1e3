from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest

from forebay.admission.policy import Load
from forebay.api.load import LoadGauge
from forebay.core.errors import QueueUnavailableError
from forebay.core.request import Cost
from forebay.queue.ports import QueueDepth


class Away:
    """A queue that answers a while later, or not."""

    def __init__(self) -> None:
        self.looks = 0
        self.away = True

    async def depth(self) -> QueueDepth:
        self.looks += 1
        await asyncio.sleep(0.02)
        if self.away:
            raise QueueUnavailableError("away", retry_after=3)
        return QueueDepth(1, 0, 0, 10)


async def test_who_waits_while_a_look_fails_is_told_the_same() -> None:
    queue: Any = Away()
    gauge = LoadGauge(queue)
    told = await asyncio.gather(*(gauge.now() for _ in range(20)), return_exceptions=True)
    assert queue.looks == 1
    assert {type(one) for one in told} == {QueueUnavailableError}
    assert {one.retry_after for one in told if isinstance(one, QueueUnavailableError)} == {3}
    with pytest.raises(QueueUnavailableError):
        await gauge.now()  # who comes later looks again
    assert queue.looks == 2
    queue.away = False
    assert (await gauge.now()).waiting == 1


class Steady:
    """A queue in which so many wait, as far as it has been told."""

    def __init__(self, waiting: int) -> None:
        self.waiting = waiting
        self.looks = 0

    async def depth(self) -> QueueDepth:
        self.looks += 1
        await asyncio.sleep(0)
        return QueueDepth(self.waiting, 0, 0, self.waiting * 100)


async def test_what_is_on_its_way_in_counts_as_waiting_until_a_look_has_seen_it() -> None:
    queue: Any = Steady(5)
    gauge = LoadGauge(queue, max_age_s=60)
    cost = Cost(visual_tokens=10, text_tokens=20, output_tokens=30)
    assert (await gauge.now()).waiting == 5
    with gauge.reserved(cost) as place, gauge.reserved(cost):
        load = await gauge.now()
        assert (load.waiting, load.waiting_tokens) == (7, 620)
        place.taken = True
    load = await gauge.now()
    assert (load.waiting, load.waiting_tokens) == (6, 560)
    assert queue.looks == 1
    queue.waiting, gauge._max_age_s = 6, 0
    assert (await gauge.now()).waiting == 6


async def test_a_task_that_came_during_a_look_is_counted_until_the_next() -> None:
    queue: Any = Steady(5)
    gauge = LoadGauge(queue, max_age_s=0)
    looking = asyncio.create_task(gauge.now())
    await asyncio.sleep(0)  # it looks now
    assert queue.looks == 1
    with gauge.reserved(Cost(1, 1, 1)) as place:
        place.taken = True
    assert (await looking).waiting == 6
    assert (await gauge.now()).waiting == 5


async def test_a_refused_request_gives_its_place_back() -> None:
    queue: Any = Steady(0)
    gauge = LoadGauge(queue, max_age_s=60)
    with contextlib.suppress(ValueError), gauge.reserved(Cost(1, 1, 1)):
        raise ValueError("damaged")
    assert await gauge.now() == Load()
