from __future__ import annotations

from dataclasses import replace

import pytest
from redis.asyncio import Redis

from forebay.core.errors import IdempotencyConflictError
from forebay.core.lifecycle import State
from forebay.core.request import TaskId, Tenant
from forebay.queue.limits import QueueLimits
from forebay.queue.ports import Idempotency, Quota
from forebay.queue.redis_queue import RedisQueue
from forebay.queue.schema import KEY_NAMES, Keys
from tests.queue.making import PLENTY, answer, names, task

KEY = Idempotency("retry-me", "digest-of-the-body")


async def key_ttl_ms(redis: Redis, keys: Keys) -> int:
    (key,) = [key async for key in redis.scan_iter(match=f"{keys.prefix}{KEY_NAMES['idem']}*")]
    return int(await redis.pttl(key))


async def test_the_same_request_under_the_same_key_is_the_same_task(queue: RedisQueue) -> None:
    first = await queue.enqueue(task("a", idempotency=KEY))
    again = await queue.enqueue(task("b", idempotency=KEY))
    assert (first.task_id, first.fresh) == ("a", True)
    assert (again.task_id, again.fresh, again.position) == ("a", False, 0)
    assert await queue.get(TaskId("b")) is None
    assert names(await queue.claim("w", 9, PLENTY)) == ["a"]


async def test_another_request_under_the_same_key_is_refused(queue: RedisQueue) -> None:
    await queue.enqueue(task("a", idempotency=KEY))
    with pytest.raises(IdempotencyConflictError, match="task a"):
        await queue.enqueue(task("b", idempotency=Idempotency(KEY.key, "another")))
    assert (await queue.depth()).waiting == 1


@pytest.mark.parametrize("limits", [QueueLimits(max_waiting=1)])
async def test_a_key_is_looked_for_without_a_task(queue: RedisQueue, limits: QueueLimits) -> None:
    assert await queue.replayed(Tenant("default"), KEY) is None
    first = await queue.enqueue(task("a", idempotency=KEY))  # and the queue is full
    again = await queue.replayed(Tenant("default"), KEY)
    assert again == replace(first, fresh=False)
    assert await queue.replayed(Tenant("other"), KEY) is None
    with pytest.raises(IdempotencyConflictError, match="task a"):
        await queue.replayed(Tenant("default"), Idempotency(KEY.key, "another"))


async def test_keys_of_two_tenants_have_nothing_to_do_with_each_other(queue: RedisQueue) -> None:
    await queue.enqueue(task("a", tenant="acme", idempotency=KEY))
    other = await queue.enqueue(task("b", tenant="blue", idempotency=KEY))
    assert (other.task_id, other.fresh) == ("b", True)


async def test_a_key_lives_as_long_as_its_task(
    queue: RedisQueue, redis: Redis, keys: Keys, limits: QueueLimits
) -> None:
    await queue.enqueue(task("a", idempotency=KEY))
    assert await key_ttl_ms(redis, keys) == -1
    (lease,) = await queue.claim("w", 1, PLENTY)
    await queue.finish([answer(lease)])
    assert 0 < await key_ttl_ms(redis, keys) <= limits.result_ttl_s * 1000
    again = await queue.enqueue(task("b", idempotency=KEY))
    record = await queue.get(again.task_id)
    assert record is not None
    assert (record.state, record.text) == (State.FINISHED, "42")


async def test_a_known_key_is_answered_when_nothing_new_would_be_taken(
    redis: Redis, keys: Keys
) -> None:
    queue = RedisQueue(redis, keys.name, QueueLimits(max_waiting=1))
    await queue.start()
    await queue.enqueue(task("a", idempotency=KEY))
    assert (await queue.enqueue(task("b", idempotency=KEY))).task_id == "a"


async def test_a_long_key_is_kept_short(queue: RedisQueue, redis: Redis, keys: Keys) -> None:
    long = Idempotency("k" * 100_000, "digest")
    await queue.enqueue(task("a", idempotency=long, quota=Quota()))
    assert not (await queue.enqueue(task("b", idempotency=long))).fresh
    assert [key async for key in redis.scan_iter() if len(key) > 200] == []


async def test_the_key_of_a_task_deleted_by_hand_is_free_again(
    queue: RedisQueue, redis: Redis, keys: Keys
) -> None:
    await queue.enqueue(task("a", idempotency=KEY))
    await redis.delete(keys.task(TaskId("a")))
    assert (await queue.enqueue(task("b", idempotency=KEY))).fresh
    assert names(await queue.claim("w", 9, PLENTY)) == ["b"]
