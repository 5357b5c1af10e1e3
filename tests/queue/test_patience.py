"""A stall of this process is not taken for the silence of another one."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import uvloop

from forebay.core.errors import QueueUnavailableError
from forebay.queue.connection import connect
from forebay.queue.embedded import EmbeddedValkey
from forebay.queue.operation import DOOR_ANSWER_S
from forebay.queue.patience import MOST_LATE, SLICE_S, Patience
from forebay.queue.redis_queue import RedisQueue
from tests.queue.making import task

BURST = 50
STALL_S = 2.0
STARVED_TURN_S = 3 * SLICE_S
TOLD_S = 1.0
"""A client is to know within this. The best of a few tries: others use the machine too."""

LOOPS = [asyncio.new_event_loop, uvloop.new_event_loop]
loops = pytest.mark.parametrize("new_loop", LOOPS, ids=["asyncio", "uvloop"])


def stall(seconds: float) -> None:
    time.sleep(seconds)


def run(new_loop: Callable[[], Any], main: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(main)


@loops
@pytest.mark.parametrize("turns", range(6))
def test_a_burst_in_a_process_that_stalls_is_taken(
    new_loop: Callable[[], Any], turns: int, tmp_path: Path
) -> None:
    """Wherever the stall meets the operations: dialling, sending, an answer in the socket."""

    async def main() -> None:
        with EmbeddedValkey(tmp_path) as server:
            client = connect(server.url, answer_s=DOOR_ANSWER_S)
            queue = RedisQueue(client)
            await queue.start()
            burst = [asyncio.create_task(queue.enqueue(task(f"t{i}"))) for i in range(BURST)]
            for _ in range(turns):
                await asyncio.sleep(0)
            stall(STALL_S)
            await asyncio.gather(*burst)
            assert (await queue.depth()).waiting == BURST
            assert not client.connection_pool.breaker.open
            await client.aclose()

    run(new_loop, main())


@loops
def test_a_burst_in_a_process_that_stalls_again_and_again_is_taken(
    new_loop: Callable[[], Any], tmp_path: Path
) -> None:
    async def main() -> None:
        with EmbeddedValkey(tmp_path) as server:
            client = connect(server.url, answer_s=DOOR_ANSWER_S)
            queue = RedisQueue(client)
            await queue.start()
            burst = [asyncio.create_task(queue.enqueue(task(f"t{i}"))) for i in range(BURST)]
            while not all(one.done() for one in burst):
                stall(STARVED_TURN_S)
                await asyncio.sleep(0)
            await asyncio.gather(*burst)
            assert not client.connection_pool.breaker.open
            await client.aclose()

    run(new_loop, main())


@loops
def test_a_silent_server_is_told_within_a_second(
    new_loop: Callable[[], Any], tmp_path: Path
) -> None:
    async def told_after_s(queue: RedisQueue) -> float:
        began = time.monotonic()
        with pytest.raises(QueueUnavailableError):
            await queue.enqueue(task("a"))
        return time.monotonic() - began

    async def main() -> None:
        with EmbeddedValkey(tmp_path) as server:
            client = connect(server.url, answer_s=DOOR_ANSWER_S)
            queue = RedisQueue(client)
            await queue.start()
            assert server.pid is not None
            os.kill(server.pid, signal.SIGSTOP)
            try:
                first = await told_after_s(queue)
                assert first >= DOOR_ANSWER_S - SLICE_S
                assert min([first, *[await told_after_s(queue) for _ in range(4)]]) < TOLD_S
                assert client.connection_pool.breaker.open
            finally:
                os.kill(server.pid, signal.SIGCONT)
            await client.aclose()

    run(new_loop, main())


@loops
def test_a_loop_that_always_stalls_gives_up_in_the_end(new_loop: Callable[[], Any]) -> None:
    async def main() -> None:
        turns = 0

        async def wait() -> None:
            async with Patience(2 * SLICE_S):
                await asyncio.Event().wait()

        waiting = asyncio.create_task(wait())
        while not waiting.done():
            turns += 1
            stall(STARVED_TURN_S)
            await asyncio.sleep(0)
        assert isinstance(waiting.exception(), TimeoutError)
        assert MOST_LATE < turns <= MOST_LATE + 20

    run(new_loop, main())


async def test_who_cancels_is_not_told_of_a_timeout() -> None:
    async def wait() -> None:
        async with Patience(60):
            await asyncio.Event().wait()

    waiting = asyncio.create_task(wait())
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_an_error_of_its_own_comes_through() -> None:
    with pytest.raises(KeyError):
        async with Patience(60):
            raise KeyError
