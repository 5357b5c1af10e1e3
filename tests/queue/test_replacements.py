from __future__ import annotations

from redis.asyncio import Redis

from forebay.queue.replacements import RedisReplacements
from forebay.queue.schema import Keys


async def test_replaced_workers_are_counted_by_reason_for_every_process(
    redis: Redis, keys: Keys
) -> None:
    assert await RedisReplacements(redis, keys.name).counts() == {}
    for reason in ("silent", "died", "silent"):
        await RedisReplacements(redis, keys.name).note(reason)
    assert await RedisReplacements(redis, keys.name).counts() == {"silent": 2, "died": 1}
    assert await RedisReplacements(redis, f"{keys.name}-b").counts() == {}
