from __future__ import annotations

import asyncio
import math
import time
from dataclasses import replace

import pytest
from redis.asyncio import Redis

from forebay.core.errors import QueueFullError
from forebay.core.lifecycle import State
from forebay.core.request import Priority, TaskId, Terms
from forebay.queue.limits import QueueLimits
from forebay.queue.ports import QueueDepth
from forebay.queue.redis_queue import RedisQueue
from forebay.queue.schema import Keys
from tests.queue.making import PLENTY, answer, held, names, request, task


async def test_a_task_is_known_from_the_moment_it_is_taken(queue: RedisQueue) -> None:
    taken = await queue.enqueue(task("a", tenant="acme", priority=Priority.VIP))
    record = await queue.get(TaskId("a"))
    assert taken.position == 0
    assert record is not None
    assert (record.state, record.tenant, record.priority) == (State.QUEUED, "acme", Priority.VIP)
    assert record.model == "demo"
    assert record.position == 0
    assert record.created_s > 1_700_000_000


async def test_an_unknown_task_is_none(queue: RedisQueue) -> None:
    assert await queue.get(TaskId("nobody")) is None
    assert await queue.cancel(TaskId("nobody")) is False


async def test_enqueueing_an_id_again_changes_nothing(queue: RedisQueue) -> None:
    await queue.enqueue(task("a", cost=7))
    await queue.enqueue(task("b"))
    again = await queue.enqueue(task("a", cost=7))
    assert again.position == 0
    assert replace(await queue.depth(), oldest_s=0) == QueueDepth(2, 0, 0, 17)


async def test_a_lease_carries_the_request_as_it_was_sent(queue: RedisQueue) -> None:
    await queue.enqueue(task("a", cost=33))
    (lease,) = await queue.claim("w", 1, PLENTY)
    assert lease.request == request()
    assert (lease.cost_total, lease.deliveries, lease.fence) == (33, 1, 1)
    record = await queue.get(TaskId("a"))
    assert record is not None
    assert record.state is State.LEASED
    assert record.leased_s is not None
    assert record.position is None


async def test_tasks_of_a_tenant_come_in_the_order_of_arrival(queue: RedisQueue) -> None:
    for name in "cab":
        await queue.enqueue(task(name))
    assert names(await queue.claim("w", 10, PLENTY)) == ["c", "a", "b"]


async def test_vip_comes_before_normal_before_batch(queue: RedisQueue) -> None:
    for priority in (Priority.BATCH, Priority.NORMAL, Priority.VIP):
        await queue.enqueue(task(str(priority), priority=priority))
    assert names(await queue.claim("w", 10, PLENTY)) == ["vip", "normal", "batch"]


async def test_tenants_take_turns_whatever_the_length_of_their_lines(queue: RedisQueue) -> None:
    for i in range(20):
        await queue.enqueue(task(f"big{i}", tenant="big"))
    for i in range(3):
        await queue.enqueue(task(f"small{i}", tenant="small"))
    first = names(await queue.claim("w", 6, PLENTY))
    assert sorted(first) == ["big0", "big1", "big2", "small0", "small1", "small2"]


async def test_turns_are_paid_for_in_tokens(queue: RedisQueue) -> None:
    for i in range(10):
        await queue.enqueue(task(f"dear{i}", tenant="dear", cost=300))
        await queue.enqueue(task(f"cheap{i}", tenant="cheap", cost=100))
    first = names(await queue.claim("w", 8, PLENTY))
    assert sum(name.startswith("cheap") for name in first) == 6


async def test_a_tenant_that_comes_and_goes_gains_no_turns(queue: RedisQueue) -> None:
    for i in range(10):
        await queue.enqueue(task(f"stays{i}", tenant="stays"))
    served = []
    for i in range(10):
        await queue.enqueue(task(f"comes{i}", tenant="comes"))
        served += names(await queue.claim("w", 1, PLENTY))
    assert sum(name.startswith("comes") for name in served) == 5


async def test_a_claim_keeps_to_the_free_tokens(queue: RedisQueue) -> None:
    for i in range(5):
        await queue.enqueue(task(f"t{i}", cost=40))
    assert len(await queue.claim("w", 10, 100)) == 2
    assert len(await queue.claim("w", 10, 39)) == 0


