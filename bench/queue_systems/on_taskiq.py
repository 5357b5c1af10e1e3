"""taskiq on Redis streams (acknowledged), or on a list (``QUEUE_BROKER=list``: lost in a crash)."""

from __future__ import annotations

import os
from typing import Any

import uvloop
from taskiq_redis import ListQueueBroker, RedisAsyncResultBackend, RedisStreamBroker

from bench.queue_systems.clock import Sent, await_all, read_all
from bench.queue_systems.marks import Marks

URL = os.environ["QUEUE_URL"]
_Broker = ListQueueBroker if os.environ.get("QUEUE_BROKER") == "list" else RedisStreamBroker
results = RedisAsyncResultBackend(URL, result_ex_time=3600)
broker = _Broker(URL).with_result_backend(results)
if os.environ.get("QUEUE_ROLE") == "work":
    marks = Marks.of_environment()


async def _noop(number: int) -> int:
    marks.ran(number)
    return number


noop = broker.register_task(_noop, "noop")


async def _send(count: int) -> Sent:
    await broker.startup()
    try:
        return await await_all(noop.kiq, count, lambda task: str(task.task_id))
    finally:
        await broker.shutdown()


async def _read(names: list[str]) -> list[Any]:
    await results.startup()
    try:

        async def read(name: str) -> Any:
            return (await results.get_result(name)).return_value

        return await read_all(read, names)
    finally:
        await results.shutdown()


def send(count: int) -> Sent:
    """Send the numbers below ``count``."""
    return uvloop.run(_send(count))


def read(names: list[str]) -> list[Any]:
    """Return the answers of the tasks."""
    return uvloop.run(_read(names))
