"""How long an operation waits is a matter of the server, not of what else this process does."""

from __future__ import annotations

import asyncio
import time

import pytest

from forebay.core.errors import QueueUnavailableError
from forebay.queue.operation import unavailable
from forebay.queue.patience import LAST_TURNS, MOST_LATE


async def test_an_answer_that_came_while_the_process_was_busy_is_taken() -> None:
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[str] = loop.create_future()

    def be_busy() -> None:
        time.sleep(0.5)
        loop.call_soon(answer.set_result, "here")  # as if read from a socket after the stall

    loop.call_soon(be_busy)
    async with unavailable("asking", within_s=0.2):
        assert await answer == "here"


async def test_a_silent_server_is_given_up_in_time() -> None:
    began = time.monotonic()
    with pytest.raises(QueueUnavailableError, match="while asking: no answer in time"):
        async with unavailable("asking", within_s=0.1):
            await asyncio.sleep(60)
    assert time.monotonic() - began < 30


async def test_a_process_that_stays_busy_does_not_wait_for_ever() -> None:
    loop = asyncio.get_running_loop()
    stalls = 0

    def be_busy() -> None:
        nonlocal stalls
        stalls += 1
        time.sleep(0.25)
        loop.call_later(0.01, be_busy)

    loop.call_soon(be_busy)
    with pytest.raises(QueueUnavailableError):
        async with unavailable("asking", within_s=0.1):
            await asyncio.sleep(60)
    assert stalls <= MOST_LATE + LAST_TURNS + 3


async def test_an_operation_that_ends_leaves_no_timer_behind() -> None:
    async with unavailable("asking", within_s=0.05):
        await asyncio.sleep(0)
    await asyncio.sleep(0.1)  # nothing is cancelled now
