from __future__ import annotations

import asyncio

import pytest
from redis.asyncio import Redis

from forebay.core.errors import QueueFullError, RateLimitedError, TenantOverQuotaError
from forebay.core.request import TaskId
from forebay.queue.limits import QueueLimits
from forebay.queue.ports import Quota
from forebay.queue.redis_queue import RedisQueue
from forebay.queue.schema import KEY_NAMES, Keys
from tests.queue.making import PLENTY, held, task


async def test_a_tenant_over_its_count_is_refused_and_the_others_are_not(queue: RedisQueue) -> None:
    few = Quota(max_waiting=2)
    for name in "ab":
        await queue.enqueue(task(name, tenant="acme", quota=few))
    with pytest.raises(TenantOverQuotaError, match="2 tasks") as refused:
        await queue.enqueue(task("c", tenant="acme", quota=few))
    assert refused.value.retry_after is not None
    assert refused.value.retry_after >= 1
    assert await queue.get(TaskId("c")) is None
    await queue.enqueue(task("d", tenant="blue", quota=few))
    await queue.claim("w", 1, PLENTY)
    await queue.enqueue(task("c", tenant="acme", quota=few))


async def test_a_tenant_over_its_tokens_is_refused(queue: RedisQueue) -> None:
    little = Quota(max_waiting_tokens=100)
    await queue.enqueue(task("huge", cost=1000, quota=little))  # nothing of it waits: it may
    with pytest.raises(TenantOverQuotaError, match="1000 tokens"):
        await queue.enqueue(task("b", cost=1, quota=little))


@pytest.mark.parametrize("limits", [QueueLimits(tenant_max_waiting=1)])
async def test_what_a_task_brings_no_quota_for_is_bounded_by_the_queues_own(
    queue: RedisQueue,
) -> None:
    await queue.enqueue(task("a"))
    with pytest.raises(TenantOverQuotaError):
        await queue.enqueue(task("b"))
    await queue.enqueue(task("b", quota=Quota(max_waiting=2)))


@pytest.mark.parametrize("way", ["suspect", "delayed", "released"])
async def test_a_task_counts_wherever_it_waits(queue: RedisQueue, way: str) -> None:
    one = Quota(max_waiting=1)
    await queue.enqueue(task("a", quota=one, delay_s=60 if way == "delayed" else 0))
    if way != "delayed":
        (lease,) = await queue.claim("w", 1, PLENTY)
        await (queue.reap("w") if way == "suspect" else queue.release([held(lease)]))
    with pytest.raises(TenantOverQuotaError):
        await queue.enqueue(task("b", quota=one))
    await queue.cancel(TaskId("a"))
    await queue.enqueue(task("b", quota=one))


async def test_a_burst_passes_and_then_the_rate_says_exactly_when_to_come_again(
    queue: RedisQueue,
) -> None:
    slow = Quota(rate_per_s=0.01, burst=3)
    for name in "abc":
        await queue.enqueue(task(name, tenant="acme", quota=slow))
    with pytest.raises(RateLimitedError) as refused:
        await queue.enqueue(task("d", tenant="acme", quota=slow))
    assert refused.value.retry_after is not None
    assert 90 < refused.value.retry_after <= 100
    await queue.enqueue(task("d", tenant="blue", quota=slow))


async def test_after_the_time_that_a_refusal_named_the_task_is_taken(queue: RedisQueue) -> None:
    quick = Quota(rate_per_s=20, burst=1)
    await queue.enqueue(task("a", quota=quick))
    with pytest.raises(RateLimitedError) as refused:
        await queue.enqueue(task("b", quota=quick))
    assert refused.value.retry_after is not None
    await asyncio.sleep(refused.value.retry_after + 0.005)
    await queue.enqueue(task("b", quota=quick))


@pytest.mark.parametrize("limits", [QueueLimits(max_waiting=1)])
async def test_a_task_that_is_refused_for_another_reason_costs_no_rate(queue: RedisQueue) -> None:
    slow = Quota(rate_per_s=0.001, burst=2)
    await queue.enqueue(task("a", quota=slow))
    for _ in range(3):
        with pytest.raises(QueueFullError):
            await queue.enqueue(task("b", quota=slow))
    await queue.claim("w", 1, PLENTY)
    await queue.enqueue(task("b", quota=slow))
    await queue.claim("w", 1, PLENTY)
    with pytest.raises(RateLimitedError):
        await queue.enqueue(task("c", quota=slow))


async def test_a_tenant_without_waiting_tasks_leaves_no_counter(
    queue: RedisQueue, redis: Redis, keys: Keys
) -> None:
    for i in range(5):
        await queue.enqueue(task(f"t{i}", tenant=f"tenant {i}"))
    await queue.claim("w", 4, PLENTY)
    assert await redis.hlen(keys.prefix + KEY_NAMES["tenants"]) == 2
    await queue.claim("w", 4, PLENTY)
    assert not await redis.exists(keys.prefix + KEY_NAMES["tenants"])


@pytest.mark.parametrize("limits", [QueueLimits(max_waiting=2, max_waiting_tokens=1000)])
async def test_a_full_queue_says_when_there_will_be_room_by_the_measured_rate(
    queue: RedisQueue, redis: Redis, keys: Keys
) -> None:
    await redis.hset(keys.meta, mapping={"work": 60, "busy": 1000})  # 60 tokens a second
    await queue.enqueue(task("a", cost=600))
    with pytest.raises(QueueFullError, match="600 tokens") as tokens:
        await queue.enqueue(task("b", cost=1000))
    assert tokens.value.retry_after == pytest.approx(600 / 60)
    await queue.enqueue(task("b", cost=300))
    with pytest.raises(QueueFullError, match="2 tasks") as tasks:
        await queue.enqueue(task("c", cost=1))
    assert tasks.value.retry_after == pytest.approx(450 / 60)  # one task of the mean cost


@pytest.mark.parametrize("limits", [QueueLimits(max_waiting_tokens=10**6)])
@pytest.mark.parametrize(("speed", "told_s"), [(1000, 1), (1, 600)])
async def test_a_refusal_names_a_second_at_least_and_ten_minutes_at_most(
    queue: RedisQueue, redis: Redis, keys: Keys, speed: int, told_s: float
) -> None:
    await redis.hset(keys.meta, mapping={"work": speed, "busy": 1000})
    await queue.enqueue(task("a", cost=10**6))
    with pytest.raises(QueueFullError) as refused:
        await queue.enqueue(task("b", cost=500 if speed == 1000 else 700))
    assert refused.value.retry_after == told_s
