"""docket: answers are kept for a quarter of an hour by default."""

from __future__ import annotations

import os
from typing import Any

import uvloop
from docket import Docket

from bench.queue_systems.clock import Sent, await_all, read_all
from bench.queue_systems.marks import Marks

NAME = "bench"
if os.environ.get("QUEUE_ROLE") == "work":
    marks = Marks.of_environment()


async def noop(number: int) -> int:
    """Answer with the number."""
    marks.ran(number)
    return number


tasks = (noop,)


async def _send(count: int) -> Sent:
    async with Docket(name=NAME, url=os.environ["QUEUE_URL"]) as docket:

        async def send_one(number: int) -> Any:
            return await docket.add(noop)(number)  # one ``add`` is one task, however often called

        return await await_all(send_one, count, lambda execution: str(execution.key))


async def _read(names: list[str]) -> list[Any]:
    async with Docket(name=NAME, url=os.environ["QUEUE_URL"]) as docket:
        docket.register(noop)

        async def read(name: str) -> Any:
            return await (await docket.get_execution(name)).get_result()

        return await read_all(read, names)


def send(count: int) -> Sent:
    """Send the numbers below ``count``."""
    return uvloop.run(_send(count))


def read(names: list[str]) -> list[Any]:
    """Return the answers of the tasks."""
    return uvloop.run(_read(names))
