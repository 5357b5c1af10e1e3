from __future__ import annotations

import pytest
from redis.asyncio import Redis

from forebay.core.request import TaskId
from forebay.queue.limits import QueueLimits
from forebay.queue.redis_queue import RedisQueue
from forebay.queue.schema import KEY_NAMES, LIVE_KEYS, Keys
from tests.queue.key_check import find_leaks
from tests.queue.making import task


@pytest.mark.parametrize("name", ["", "a{b", "a}b", "a b"])
def test_a_name_that_would_break_the_hash_tag_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="name"):
        Keys(name)


def test_every_exception_from_expiry_is_a_kind_of_key() -> None:
    assert set(LIVE_KEYS) <= set(KEY_NAMES)


def test_every_key_has_one_kind() -> None:
    keys = Keys("q")
    assert keys.kind(keys.meta) == "meta"
    assert keys.kind(keys.task(TaskId("l:vip:x"))) == "task"
    assert keys.kind(keys.nudge("n")) == "nudge"
    with pytest.raises(ValueError, match="not a key"):
        keys.kind("{fb:q}:surprise")


@pytest.mark.parametrize(
    "wrong",
    [{"max_waiting": 0}, {"max_deliveries": 0}, {"lease_s": 0}, {"result_ttl_s": 0.001}],
)
def test_limits_under_which_nothing_could_run_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        QueueLimits(**wrong)


async def test_the_key_check_finds_what_would_stay_for_ever(
    queue: RedisQueue, redis: Redis, keys: Keys
) -> None:
    await queue.enqueue(task("waits"))
    await queue.enqueue(task("forgotten"))
    await queue.cancel(TaskId("forgotten"))
    assert await find_leaks(redis, keys) == []
    await redis.persist(keys.task(TaskId("forgotten")))
    await redis.persist(keys.stream(TaskId("forgotten")))
    await redis.set("elsewhere", 1)
    await redis.zrem(f"{keys.prefix}l:5:default", "waits")
    assert len(await find_leaks(redis, keys)) == 5
    await redis.flushdb()
