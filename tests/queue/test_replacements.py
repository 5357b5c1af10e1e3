from __future__ import annotations

from redis.asyncio import Redis

from forebay.queue.replacements import RedisReplacements


async def test_replaced_workers_are_counted_by_reason_for_every_process(redis: Redis) -> None:
    assert await RedisReplacements(redis, "a").counts() == {}
    for reason in ("silent", "died", "silent"):
        await RedisReplacements(redis, "a").note(reason)
    assert await RedisReplacements(redis, "a").counts() == {"silent": 2, "died": 1}
    assert await RedisReplacements(redis, "b").counts() == {}
