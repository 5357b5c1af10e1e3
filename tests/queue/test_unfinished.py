"""How many tasks of one caller may wait or run at once: each end makes room for another."""

from __future__ import annotations

import itertools

import pytest
from redis.asyncio import Redis

from forebay.core.errors import TenantOverQuotaError
from forebay.core.request import TaskId
from forebay.queue.limits import QueueLimits
from forebay.queue.ports import Idempotency, Outcome, Quota, SameAnswer, TaskError
from forebay.queue.redis_queue import RedisQueue
from forebay.queue.schema import KEY_NAMES, Keys
from tests.queue.making import PLENTY, answer, held, task

ONE = Quota(holder="key:a", max_unfinished=1)
PROBES = itertools.count()


async def is_free(queue: RedisQueue, quota: Quota = ONE) -> bool:
    """Whether a task of the caller would be taken; it is cancelled at once."""
    probe = f"probe-{next(PROBES)}"
    try:
        await queue.enqueue(task(probe, quota=quota))
    except TenantOverQuotaError:
        return False
    return await queue.cancel(TaskId(probe))


async def test_a_caller_over_its_number_is_refused_and_nobody_else(queue: RedisQueue) -> None:
    two = Quota(holder="key:a", max_unfinished=2)
    for name in "ab":
        await queue.enqueue(task(name, quota=two))
    with pytest.raises(TenantOverQuotaError, match="2 tasks") as refused:
        await queue.enqueue(task("c", quota=two))
    assert refused.value.retry_after is not None
    assert refused.value.retry_after >= 1
    assert await queue.get(TaskId("c")) is None
    assert await is_free(queue, Quota(holder="key:b", max_unfinished=2))
    assert await is_free(queue, Quota(holder="key:a"))


@pytest.mark.parametrize("way", ["answer", "error", "cancel", "dead"])
async def test_a_running_task_counts_and_each_end_of_it_makes_room(
    queue: RedisQueue, way: str
) -> None:
    await queue.enqueue(task("a", quota=ONE))
    assert not await is_free(queue)
    (lease,) = await queue.claim("w", 1, PLENTY)
    assert not await is_free(queue)
    if way == "answer":
        await queue.finish([answer(lease)])
    elif way == "error":
        error = TaskError("inference_failed", "it does not like it")
        await queue.finish([Outcome(lease.task_id, lease.fence, error=error)])
    elif way == "cancel":
        await queue.cancel(lease.task_id)
        await queue.release([held(lease)])
    else:
        for _ in range(QueueLimits().max_deliveries - 1):
            await queue.redeliver([held(lease)], "it fell over")
            assert not await is_free(queue)
            (lease,) = await queue.claim("w", 1, PLENTY)
        await queue.redeliver([held(lease)], "it fell over")
    assert await is_free(queue)


async def test_a_task_past_its_deadline_makes_room(queue: RedisQueue) -> None:
    await queue.enqueue(task("a", quota=ONE, deadline_s=0.001))
    while (await queue.depth()).waiting:
        pass
    assert await is_free(queue)


async def test_a_task_that_was_sent_before_is_no_second_one(queue: RedisQueue) -> None:
    again = Idempotency("key", "digest")
    first = await queue.enqueue(task("a", quota=ONE, idempotency=again))
    second = await queue.enqueue(task("b", quota=ONE, idempotency=again))
    assert (second.task_id, second.fresh) == (first.task_id, False)


async def test_a_task_that_has_anothers_answer_makes_room_with_it(queue: RedisQueue) -> None:
    two = Quota(holder="key:a", max_unfinished=2)
    same = SameAnswer("digest")
    await queue.enqueue(task("leader", quota=two, same=same))
    await queue.enqueue(task("follower", quota=two, same=same))
    assert not await is_free(queue, two)
    (lease,) = await queue.claim("w", 1, PLENTY)
    await queue.finish([answer(lease)])
    assert await is_free(queue)
    await queue.enqueue(task("cached", quota=ONE, same=same))
    assert await is_free(queue), "it has ended at once"


async def test_a_task_that_was_deleted_by_hand_takes_no_place_for_ever(
    queue: RedisQueue, redis: Redis, keys: Keys
) -> None:
    await queue.enqueue(task("a", quota=ONE))
    await redis.delete(keys.prefix + KEY_NAMES["task"] + "a")
    assert await is_free(queue)
    assert await queue.claim("w", 1, PLENTY) == []
