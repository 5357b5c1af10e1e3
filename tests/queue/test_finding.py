"""Tasks looked for across tenants: every page, every group, against all that there is."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import pytest
from redis.asyncio import Redis

from forebay.core.request import Priority
from forebay.queue.limits import QueueLimits
from forebay.queue.partitioned_operator import PartitionedOperator
from forebay.queue.partitions import PartitionedQueue
from forebay.queue.ports import FoundTasks, Group, Lease, Operator, Outcome, TaskError, TaskQuery
from forebay.queue.redis_operator import RedisOperator
from forebay.queue.redis_queue import RedisQueue
from forebay.queue.schema import Keys
from tests.queue.making import PLENTY, answer, held, task


@pytest.fixture
async def operator(queue: RedisQueue, redis: Redis, keys: Keys) -> RedisOperator:
    return RedisOperator(redis, keys.name)


async def every(operator: Operator, limit: int = 7, **query: object) -> list[str]:
    """Return the ids of all pages, in order."""
    found: list[str] = []
    before = ""
    for _ in range(200):
        page: FoundTasks = await operator.find(TaskQuery(limit=limit, before=before, **query))  # type: ignore[arg-type]
        assert len(page.tasks) <= limit
        found += [record.task_id for _, record in page.tasks]
        if not (before := page.after):
            return found
    raise AssertionError("the pages do not end")


def groups(*names: Group) -> dict[str, tuple[Group, ...]]:
    return {"groups": names}


async def test_waiting_tasks_of_all_tenants_come_newest_first_whatever_the_page(
    queue: RedisQueue, operator: RedisOperator
) -> None:
    order = []
    for i in range(30):
        name = f"{i:02}-{uuid4().hex[:6]}"
        await queue.enqueue(task(name, tenant=f"t{i % 4}", priority=Priority(i % 3)))
        order.append(name)
    for limit in (1, 4, 29, 100):
        assert await every(operator, limit, **groups(Group.QUEUED)) == order[::-1]
    of_one = [name for i, name in enumerate(order) if i % 4 == 2]
    assert await every(operator, 3, tenant="t2") == of_one[::-1]
    assert await every(operator, 3, prefix=order[17][:5]) == [order[17]]
    assert await every(operator, 3, prefix="nothing begins so") == []


async def test_a_line_longer_than_one_look_is_found_to_its_end(
    queue: RedisQueue, operator: RedisOperator
) -> None:
    names = [f"{'needle' if i in (3, 2200) else 'hay'}-{i}" for i in range(2300)]
    await asyncio.gather(*(queue.enqueue(task(name)) for name in names[:1]))
    for name in names[1:]:
        await queue.enqueue(task(name))
    page = await operator.find(TaskQuery(prefix="needle"))
    assert [record.task_id for _, record in page.tasks] == ["needle-2200"]
    assert page.after  # it has looked at 2,000 and says where to go on
    assert await every(operator, prefix="needle") == ["needle-2200", "needle-3"]


async def lease_all(queue: RedisQueue, count: int) -> list[Lease]:
    return await queue.claim("w", count, PLENTY)


async def test_each_end_has_its_group_and_a_task_is_in_one_group_only(
    queue: RedisQueue, operator: RedisOperator
) -> None:
    for name in ("done", "broken", "unwanted", "running", "waiting"):
        await queue.enqueue(task(name))
    leases = {one.task_id: one for one in await lease_all(queue, 4)}
    await queue.finish([answer(leases["done"])])  # type: ignore[index]
    failure = TaskError("inference_failed", "why")
    await queue.finish([Outcome(*held(leases["broken"]), error=failure)])  # type: ignore[index]
    await queue.cancel(leases["unwanted"].task_id)  # type: ignore[index]
    await queue.finish(
        [Outcome(*held(leases["unwanted"]), error=TaskError("cancelled", "by its client"))]  # type: ignore[index]
    )
    await queue.enqueue(task("late", delay_s=600.0))
    assert {group: await every(operator, **groups(group)) for group in Group} == {
        Group.QUEUED: ["waiting"],
        Group.DELAYED: ["late"],
        Group.SUSPECT: [],
        Group.RUNNING: ["running"],
        Group.DEAD: [],
        Group.FINISHED: ["done"],
        Group.FAILED: ["broken"],
        Group.CANCELLED: ["unwanted"],
        Group.EXPIRED: [],
    }
    everything = await every(operator, 2)
    assert sorted(everything) == sorted([*leases, "waiting", "late"])


async def test_of_ended_tasks_the_last_are_kept_and_it_is_said_that_there_may_be_more(
    queue: RedisQueue, operator: RedisOperator, redis: Redis, keys: Keys
) -> None:
    for i in range(600):
        await queue.enqueue(task(f"n{i:03}"))
    for lease in [one for _ in range(6) for one in await lease_all(queue, 100)]:
        await queue.finish([answer(lease)])
    assert await redis.llen(f"{keys.prefix}recent:finished") == 500
    page = await operator.find(TaskQuery(groups=(Group.FINISHED,)))
    assert page.partial
    assert await every(operator, 100, **groups(Group.FINISHED)) == [
        f"n{i:03}" for i in range(599, 99, -1)
    ]


async def test_partitions_are_looked_through_as_one(redis: Redis, keys: Keys) -> None:
    names = [f"{keys.name}:{number}" for number in range(3)]
    queues = [RedisQueue(redis, name) for name in names]
    async with PartitionedQueue(queues) as whole:
        await whole.start()
        order = []
        for i in range(20):
            order.append((await whole.enqueue(task(f"{i:02}", tenant=f"t{i % 7}"))).task_id)
        operator = PartitionedOperator([RedisOperator(redis, name) for name in names])
        for limit in (1, 3, 50):
            assert await every(operator, limit) == order[::-1]
    await redis.flushdb()


async def test_deliveries_that_came_to_nothing_are_remembered_with_their_times(
    redis: Redis, keys: Keys
) -> None:
    queue = RedisQueue(redis, keys.name, QueueLimits(max_deliveries=3))
    await queue.start()
    await queue.enqueue(task("a"))
    (first,) = await queue.claim("w1", 1, PLENTY)
    await queue.release([held(first)])
    (second,) = await queue.claim("w2", 1, PLENTY)
    await queue.redeliver([held(second)], "the upstream broke off")
    (third,) = await queue.claim("w3", 1, PLENTY)
    await queue.reap("w3")
    record = await queue.get(first.task_id)
    assert record is not None
    told = [(one.attempt, one.worker, one.why) for one in record.past]
    assert told == [(1, "w1", "released"), (1, "w2", "the upstream broke off"), (2, "w3", "lost")]
    for one in record.past:
        assert one.leased_s is not None
        assert record.created_s - 0.001 <= one.leased_s <= one.returned_s
    assert third.deliveries == 2


async def test_only_the_last_deliveries_are_remembered(queue: RedisQueue) -> None:
    await queue.enqueue(task("a"))
    for i in range(12):
        (lease,) = await queue.claim(f"w{i}", 1, PLENTY)
        await queue.release([held(lease)])
    record = await queue.get(lease.task_id)
    assert record is not None
    assert [one.worker for one in record.past] == [f"w{i}" for i in range(4, 12)]
