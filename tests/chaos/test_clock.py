"""What the queue does when the clock of its server jumps: on a real server whose clock does."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from forebay.core.errors import RateLimitedError
from forebay.core.lifecycle import State
from forebay.core.request import TaskId
from forebay.queue.connection import connect
from forebay.queue.limits import QueueLimits
from forebay.queue.ports import StreamWrite
from forebay.queue.redis_queue import RedisQueue
from forebay.queue.token_stream import RedisTokenStreams
from tests.chaos.stack import Stack
from tests.chaos.test_faults import server
from tests.chaos.valkey import find_faketime
from tests.queue.making import answer, task

pytestmark = pytest.mark.skipif(find_faketime() is None, reason="needs Debian's libfaketime")

LEASE_S = 0.5
LONG_LEASE_S = 3.0  # a busy machine renews it in time
JUMP_S = 600
PATIENCE_S = 30.0


@pytest.fixture
async def stack(tmp_path: Path) -> AsyncIterator[Stack]:
    async with server(tmp_path) as stack:
        yield stack


@pytest.fixture
def limits() -> QueueLimits:
    return QueueLimits(lease_s=LEASE_S)


@pytest.fixture
async def queue(stack: Stack, limits: QueueLimits) -> AsyncIterator[RedisQueue]:
    client = connect(stack.queue_url)
    queue = RedisQueue(client, limits=limits)
    await queue.start()
    yield queue
    await client.aclose()


async def jump(stack: Stack, seconds: int) -> None:
    """Move the server's clock; return when the server has seen it."""
    assert stack.valkey is not None
    stack.valkey.jump_to(seconds)
    async with stack.admin() as client, asyncio.timeout(PATIENCE_S):
        while abs((await client.time())[0] - time.time() - seconds) > JUMP_S / 10:
            await asyncio.sleep(0.01)


async def claimed_by(queue: RedisQueue, worker: str) -> list[str]:
    """Return what a worker is given within a few leases."""
    for _ in range(20):
        if leases := await queue.claim(worker, 8, 100_000):
            return [lease.task_id for lease in leases]
        await asyncio.sleep(LEASE_S / 2)
    return []


@pytest.mark.parametrize("seconds", [JUMP_S, -JUMP_S])
async def test_a_dead_workers_task_is_delivered_again_soon(
    stack: Stack, queue: RedisQueue, seconds: int
) -> None:
    await queue.enqueue(task("t"))
    assert await claimed_by(queue, "dies") == ["t"]
    await jump(stack, seconds)
    assert await claimed_by(queue, "lives") == ["t"]


@pytest.mark.parametrize("limits", [QueueLimits(lease_s=LONG_LEASE_S)])
@pytest.mark.parametrize("seconds", [JUMP_S, -JUMP_S])
async def test_a_living_worker_keeps_its_task_over_a_jump(
    stack: Stack, queue: RedisQueue, seconds: int
) -> None:
    await queue.enqueue(task("t"))
    (lease,) = await queue.claim("lives", 1, 100_000)
    await jump(stack, seconds)
    for _ in range(6):
        reply = await queue.heartbeat("lives", [(lease.task_id, lease.fence)])
        assert not reply.lost
        assert await queue.claim("other", 1, 100_000) == []
        await asyncio.sleep(LONG_LEASE_S / 4)


@pytest.mark.parametrize("seconds", [JUMP_S, -JUMP_S])
async def test_a_dead_worker_is_not_counted_for_long(
    stack: Stack, queue: RedisQueue, seconds: int
) -> None:
    await queue.claim("dies", 1, 100_000)
    assert await queue.workers() == 1
    await jump(stack, seconds)
    for _ in range(20):
        if not await queue.workers():
            return
        await asyncio.sleep(LEASE_S / 2)
    pytest.fail("it is still counted")


@pytest.mark.parametrize("seconds", [JUMP_S, -JUMP_S])
async def test_order_of_arrival_is_kept_over_a_jump(
    stack: Stack, queue: RedisQueue, seconds: int
) -> None:
    await queue.enqueue(task("first"))
    await jump(stack, seconds)
    await queue.enqueue(task("second"))
    assert await claimed_by(queue, "w") == ["first", "second"]


