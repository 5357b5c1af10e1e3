"""Finds keys that nothing would ever remove."""

from __future__ import annotations

from redis.asyncio import Redis

from forebay.core.lifecycle import State
from forebay.core.request import TaskId
from forebay.queue.schema import KEY_NAMES, LIVE_KEYS, Keys


async def find_leaks(redis: Redis, keys: Keys) -> list[str]:
    """Return the keys without TTL that schema.py does not except, and excepted ones out of use.

    What is kept for a task may lack a TTL only while an index that a worker or a sweep reads still
    names the task.
    """
    leaks = []
    indexed = await _indexed_tasks(redis, keys)
    async for key in redis.scan_iter(match="*"):
        if not key.startswith(keys.prefix):
            leaks.append(f"{key} (outside the hash tag)")
            continue
        if await redis.pttl(key) != -1:  # -2: it has expired meanwhile
            continue
        kind = keys.kind(key)
        if kind not in LIVE_KEYS:
            leaks.append(key)
        elif kind in ("hooks", "hook_line"):
            leaks += await _hooks_of_nothing(redis, keys, key)
        elif kind == "batch":
            batch_id = key.removeprefix(keys.prefix + KEY_NAMES["batch"])
            if await redis.zscore(keys.prefix + KEY_NAMES["batch_live"], batch_id) is None:
                leaks.append(f"{key} (in no index)")
        elif (task_id := await _task_of(redis, keys, key, kind)) is not None:
            state = await redis.hget(keys.task(task_id), "state")
            if state is None or State(state).final or task_id not in indexed:
                leaks.append(f"{key} ({state}, in no index)")
    return leaks


async def _hooks_of_nothing(redis: Redis, keys: Keys, index: str) -> list[str]:
    """Return the webhooks in an index of which nothing is kept that could be delivered."""
    held = [
        (one, keys.prefix + KEY_NAMES["hook"] + one) for one in await redis.zrange(index, 0, -1)
    ]
    return [f"{index} (of {one})" for one, hook in held if not await redis.exists(hook)]


async def _task_of(redis: Redis, keys: Keys, key: str, kind: str) -> TaskId | None:
    """Return the task for which this key is kept, if it is for one."""
    if kind in ("idem", "same"):
        return TaskId(str(await redis.get(key)).split(" ")[0])
    if kind in ("task", "body", "followers"):
        return TaskId(key.removeprefix(keys.prefix + KEY_NAMES[kind]))
    return None


async def _indexed_tasks(redis: Redis, keys: Keys) -> set[str]:
    tasks: set[str] = set()
    followers = redis.scan_iter(match=keys.prefix + KEY_NAMES["followers"] + "*")
    async for key in followers:
        tasks |= set(await redis.zrange(key, 0, -1))
    for kind in ("suspects", "leases", "delayed"):
        tasks |= set(await redis.zrange(keys.prefix + KEY_NAMES[kind], 0, -1))
    async for line in redis.scan_iter(match=keys.prefix + KEY_NAMES["line"] + "*"):
        tasks |= set(await redis.zrange(line, 0, -1))
    return tasks
