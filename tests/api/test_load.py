from __future__ import annotations

import asyncio
from typing import Any

import pytest

from forebay.api.load import LoadGauge
from forebay.core.errors import QueueUnavailableError
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