async def test_a_delay_is_no_longer_for_a_clock_that_goes_back(
    stack: Stack, queue: RedisQueue
) -> None:
    await queue.enqueue(task("t", delay_s=LEASE_S))
    await jump(stack, -JUMP_S)
    assert await claimed_by(queue, "w") == ["t"]


async def test_a_deadline_is_no_later_for_a_clock_that_goes_back(
    stack: Stack, queue: RedisQueue
) -> None:
    await queue.enqueue(task("t", deadline_s=LEASE_S))
    await jump(stack, -JUMP_S)
    for _ in range(20):
        if not (await queue.depth()).waiting:
            break
        await asyncio.sleep(LEASE_S / 2)
    record = await queue.get(TaskId("t"))
    assert record is not None
    assert record.state is State.EXPIRED


@pytest.mark.parametrize("limits", [QueueLimits(tenant_rate_per_s=1.0)])
async def test_a_tenant_within_its_rate_is_not_refused_for_a_clock_that_goes_back(
    stack: Stack, queue: RedisQueue
) -> None:
    await queue.enqueue(task("first"))
    await jump(stack, -JUMP_S)
    with pytest.raises(RateLimitedError) as refused:
        await queue.enqueue(task("second"))
    assert refused.value.retry_after is not None
    assert refused.value.retry_after <= 1.5
    await asyncio.sleep(1.5)
    await queue.enqueue(task("second"))


async def test_measured_rates_go_on_after_a_clock_that_goes_back(
    stack: Stack, queue: RedisQueue
) -> None:
    for number in range(4):
        await queue.enqueue(task(f"t{number}", cost=100))
    (first,) = await queue.claim("w", 1, 100_000)
    await jump(stack, -JUMP_S)
    for _ in range(3):
        await queue.heartbeat("w", [(first.task_id, first.fence)])
        await asyncio.sleep(LEASE_S / 4)
    assert await queue.finish([answer(first)]) == ["t0"]
    record = await queue.get(TaskId("t3"))
    assert record is not None
    # Two tasks are ahead, and one took a moment. Without a measured rate there is no estimate.
    assert record.eta_s is not None
    assert record.eta_s < 60


async def test_times_that_people_are_told_are_the_servers(stack: Stack, queue: RedisQueue) -> None:
    await queue.enqueue(task("before"))
    await jump(stack, -JUMP_S)
    await queue.enqueue(task("after"))
    (lease,) = await queue.claim("w", 1, 100_000)
    await queue.finish([answer(lease)])
    before, after = await queue.get(TaskId("before")), await queue.get(TaskId("after"))
    assert before is not None
    assert after is not None
    assert before.finished_s is not None
    assert abs(before.created_s - JUMP_S - before.finished_s) < JUMP_S / 2
    assert abs(before.created_s - JUMP_S - after.created_s) < JUMP_S / 2


async def test_a_stream_goes_on_in_order_while_the_clock_jumps(
    stack: Stack, queue: RedisQueue
) -> None:
    await queue.enqueue(task("t"))
    (lease,) = await queue.claim("w", 1, 100_000)
    client = connect(stack.queue_url)
    try:
        async with RedisTokenStreams(client) as streams, streams.subscribe(TaskId("t")) as entries:
            for number, offset in enumerate((0, -JUMP_S, JUMP_S, 0, -JUMP_S)):
                await jump(stack, offset)
                await queue.heartbeat("w", [(lease.task_id, lease.fence)])
                write = StreamWrite(lease.task_id, lease.fence, f"{number} ", 1)
                assert await streams.append([write]) == set()
            await queue.finish([answer(lease, "0 1 2 3 4 ")])
            said = [(entry.stream_id, entry.text) async for entry in entries]
    finally:
        await client.aclose()
    assert "".join(text for _, text in said) == "0 1 2 3 4 "
    places = [tuple(map(int, stream_id.split("-"))) for stream_id, _ in said]
    assert places == sorted(places)


@pytest.mark.parametrize("seconds", [JUMP_S, -JUMP_S])
async def test_what_a_clock_that_swings_puts_ahead_is_bounded_by_its_swings(
    stack: Stack, queue: RedisQueue, seconds: int
) -> None:
    """A clock that goes and comes back moves the queue's time by one swing, not by each look."""
    await queue.enqueue(task("t", delay_s=3 * JUMP_S))
    for offset in (seconds, 0):
        await jump(stack, offset)
        for _ in range(5):
            await queue.depth()
    assert (await queue.depth()).delayed == 1