async def test_an_idle_worker_gets_a_task_of_any_cost(queue: RedisQueue) -> None:
    await queue.enqueue(task("huge", cost=1000))
    await queue.enqueue(task("next", cost=1))
    assert names(await queue.claim("w", 10, 5)) == ["huge"]


async def test_a_large_task_at_the_head_is_not_overtaken(queue: RedisQueue) -> None:
    await queue.enqueue(task("running", cost=1))
    await queue.claim("w", 1, PLENTY)
    await queue.enqueue(task("large", cost=100))
    await queue.enqueue(task("small", cost=1))
    assert await queue.claim("w", 10, 50) == []


async def test_positions_count_who_is_ahead(queue: RedisQueue) -> None:
    await queue.enqueue(task("vip", priority=Priority.VIP))
    positions = [(await queue.enqueue(task(f"t{i}"))).position for i in range(3)]
    assert positions == [1, 2, 3]
    await queue.claim("w", 2, PLENTY)
    record = await queue.get(TaskId("t2"))
    assert record is not None
    assert record.position == 1


@pytest.mark.parametrize("limits", [QueueLimits(max_waiting=2, retry_after_s=7)])
async def test_a_full_queue_refuses_and_keeps_nothing(queue: RedisQueue) -> None:
    await queue.enqueue(task("a"))
    await queue.enqueue(task("b"))
    with pytest.raises(QueueFullError) as refused:
        await queue.enqueue(task("c"))
    assert refused.value.retry_after == 7
    assert await queue.get(TaskId("c")) is None
    await queue.claim("w", 1, PLENTY)
    await queue.enqueue(task("c"))


@pytest.mark.parametrize("limits", [QueueLimits(max_waiting_tokens=100)])
async def test_the_cap_on_tokens_refuses_what_a_count_would_take(queue: RedisQueue) -> None:
    await queue.enqueue(task("a", cost=90))
    with pytest.raises(QueueFullError, match="90 tokens"):
        await queue.enqueue(task("b", cost=20))
    await queue.enqueue(task("c", cost=10))


@pytest.mark.parametrize("limits", [QueueLimits(max_waiting_tokens=100)])
async def test_a_task_over_the_cap_is_taken_by_an_empty_queue(queue: RedisQueue) -> None:
    await queue.enqueue(task("huge", cost=1000))


async def test_depth_follows_tasks_through_their_life(queue: RedisQueue) -> None:
    for i in range(3):
        await queue.enqueue(task(f"t{i}", cost=5))
    assert replace(await queue.depth(), oldest_s=0) == QueueDepth(3, 0, 0, 15)
    leases = await queue.claim("w", 2, PLENTY)
    depth = await queue.depth()
    assert (depth.waiting, depth.leased, depth.waiting_tokens) == (1, 2, 5)
    await queue.finish([answer(lease) for lease in leases])
    assert (await queue.depth()).leased == 0


async def test_the_oldest_wait_is_that_of_the_longest_waiting_task(queue: RedisQueue) -> None:
    assert (await queue.depth()).oldest_s == 0
    await queue.enqueue(task("old", priority=Priority.BATCH))
    await asyncio.sleep(0.03)
    await queue.enqueue(task("new", priority=Priority.VIP))
    assert (await queue.depth()).oldest_s >= 0.03
    await queue.cancel(TaskId("old"))
    assert (await queue.depth()).oldest_s < 30


async def test_workers_are_counted_by_their_signs_of_life(
    redis: Redis, keys: Keys, queue: RedisQueue
) -> None:
    assert await queue.workers() == 0
    await queue.claim("one", 1, PLENTY)
    await queue.heartbeat("two", [])
    assert await queue.workers() == 2
    await redis.zadd(f"{keys.prefix}workers", {"one": 1})
    assert await queue.workers() == 1
    await queue.reap("two")
    assert await queue.workers() == 0


async def test_a_waiting_worker_is_woken_by_a_task(queue: RedisQueue) -> None:
    waiting = asyncio.create_task(queue.wait_for_work(30))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    await queue.enqueue(task("a"))
    await asyncio.wait_for(waiting, 5)


