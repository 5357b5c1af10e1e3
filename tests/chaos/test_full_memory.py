"""With its server's memory full the queue takes nothing in, and still gives and takes back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from forebay.core.errors import IdempotencyConflictError, QueueFullError
from forebay.core.request import TaskId
from forebay.queue.address import parse_address
from forebay.queue.connection import connect
from forebay.queue.opening import open_queue
from forebay.queue.ports import Idempotency, Listing, NewTask
from forebay.queue.redis_queue import RedisQueue
from tests.chaos.stack import Stack
from tests.chaos.test_faults import server
from tests.queue.making import answer, task


@pytest.fixture
async def stack(tmp_path: Path) -> AsyncIterator[Stack]:
    async with server(tmp_path) as stack:
        yield stack


@pytest.fixture
async def queue(stack: Stack) -> AsyncIterator[RedisQueue]:
    """A queue with a task, on a server whose memory has since run out."""
    client = connect(stack.queue_url)
    queue = RedisQueue(client)
    await queue.start()
    await queue.enqueue(task("before"))
    await stack.insist("CONFIG", "SET", "maxmemory", "1mb")
    yield queue
    await client.aclose()


async def test_accepted_tasks_are_given_and_finished_and_new_ones_refused(
    queue: RedisQueue,
) -> None:
    with pytest.raises(QueueFullError):
        await queue.enqueue(task("after"))
    (lease,) = await queue.claim("w", 8, 100_000)
    assert await queue.finish([answer(lease)]) == ["before"]
    assert await queue.get(task("after").task_id) is None


async def test_a_worker_that_starts_now_can_work(stack: Stack, queue: RedisQueue) -> None:
    async with open_queue(parse_address(stack.queue_url)) as opened:
        (lease,) = await opened.queue.claim("new", 8, 100_000)
        assert await opened.queue.finish([answer(lease)]) == ["before"]


async def test_a_door_that_starts_now_tells_where_tasks_stand(
    stack: Stack, queue: RedisQueue
) -> None:
    async with open_queue(parse_address(stack.queue_url)) as opened, opened.streams as streams:
        task_id = TaskId("before")
        record = await opened.queue.get(task_id)
        assert record is not None
        assert record.position == 0
        assert [*await opened.queue.glance([task_id])] == [task_id]
        assert await opened.queue.workers() == 0
        assert len((await opened.operator.list_tasks(Listing.WAITING)).tasks) == 1
        async with streams.subscribe(task_id) as entries:
            assert await opened.queue.cancel(task_id)
            assert [entry.kind async for entry in entries] == ["cancelled"]


def keyed(name: str, key: str, body: str = "body") -> NewTask:
    return task(name, idempotency=Idempotency(key, body))


async def test_a_key_that_has_its_task_is_answered_for_it(stack: Stack, queue: RedisQueue) -> None:
    await stack.insist("CONFIG", "SET", "maxmemory", "512mb")
    await queue.enqueue(keyed("keyed", "k"))
    await stack.insist("CONFIG", "SET", "maxmemory", "1mb")
    again = await queue.enqueue(keyed("another", "k"))
    assert (again.task_id, again.fresh) == ("keyed", False)
    with pytest.raises(IdempotencyConflictError):
        await queue.enqueue(keyed("another", "k", "other body"))
    with pytest.raises(QueueFullError):
        await queue.enqueue(keyed("another", "other key"))
