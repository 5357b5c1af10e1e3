"""Finds keys that nothing would ever remove."""

from __future__ import annotations

from redis.asyncio import Redis

from forebay.core.lifecycle import State
from forebay.queue.schema import KEY_NAMES, LIVE_KEYS, Keys


async def find_leaks(redis: Redis, keys: Keys) -> list[str]:
    """Return the keys without TTL that schema.py does not except, and excepted ones out of use.

    A task may lack a TTL only while an index that a worker or a sweep reads still names it.
    """
    leaks = []
    indexed = await _indexed_tasks(redis, keys)
    async for key in redis.scan_iter(match="*"):
        if not key.startswith(keys.prefix):
            leaks.append(f"{key} (outside the hash tag)")
            continue
        if await redis.pttl(key) >= 0:
            continue
        kind = keys.kind(key)
        if kind not in LIVE_KEYS:
            leaks.append(key)
        elif kind == "task":
            task_id = key.removeprefix(keys.prefix + KEY_NAMES["task"])
            state = State(await redis.hget(key, "state"))
            if state.final or task_id not in indexed:
                leaks.append(f"{key} ({state}, in no index)")
    return leaks


async def _indexed_tasks(redis: Redis, keys: Keys) -> set[str]:
    tasks: set[str] = set()
    for kind in ("suspects", "leases"):
        tasks |= set(await redis.zrange(keys.prefix + KEY_NAMES[kind], 0, -1))
    async for line in redis.scan_iter(match=keys.prefix + KEY_NAMES["line"] + "*"):
        tasks |= set(await redis.zrange(line, 0, -1))
    return tasks
