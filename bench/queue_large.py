"""A million waiting tasks: what each takes of the server's memory, and what a claim takes then.

Two queues on one server, one with a thousand tasks waiting and one with a million, of the same
hundred tenants. Claims alternate between them and are given back, so both keep their length.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import time

import uvloop

from bench.plan import Raw
from bench.queue_plan import QueuePlan
from bench.queue_server import QueueServer, queue_server
from bench.queue_systems.requests import picture_task
from bench.statistics import percentile
from forebay.queue.connection import connect
from forebay.queue.limits import QueueLimits
from forebay.queue.redis_queue import RedisQueue

BATCH = 16
WRITERS = 32
PLENTY = 10**9
LIMITS = QueueLimits(max_waiting=10**9, max_waiting_tokens=10**15, lease_s=600.0)
PROCESSES = 2
NAMES = ("few", "many")


def large(plan: QueuePlan, part: str) -> Raw:
    """Fill two queues, weigh the larger, time claims on both."""
    with queue_server(plan.folder(part)) as server:
        raw = uvloop.run(_large(plan, part, server))
        return {**raw, "server": server.version()}


async def _large(plan: QueuePlan, part: str, server: QueueServer) -> Raw:
    redis = connect(server.unix)
    try:
        queues = [RedisQueue(redis, name, LIMITS) for name in NAMES]
        for queue in queues:
            await queue.start()
        await fill(queues[0], 0, plan.sizes.few)
        memory, began = server.used_memory(), time.monotonic()
        await _fill_many(server, plan.sizes.many)
        taken, seconds = server.used_memory() - memory, time.monotonic() - began
        depth = await queues[1].depth()
        if depth.waiting != plan.sizes.many:
            raise ValueError(f"{depth.waiting} tasks wait, not {plan.sizes.many}")
        plan.say(f"{part}: {depth.waiting} tasks in {seconds:.0f} s, {taken / depth.waiting:.0f} B")
        raw: Raw = {"tasks": depth.waiting, "fill_s": seconds, "used_memory": taken}
        plan.save(part, raw)
        for limit in (1, BATCH):
            raw[f"claim_of_{limit}_ms"] = await _time_claims(queues, limit, plan.sizes.claims)
        return raw
    finally:
        await redis.aclose()


async def _time_claims(queues: list[RedisQueue], limit: int, claims: int) -> Raw:
    """Return the figures of ``claims`` claims of ``limit`` tasks on each queue."""
    times: dict[str, list[float]] = {name: [] for name in NAMES}
    for _ in range(claims):
        for name, queue in zip(NAMES, queues, strict=True):
            began = time.perf_counter()
            leases = await queue.claim("bench", limit, PLENTY)
            times[name].append(1000 * (time.perf_counter() - began))
            if len(leases) != limit:
                raise ValueError(f"{len(leases)} leases instead of {limit}")
            await queue.release([(one.task_id, one.fence) for one in leases])
    return {
        name: {"p50": statistics.median(taken), "p99": percentile(taken, 0.99), "all": taken}
        for name, taken in times.items()
    }


async def _fill_many(server: QueueServer, count: int) -> None:
    """Enqueue from several processes: one would take its time."""
    share = -(-count // PROCESSES)
    fills = [
        await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "bench.queue_large", server.unix),
            *(str(first), str(min(share, count - first))),
        )
        for first in range(0, count, share)
    ]
    codes = [await one.wait() for one in fills]
    if any(codes):
        raise ValueError(f"filling the queue failed: {codes}")


async def fill(queue: RedisQueue, first: int, count: int) -> None:
    """Enqueue ``count`` tasks, some at a time."""
    numbers = iter(range(first, first + count))

    async def write() -> None:
        for number in numbers:
            await queue.enqueue(picture_task(number))

    await asyncio.gather(*(write() for _ in range(WRITERS)))


async def _fill_from(url: str, first: int, count: int) -> None:
    redis = connect(url)
    try:
        await fill(RedisQueue(redis, NAMES[1], LIMITS), first, count)
    finally:
        await redis.aclose()


if __name__ == "__main__":
    uvloop.run(_fill_from(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
