"""Watching the queue costs it the same however many watch."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import ExitStack

import pytest

from forebay.api.queue_watch import QueueWatch
from forebay.core.errors import QueueUnavailableError
from forebay.core.lifecycle import State
from forebay.core.request import TaskId
from forebay.queue.ports import Glimpse
from tests.api.door import eventually

NOW = Glimpse(State.QUEUED, 9)
EVERY_S = 0.02


class CountingQueue:
    """Says of every task that it moves ahead by one with every look, and keeps the looks."""

    def __init__(self) -> None:
        self.looks: list[list[TaskId]] = []
        self.away = False

    async def glance(self, task_ids: Sequence[TaskId]) -> dict[TaskId, Glimpse]:
        if self.away:
            raise QueueUnavailableError("away")
        self.looks.append(list(task_ids))
        return {task_id: Glimpse(State.QUEUED, len(self.looks)) for task_id in task_ids}


@pytest.fixture
def queue() -> CountingQueue:
    return CountingQueue()


async def test_one_look_serves_all_watchers_of_all_tasks(queue):
    async with QueueWatch(queue, every_s=EVERY_S) as watch:
        with ExitStack() as stack:
            tasks = [TaskId(str(at % 10)) for at in range(100)]
            watching = [stack.enter_context(watch.follow(task, NOW)) for task in tasks]
            async with asyncio.timeout(10):
                news = await asyncio.gather(*(one.next() for one in watching))
        assert len({glimpse.position for glimpse in news}) == 1
        assert sorted(queue.looks[0]) == sorted(map(str, range(10)))


async def test_more_than_fit_one_look_have_their_turns(queue):
    async with QueueWatch(queue, every_s=EVERY_S, most_at_once=4) as watch:
        with ExitStack() as stack:
            tasks = [TaskId(str(at)) for at in range(10)]
            watching = [stack.enter_context(watch.follow(task, NOW)) for task in tasks]
            async with asyncio.timeout(10):
                await asyncio.gather(*(one.next() for one in watching))
            await eventually(lambda: len(queue.looks) >= 5)
        assert all(len(look) <= 4 for look in queue.looks)
        seen = [task for look in queue.looks[:5] for task in look]
        assert seen[:10] == tasks
        assert set(seen[10:20]) == set(tasks)


async def test_nobody_watches_and_nothing_is_asked(queue):
    async with QueueWatch(queue, every_s=EVERY_S) as watch:
        with watch.follow(TaskId("a"), NOW) as watched:
            await asyncio.wait_for(watched.next(), 10)
        await asyncio.sleep(2 * EVERY_S)
        asked = len(queue.looks)
        await asyncio.sleep(10 * EVERY_S)
        assert len(queue.looks) == asked


async def test_what_is_known_is_no_news_and_a_slow_watcher_hears_the_newest(queue):
    async with QueueWatch(queue, every_s=EVERY_S) as watch:
        with watch.follow(TaskId("a"), Glimpse(State.QUEUED, 1)) as watched:
            first = await asyncio.wait_for(watched.next(), 10)
            assert first.position != 1
            before = len(queue.looks)
            await eventually(lambda: len(queue.looks) >= before + 5)
            newest = await asyncio.wait_for(watched.next(), 10)
            assert newest.position >= before + 4


async def test_a_task_whose_stream_speaks_is_not_looked_for(queue):
    async with QueueWatch(queue, every_s=EVERY_S) as watch:
        with watch.follow(TaskId("a"), NOW) as quiet, watch.follow(TaskId("b"), NOW) as hushed:
            hushed.hush()
            for _ in range(5):
                await asyncio.wait_for(quiet.next(), 10)
            assert not hushed.wants
        assert {task for look in queue.looks for task in look} == {"a"}


async def test_the_watch_goes_on_when_the_queue_is_back(queue):
    queue.away = True
    async with QueueWatch(queue, every_s=EVERY_S) as watch:
        with watch.follow(TaskId("a"), NOW) as watched:
            await asyncio.sleep(5 * EVERY_S)
            assert queue.looks == []
            queue.away = False
            await asyncio.wait_for(watched.next(), 10)
