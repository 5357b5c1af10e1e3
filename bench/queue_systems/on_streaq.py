"""streaQ: answers are kept for five minutes by default."""

from __future__ import annotations

import os
from typing import Any

import uvloop
from streaq import Worker

from bench.queue_systems.clock import Sent, await_all, read_all
from bench.queue_systems.marks import Marks

worker = Worker(
    redis_url=os.environ["QUEUE_URL"],
    concurrency=int(os.environ.get("QUEUE_CONCURRENCY", "16")),
)
if os.environ.get("QUEUE_ROLE") == "work":
    marks = Marks.of_environment()


async def _noop(number: int) -> int:
    marks.ran(number)
    return number


noop = worker.task(name="noop")(_noop)


async def _send(count: int) -> Sent:
    async with worker:
        return await await_all(noop.enqueue, count, lambda task: str(task.id))


async def _read(names: list[str]) -> list[Any]:
    async with worker:

        async def read(name: str) -> Any:
            return (await worker.result_by_id(name)).result

        return await read_all(read, names)


def send(count: int) -> Sent:
    """Send the numbers below ``count``."""
    return uvloop.run(_send(count))


def read(names: list[str]) -> list[Any]:
    """Return the answers of the tasks."""
    return uvloop.run(_read(names))
