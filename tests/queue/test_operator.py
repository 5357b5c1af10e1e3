from __future__ import annotations

import asyncio

import pytest
from redis.asyncio import Redis

from forebay.core.lifecycle import State
from forebay.core.request import Priority, TaskId, Tenant
from forebay.queue.ports import Idempotency, Listing, TenantLoad
from forebay.queue.redis_operator import RedisOperator
from forebay.queue.redis_queue import RedisQueue
from forebay.queue.schema import Keys
from forebay.queue.token_stream import RedisTokenStreams
from tests.queue.making import PLENTY, answer, names, task


@pytest.fixture
async def operator(queue: RedisQueue, redis: Redis, keys: Keys) -> RedisOperator:
    return RedisOperator(redis, keys.name)


async def die(queue: RedisQueue, name: str) -> None:
    await queue.enqueue(task(name, idempotency=Idempotency(f"key of {name}", "digest")))
    for _ in range(3):
        assert names(await queue.claim("w", 1, PLENTY)) == [name]
        await queue.reap("w")


async def listed(operator: RedisOperator, listing: Listing, limit: int = 2) -> list[str]:
    found: list[str] = []
    cursor = ""
    while True:
        page = await operator.list_tasks(listing, cursor=cursor, limit=limit)
        assert len(page.tasks) <= limit
        found += [one.task_id for one in page.tasks]
        if not (cursor := page.cursor):
            return found


async def test_waiting_tasks_are_listed_page_by_page(
    queue: RedisQueue, operator: RedisOperator
) -> None:
    for i in range(5):
        await queue.enqueue(task(f"b{i}", tenant="blue", priority=Priority.BATCH))
        await queue.enqueue(task(f"a{i}", tenant="acme"))
        await queue.enqueue(task(f"n{i}", tenant="blue"))
    everyone = [f"{kind}{i}" for kind in "anb" for i in range(5)]
    for limit in (1, 2, 5, 100):
        assert await listed(operator, Listing.WAITING, limit) == everyone
    page = await operator.list_tasks(
        Listing.WAITING, priority=Priority.NORMAL, tenant=Tenant("blue")
    )
    assert [one.task_id for one in page.tasks] == [f"n{i}" for i in range(5)]


async def test_a_listing_goes_on_where_it_was_though_its_last_task_has_left(
    queue: RedisQueue, operator: RedisOperator
) -> None:
    for i in range(6):
        await queue.enqueue(task(f"t{i}", delay_s=60))
    seen = []
    page = await operator.list_tasks(Listing.DELAYED, limit=2)
    while True:
        seen += [one.task_id for one in page.tasks]
        for one in page.tasks:
            await queue.cancel(one.task_id)
        if not page.cursor:
            break
        page = await operator.list_tasks(Listing.DELAYED, cursor=page.cursor, limit=2)
    assert sorted(seen) == [f"t{i}" for i in range(6)]


@pytest.mark.parametrize("cursor", ["x", "{}", "[1, 2]", '["1"]', "null"])
async def test_what_is_no_cursor_is_refused(operator: RedisOperator, cursor: str) -> None:
    with pytest.raises(ValueError, match="cursor"):
        await operator.list_tasks(Listing.DEAD, cursor=cursor)


async def test_a_dead_letter_is_sent_back_with_all_its_deliveries_and_runs_alone(
    queue: RedisQueue, operator: RedisOperator, streams: RedisTokenStreams
) -> None:
    await die(queue, "poison")
    assert await listed(operator, Listing.DEAD) == ["poison"]
    assert await operator.retry(TaskId("poison"))
    assert await operator.retry(TaskId("poison")) is False
    assert await listed(operator, Listing.DEAD) == []
    await queue.enqueue(task("other"))
    (lease,) = await queue.claim("w", 9, PLENTY)
    assert (lease.task_id, lease.deliveries) == ("poison", 1)
    assert await queue.finish([answer(lease)]) == ["poison"]
    record = await queue.get(TaskId("poison"))
    assert record is not None
    assert (record.state, record.text, record.error) == (State.FINISHED, "42", None)
    async with streams.subscribe(TaskId("poison")) as entries:
        assert [str(entry.kind) async for entry in entries] == ["restart", "done"]


async def test_a_dropped_dead_letter_leaves_nothing(
    queue: RedisQueue, operator: RedisOperator, redis: Redis, keys: Keys
) -> None:
    await die(queue, "poison")
    assert await operator.drop(TaskId("poison"))
    assert await operator.drop(TaskId("poison")) is False
    assert await queue.get(TaskId("poison")) is None
    left = {keys.kind(key) async for key in redis.scan_iter()}
    assert left <= {"meta", "wake", "workers"}
    assert (await queue.enqueue(task("b", idempotency=Idempotency("key of poison", "x")))).fresh


async def test_only_dead_letters_are_retried_and_dropped(
    queue: RedisQueue, operator: RedisOperator
) -> None:
    await queue.enqueue(task("waits"))
    for name in ("waits", "nobody"):
        assert await operator.retry(TaskId(name)) is False
        assert await operator.drop(TaskId(name)) is False
    assert names(await queue.claim("w", 1, PLENTY)) == ["waits"]


async def test_dead_letters_are_forgotten_whole_when_their_time_is_over(
    queue: RedisQueue, redis: Redis, keys: Keys
) -> None:
    await die(queue, "poison")
    await redis.zadd(f"{keys.prefix}dead", {"poison": 1}, xx=True)
    assert (await queue.depth()).dead == 0
    assert await queue.get(TaskId("poison")) is None


async def test_a_drained_queue_takes_tasks_finishes_them_and_gives_out_none(
    queue: RedisQueue, operator: RedisOperator
) -> None:
    await queue.enqueue(task("running"))
    (lease,) = await queue.claim("w", 1, PLENTY)
    await operator.drain()
    await queue.enqueue(task("waits"))
    assert await queue.claim("w", 9, PLENTY) == []
    assert (await queue.depth()).drained
    assert await queue.finish([answer(lease)]) == ["running"]
    await queue.wait_for_work(1)  # what came before is known
    waiting = asyncio.create_task(queue.wait_for_work(30))
    await operator.drain(on=False)
    await asyncio.wait_for(waiting, 10)
    assert names(await queue.claim("w", 9, PLENTY)) == ["waits"]


async def test_every_tenant_with_waiting_tasks_is_known(
    queue: RedisQueue, operator: RedisOperator
) -> None:
    for i in range(3):
        await queue.enqueue(task(f"a{i}", tenant="acme", cost=7))
    await queue.enqueue(task("b", tenant="blue", cost=5))
    assert await operator.tenants() == {"acme": TenantLoad(3, 21), "blue": TenantLoad(1, 5)}
    await queue.cancel(TaskId("b"))
    assert await operator.tenants() == {"acme": TenantLoad(3, 21)}
