"""SAQ: a task's answer lies in its job for ten minutes by default."""

from __future__ import annotations

import os
from typing import Any

import uvloop
from saq import Queue

from bench.queue_systems.clock import Sent, await_all, read_all
from bench.queue_systems.marks import Marks

URL = os.environ["QUEUE_URL"]
CONCURRENCY = int(os.environ.get("QUEUE_CONCURRENCY", "10"))


async def noop(_: dict[str, Any], *, number: int) -> int:
    """Answer with the number."""
    marks.ran(number)
    return number


async def sweep_first(context: dict[str, Any]) -> None:
    """Sweep before the first job is taken up, which keeps SAQ from sweeping for a minute.

    Its worker sweeps when it starts, beside its first jobs, and aborts those that it finds taken
    and not yet marked so: their answers would be lost.
    """
    await context["worker"].queue.sweep()


if os.environ.get("QUEUE_ROLE") == "work":
    marks = Marks.of_environment()
    settings = {
        "queue": Queue.from_url(URL),
        "functions": [noop],
        "concurrency": CONCURRENCY,
        "startup": sweep_first,
    }


async def _send(count: int) -> Sent:
    queue = Queue.from_url(URL)
    await queue.connect()
    try:
        return await await_all(
            lambda number: queue.enqueue("noop", number=number), count, lambda job: str(job.key)
        )
    finally:
        await queue.disconnect()


async def _read(names: list[str]) -> list[Any]:
    queue = Queue.from_url(URL)
    await queue.connect()

    async def read(name: str) -> Any:
        return (await queue.job(name)).result

    try:
        return await read_all(read, names)
    finally:
        await queue.disconnect()


def send(count: int) -> Sent:
    """Send the numbers below ``count``."""
    return uvloop.run(_send(count))


def read(names: list[str]) -> list[Any]:
    """Return the answers of the tasks."""
    return uvloop.run(_read(names))
