"""What was done although its reply never came: the next try must not deny it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from forebay.core.request import TaskId
from forebay.queue.connection import connect
from forebay.queue.limits import QueueLimits
from forebay.queue.redis_queue import RedisQueue
from tests.chaos.proxy import FAIR, Proxy, Way, Weather
from tests.chaos.stack import Stack
from tests.chaos.test_faults import server
from tests.queue.making import task

REPLIES_LOST = Weather(swallowed=frozenset({Way.DOWN}))


@pytest.fixture
async def stack(tmp_path: Path) -> AsyncIterator[Stack]:
    async with server(tmp_path) as stack:
        yield stack


@pytest.fixture
async def proxy(stack: Stack) -> AsyncIterator[Proxy]:
    assert stack.valkey is not None
    async with Proxy(stack.valkey.port).listening() as proxy:
        yield proxy


@pytest.fixture
async def queue(proxy: Proxy) -> AsyncIterator[RedisQueue]:
    """A queue whose way to the server is the proxy, its connection made."""
    client = connect(f"redis://127.0.0.1:{proxy.port}/0")
    queue = RedisQueue(client, limits=QueueLimits(max_waiting=2))
    await queue.start()
    yield queue
    await client.aclose()


async def enqueued_without_a_reply(
    stack: Stack, proxy: Proxy, queue: RedisQueue, name: str
) -> asyncio.Task[object]:
    """Return an enqueue under way whose task is in the queue and whose reply is lost."""
    links = list(proxy.links)
    proxy.change(REPLIES_LOST, some=lambda: links)
    enqueueing = asyncio.ensure_future(queue.enqueue(task(name)))
    async with asyncio.timeout(30), stack.admin() as client:
        while not await client.exists(f"{{fb:main}}:t:{name}"):
            await asyncio.sleep(0.005)
    return enqueueing


async def test_a_task_that_is_in_is_not_refused_for_a_queue_that_it_filled(
    stack: Stack, proxy: Proxy, queue: RedisQueue
) -> None:
    await queue.enqueue(task("first"))
    enqueueing = await enqueued_without_a_reply(stack, proxy, queue, "second")
    proxy.change(FAIR)
    await enqueueing
    assert (await queue.depth()).waiting == 2


async def test_a_task_that_is_in_is_not_refused_for_memory_that_ran_out_since(
    stack: Stack, proxy: Proxy, queue: RedisQueue
) -> None:
    enqueueing = await enqueued_without_a_reply(stack, proxy, queue, "only")
    await stack.insist("CONFIG", "SET", "maxmemory", "1mb")
    proxy.change(FAIR)
    await enqueueing
    record = await queue.get(TaskId("only"))
    assert record is not None
