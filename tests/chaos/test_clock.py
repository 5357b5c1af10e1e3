"""What the queue does when the clock of its server jumps: on a real server whose clock does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from forebay.queue.connection import connect
from forebay.queue.limits import QueueLimits
from forebay.queue.redis_queue import RedisQueue
from tests.chaos.stack import Stack
from tests.chaos.test_faults import server
from tests.chaos.valkey import find_faketime
from tests.queue.making import task

pytestmark = pytest.mark.skipif(find_faketime() is None, reason="needs Debian's libfaketime")

LEASE_S = 0.5
JUMP_S = 600
BACK = "leases and signs of life written before the clock went back lie in its future"


@pytest.fixture
async def stack(tmp_path: Path) -> AsyncIterator[Stack]:
    async with server(tmp_path) as stack:
        yield stack


@pytest.fixture
async def queue(stack: Stack) -> AsyncIterator[RedisQueue]:
    client = connect(stack.queue_url)
    queue = RedisQueue(client, limits=QueueLimits(lease_s=LEASE_S))
    await queue.start()
    yield queue
    await client.aclose()


def jump(stack: Stack, seconds: int) -> None:
    assert stack.valkey is not None
    stack.valkey.jump_to(seconds)


async def claimed_by(queue: RedisQueue, worker: str) -> list[str]:
    """Return what a worker is given within a few leases."""
    for _ in range(20):
        if leases := await queue.claim(worker, 8, 100_000):
            return [lease.task_id for lease in leases]
        await asyncio.sleep(LEASE_S / 2)
    return []


@pytest.mark.parametrize(
    "seconds", [JUMP_S, pytest.param(-JUMP_S, marks=pytest.mark.xfail(reason=BACK, strict=True))]
)
async def test_a_dead_workers_task_is_delivered_again_soon(
    stack: Stack, queue: RedisQueue, seconds: int
) -> None:
    await queue.enqueue(task("t"))
    assert await claimed_by(queue, "dies") == ["t"]
    jump(stack, seconds)
    assert await claimed_by(queue, "lives") == ["t"]


@pytest.mark.parametrize("seconds", [JUMP_S, -JUMP_S])
async def test_a_living_worker_keeps_its_task_over_a_jump(
    stack: Stack, queue: RedisQueue, seconds: int
) -> None:
    await queue.enqueue(task("t"))
    (lease,) = await queue.claim("lives", 1, 100_000)
    jump(stack, seconds)
    for _ in range(6):
        reply = await queue.heartbeat("lives", [(lease.task_id, lease.fence)])
        assert not reply.lost
        assert await queue.claim("other", 1, 100_000) == []
        await asyncio.sleep(LEASE_S / 4)


@pytest.mark.parametrize(
    "seconds", [JUMP_S, pytest.param(-JUMP_S, marks=pytest.mark.xfail(reason=BACK, strict=True))]
)
async def test_a_dead_worker_is_not_counted_for_long(
    stack: Stack, queue: RedisQueue, seconds: int
) -> None:
    await queue.claim("dies", 1, 100_000)
    assert await queue.workers() == 1
    jump(stack, seconds)
    await asyncio.sleep(2 * LEASE_S)
    assert await queue.workers() == 0


@pytest.mark.parametrize("seconds", [JUMP_S, -JUMP_S])
async def test_order_of_arrival_is_kept_over_a_jump(
    stack: Stack, queue: RedisQueue, seconds: int
) -> None:
    await queue.enqueue(task("first"))
    jump(stack, seconds)
    await queue.enqueue(task("second"))
    assert await claimed_by(queue, "w") == ["first", "second"]
