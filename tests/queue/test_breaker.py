from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay.core.errors import QueueUnavailableError
from forebay.queue.breaker import LONGEST_PAUSE_S, TRIP_AFTER, Breaker
from forebay.queue.connection import connect
from forebay.queue.embedded import EmbeddedValkey
from forebay.queue.operation import DOOR_ANSWER_S, unavailable
from forebay.queue.redis_queue import RedisQueue
from tests.queue.making import task


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@given(st.lists(st.sampled_from(["fail", "succeed", "ask", "wait"]), max_size=60))
def test_it_is_open_after_failures_in_a_row_and_lets_one_through_a_pause(events: list[str]) -> None:
    clock = Clock()
    breaker = Breaker(clock)
    failures = 0
    let_through: list[float] = []
    for event in events:
        if event == "fail":
            failures += 1
            assert breaker.fail(breaker.answers) == (failures == TRIP_AFTER)
        elif event == "succeed":
            failures = 0
            breaker.succeed()
            let_through.clear()
        elif event == "wait":
            clock.now += LONGEST_PAUSE_S
            assert breaker.admits(), "whoever asks after the longest pause is let through"
            let_through.append(clock.now)
        elif failures < TRIP_AFTER:
            assert breaker.admits()
        else:
            assert not (breaker.admits() and clock.now in let_through)
            let_through.append(clock.now)
        assert breaker.open == (failures >= TRIP_AFTER)


def test_who_is_left_without_an_answer_while_others_get_theirs_says_nothing_of_the_server() -> None:
    breaker = Breaker(Clock())
    before = breaker.answers
    breaker.succeed()
    for _ in range(2 * TRIP_AFTER):
        assert not breaker.fail(before)
    assert not breaker.open


async def test_a_silent_server_is_not_waited_for_twice_and_is_found_when_it_is_back(
    tmp_path: Path,
) -> None:
    with EmbeddedValkey(tmp_path) as server:
        client = connect(server.url, answer_s=DOOR_ANSWER_S)
        queue = RedisQueue(client)
        await queue.start()
        await asyncio.gather(*(queue.ping() for _ in range(20)))  # connections that lie idle
        assert server.pid is not None
        os.kill(server.pid, signal.SIGSTOP)
        try:
            for _ in range(TRIP_AFTER):
                with pytest.raises(QueueUnavailableError, match="no answer in time"):
                    await queue.ping()
            began = time.process_time()
            for _ in range(100):
                with pytest.raises(QueueUnavailableError, match="asked again in a moment"):
                    await queue.enqueue(task("a"))
            assert time.process_time() - began < 5
        finally:
            os.kill(server.pid, signal.SIGCONT)
        async with asyncio.timeout(30):
            while True:
                try:
                    await queue.enqueue(task("a"))
                    break
                except QueueUnavailableError:
                    await asyncio.sleep(0.05)
        await asyncio.gather(*(queue.ping() for _ in range(20)))
        await client.aclose()


async def test_a_refusal_by_the_server_is_an_answer(tmp_path: Path) -> None:
    with EmbeddedValkey(tmp_path) as server:
        client = connect(server.url)
        for _ in range(2 * TRIP_AFTER):
            with pytest.raises(QueueUnavailableError, match="unknown command"):
                async with unavailable("asking nonsense"):
                    await client.execute_command("NONSENSE")
        await RedisQueue(client).ping()
        await client.aclose()
