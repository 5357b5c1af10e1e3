"""arq: answers are kept for an hour by default."""

from __future__ import annotations

import os
from typing import Any

import uvloop
from arq import create_pool
from arq.connections import RedisSettings
from arq.jobs import Job

from bench.queue_systems.clock import Sent, await_all, read_all
from bench.queue_systems.marks import Marks

REDIS = RedisSettings.from_dsn(os.environ["QUEUE_URL"])
if os.environ.get("QUEUE_ROLE") == "work":
    marks = Marks.of_environment()


async def noop(_: dict[str, Any], number: int) -> int:
    """Answer with the number."""
    marks.ran(number)
    return number


class WorkerSettings:
    """What arq's command reads. It asks for work every half second by default."""

    functions = (noop,)
    redis_settings = REDIS
    max_jobs = int(os.environ.get("QUEUE_CONCURRENCY", "10"))
    poll_delay = 0.01


async def _send(count: int) -> Sent:
    pool = await create_pool(REDIS)
    try:
        return await await_all(
            lambda number: pool.enqueue_job("noop", number), count, lambda job: str(job.job_id)
        )
    finally:
        await pool.aclose()


async def _read(names: list[str]) -> list[Any]:
    pool = await create_pool(REDIS)
    try:

        async def read(name: str) -> Any:
            found = await Job(name, pool).result_info()
            return found.result if found else None

        return await read_all(read, names)
    finally:
        await pool.aclose()


def send(count: int) -> Sent:
    """Send the numbers below ``count``."""
    return uvloop.run(_send(count))


def read(names: list[str]) -> list[Any]:
    """Return the answers of the tasks."""
    return uvloop.run(_read(names))
