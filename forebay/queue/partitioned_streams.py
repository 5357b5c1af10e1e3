"""The token streams of a queue of several partitions: each partition has its own reader."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Self

from forebay.core.errors import TaskNotFoundError
from forebay.core.request import TaskId
from forebay.queue.partitions import partition_in
from forebay.queue.ports import STREAM_START, StreamEntry, StreamId, StreamWrite
from forebay.queue.token_stream import RedisTokenStreams


class PartitionedStreams:
    """StreamWriter and StreamReader over several of them. An async context manager to read."""

    def __init__(self, partitions: Sequence[RedisTokenStreams]) -> None:
        self._partitions = tuple(partitions)
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            for one in self._partitions:
                await stack.enter_async_context(one)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._stack.aclose()

    async def append(
        self, writes: Sequence[StreamWrite], *, nonce: str | None = None
    ) -> set[TaskId]:
        """Append in one round trip a partition, all at once; see ``StreamWriter``."""
        homes: defaultdict[int, list[StreamWrite]] = defaultdict(list)
        stale: set[TaskId] = set()
        for write in writes:
            home = partition_in(write.task_id, len(self._partitions))
            if home is None:
                stale.add(write.task_id)
            else:
                homes[home].append(write)
        replies = await asyncio.gather(
            *(self._partitions[home].append(mine, nonce=nonce) for home, mine in homes.items())
        )
        return stale.union(*replies)

    def subscribe(
        self, task_id: TaskId, after: StreamId = STREAM_START
    ) -> AbstractAsyncContextManager[AsyncIterator[StreamEntry]]:
        """Follow a task's stream in its partition. Raises TaskNotFoundError."""
        home = partition_in(task_id, len(self._partitions))
        if home is None:
            raise TaskNotFoundError(f"There is no task {task_id[:64]}.")
        return self._partitions[home].subscribe(task_id, after)
