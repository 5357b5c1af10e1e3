from __future__ import annotations

import asyncio

from redis.asyncio import Redis

from forebay.core.lifecycle import State
from forebay.core.request import TaskId
from forebay.queue.redis_queue import RedisQueue
from forebay.queue.schema import KEY_NAMES, Keys
from tests.queue.making import PLENTY, names, task


async def test_a_delayed_task_waits_for_its_time_and_is_then_the_last_in_line(
    queue: RedisQueue, redis: Redis, keys: Keys
) -> None:
    await queue.enqueue(task("later", delay_s=60))
    await queue.enqueue(task("now"))
    record = await queue.get(TaskId("later"))
    assert record is not None
    assert (record.state, record.position) == (State.QUEUED, 1)
    assert (await queue.depth()).delayed == 1
    await redis.zadd(keys.prefix + KEY_NAMES["delayed"], {"later": 1}, xx=True)
    await queue.enqueue(task("after"))
    assert names(await queue.claim("w", 9, PLENTY)) == ["now", "after", "later"]
    assert (await queue.depth()).delayed == 0


async def test_an_idle_worker_waits_no_longer_than_until_the_next_one_is_due(
    queue: RedisQueue,
) -> None:
    await queue.enqueue(task("soon", delay_s=0.1))
    await queue.wait_for_work(1)  # the hint that something came
    assert await queue.claim("w", 1, PLENTY) == []
    async with asyncio.timeout(20):
        await queue.wait_for_work(60)
        while not (leases := await queue.claim("w", 1, PLENTY)):
            await queue.wait_for_work(60)
    assert names(leases) == ["soon"]


async def test_a_delayed_task_can_be_cancelled_and_can_expire(
    queue: RedisQueue, redis: Redis, keys: Keys
) -> None:
    await queue.enqueue(task("unwanted", delay_s=60))
    await queue.enqueue(task("late", delay_s=60, deadline_s=0.01))
    assert await queue.cancel(TaskId("unwanted"))
    await asyncio.sleep(0.02)
    depth = await queue.depth()
    assert (depth.waiting, depth.delayed, depth.waiting_tokens) == (0, 0, 0)
    for name, state in (("unwanted", State.CANCELLED), ("late", State.EXPIRED)):
        record = await queue.get(TaskId(name))
        assert record is not None
        assert record.state is state


async def test_a_delayed_task_deleted_by_hand_counts_no_more(
    queue: RedisQueue, redis: Redis, keys: Keys
) -> None:
    await queue.enqueue(task("gone", delay_s=0.01))
    await redis.delete(keys.task(TaskId("gone")))
    await asyncio.sleep(0.02)
    assert await queue.claim("w", 1, PLENTY) == []
    assert (await queue.depth()).waiting == 0
