"""A server that is away for longer than a lease: nobody could renew one; the workers live on."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from redis.asyncio import Redis

from forebay.queue.embedded import EmbeddedValkey
from forebay.queue.limits import QueueLimits
from forebay.queue.redis_queue import RedisQueue
from forebay.queue.schema import KEY_NAMES, Keys
from tests.queue.integrity import check_integrity
from tests.queue.making import PLENTY, answer, held, names, task

LEASE_S = 1.0
AWAY_S = 2.5
pytestmark = pytest.mark.parametrize("limits", [QueueLimits(lease_s=LEASE_S)])


@contextmanager
def away(server: EmbeddedValkey) -> Iterator[None]:
    """Have the server answer nobody for the length of the block."""
    assert server.pid is not None
    os.kill(server.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(server.pid, signal.SIGCONT)


async def test_a_living_worker_keeps_its_leases_over_an_outage(
    valkey: EmbeddedValkey, queue: RedisQueue
) -> None:
    await queue.enqueue(task("a"))
    (lease,) = await queue.claim("w", 1, PLENTY)
    with away(valkey):
        await asyncio.sleep(AWAY_S)
    assert await queue.claim("other", 1, PLENTY) == []  # whoever comes first sweeps
    assert (await queue.heartbeat("w", [held(lease)])).lost == set()
    assert await queue.finish([answer(lease)]) == ["a"]


async def test_a_dead_workers_leases_run_out_after_an_outage_too(
    valkey: EmbeddedValkey, queue: RedisQueue
) -> None:
    await queue.enqueue(task("a"))
    await queue.claim("dead", 1, PLENTY)
    with away(valkey):
        await asyncio.sleep(AWAY_S)
    async with asyncio.timeout(20):
        while not (leases := await queue.claim("other", 1, PLENTY)):
            await queue.wait_for_work(0.02)
    assert names(leases) == ["a"]


async def test_what_a_worker_holds_is_known_again_after_an_outage_that_outlasted_its_set(
    queue: RedisQueue, redis: Redis, keys: Keys
) -> None:
    await queue.enqueue(task("a"))
    (lease,) = await queue.claim("w", 1, PLENTY)
    await redis.delete(keys.prefix + KEY_NAMES["held"] + "w")  # as its TTL would
    await queue.heartbeat("w", [held(lease)])
    assert await check_integrity(redis, keys) == []
    assert await queue.reap("w") == ["a"]