async def test_every_waiting_worker_is_woken(queue: RedisQueue, redis: Redis, keys: Keys) -> None:
    queues = [queue, RedisQueue(redis, keys.name), RedisQueue(redis, keys.name)]
    waiting = [asyncio.create_task(each.wait_for_work(30)) for each in queues]
    await asyncio.sleep(0.05)
    await queue.enqueue(task("a"))
    await asyncio.wait_for(asyncio.gather(*waiting), 5)


async def test_work_that_came_before_the_wait_is_not_missed(queue: RedisQueue) -> None:
    await queue.enqueue(task("a"))
    await asyncio.wait_for(queue.wait_for_work(30), 5)


async def test_work_given_back_wakes_a_worker(queue: RedisQueue) -> None:
    await queue.enqueue(task("a"))
    await queue.wait_for_work(1)
    (lease,) = await queue.claim("w", 1, PLENTY)
    assert await queue.claim("idle", 1, PLENTY) == []
    waiting = asyncio.create_task(queue.wait_for_work(30))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    await queue.release([held(lease)])
    await asyncio.wait_for(waiting, 5)


async def test_who_finds_nothing_is_woken_while_others_find_enough(queue: RedisQueue) -> None:
    for name in ("a", "b"):
        await queue.enqueue(task(name))
    await queue.wait_for_work(1)
    assert len(await queue.claim("busy", 1, PLENTY)) == 1  # it does not wait: there is more
    assert len(await queue.claim("busy", 1, PLENTY)) == 1
    assert await queue.claim("idle", 1, PLENTY) == []
    waiting = asyncio.create_task(queue.wait_for_work(30))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    await queue.enqueue(task("c"))
    await asyncio.wait_for(waiting, 5)


async def test_a_wait_without_work_ends(queue: RedisQueue) -> None:
    await asyncio.wait_for(queue.wait_for_work(0.05), 5)


async def test_a_deadline_that_passed_ends_a_waiting_task(queue: RedisQueue) -> None:
    await queue.enqueue(task("late", deadline_s=0.02))
    await queue.enqueue(task("patient", deadline_s=60))
    await asyncio.sleep(0.04)
    assert names(await queue.claim("w", 10, PLENTY)) == ["patient"]
    record = await queue.get(TaskId("late"))
    assert record is not None
    assert record.state is State.EXPIRED
    assert record.error is not None
    assert record.error.code == "expired"
    assert (await queue.depth()).waiting_tokens == 0


async def test_a_lease_says_how_urgent_its_task_is(queue: RedisQueue) -> None:
    before = time.monotonic()
    await queue.enqueue(task("soon", deadline_s=60, priority=Priority.VIP))
    await queue.enqueue(task("whenever", priority=Priority.BATCH))
    soon, whenever = await queue.claim("w", 2, PLENTY)
    assert soon.terms.priority == Priority.VIP
    assert before + 55 < soon.terms.deadline <= time.monotonic() + 60
    assert whenever.terms == Terms(Priority.BATCH, math.inf)


async def test_a_deadline_is_kept_without_any_worker(queue: RedisQueue) -> None:
    await queue.enqueue(task("late", deadline_s=0.02))
    await asyncio.sleep(0.04)
    assert (await queue.depth()).waiting == 0
    record = await queue.get(TaskId("late"))
    assert record is not None
    assert record.state is State.EXPIRED


async def test_an_ended_id_is_not_run_again(queue: RedisQueue) -> None:
    await queue.enqueue(task("a"))
    await queue.cancel(TaskId("a"))
    assert (await queue.enqueue(task("a"))).position == 0
    assert await queue.claim("w", 1, PLENTY) == []


async def test_tasks_deleted_by_hand_do_not_stop_the_line(
    queue: RedisQueue, redis: Redis, keys: Keys
) -> None:
    await queue.enqueue(task("suspect"))
    await queue.claim("w", 1, PLENTY)
    await queue.reap("w")
    for name in ("gone", "late", "here"):
        await queue.enqueue(task(name, deadline_s=0.01 if name == "late" else None))
    await redis.delete(*(keys.task(TaskId(name)) for name in ("suspect", "gone", "late")))
    await asyncio.sleep(0.02)
    assert names(await queue.claim("w", 9, PLENTY)) == ["here"]
    assert (await queue.depth()).waiting == 0
