"""Tokens on their way to the client: the worker's writer, and what a process reads with."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Self

from redis.asyncio import Redis

from forebay.core.errors import TaskNotFoundError
from forebay.core.lifecycle import State
from forebay.core.request import TaskId
from forebay.queue.connection import read_page, unavailable
from forebay.queue.library import Library
from forebay.queue.limits import QueueLimits
from forebay.queue.ports import STREAM_START, StreamEntry, StreamId, StreamWrite
from forebay.queue.records import to_entry, write_row
from forebay.queue.schema import STREAM_READ_COUNT, Keys
from forebay.queue.stream_reader import MultiplexedReader


class RedisTokenStreams:
    """StreamWriter and StreamReader on one Redis stream per task.

    Use as an async context manager, or ``start`` and ``aclose``; writing needs neither. All
    subscribers of the process share one connection, and each holds a bounded number of entries:
    a slow one leaves the rest in the server.
    """

    def __init__(self, redis: Redis, name: str = "main", limits: QueueLimits | None = None) -> None:
        self._redis = redis
        self._keys = Keys(name)
        self._library = Library(redis, self._keys, limits or QueueLimits())
        self._reader = MultiplexedReader(redis, self._keys)

    async def start(self) -> None:
        """Begin reading. Raises QueueUnavailableError."""
        async with unavailable("loading the library"):
            await self._library.load()
        self._reader.start()

    async def aclose(self) -> None:
        """End reading; subscribers that are left end with QueueUnavailableError."""
        await self._reader.aclose()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    async def append(
        self, writes: Sequence[StreamWrite], *, nonce: str | None = None
    ) -> set[TaskId]:
        """Append in one round trip; return the ids whose fence was stale. See ``StreamWriter``."""
        if not writes:
            return set()
        rows = [write_row(write) for write in writes]
        async with unavailable("writing tokens"):
            return set(await self._library.append(nonce or secrets.token_hex(4), rows))

    @asynccontextmanager
    async def subscribe(
        self, task_id: TaskId, after: StreamId = STREAM_START
    ) -> AsyncIterator[AsyncIterator[StreamEntry]]:
        """Follow a task's stream from after ``after``.

        The iterator ends after a terminal entry, or at once where ``after`` is that entry. Raises
        TaskNotFoundError for an unknown or expired task, ValueError for a malformed ``after``;
        the iterator raises QueueUnavailableError when the server stays away.
        """
        check_stream_id(after)
        # Asked before the stream is read: a final state means the terminal entry is in it.
        async with unavailable("reading a task"):
            state = await self._redis.hget(self._keys.task(task_id), "state")
        if state is None:
            raise TaskNotFoundError(f"There is no task {task_id}.")
        if State(str(state)).final:
            yield self._replay(task_id, after)
            return
        with self._reader.follow(task_id, after) as entries:
            yield entries

    async def _replay(self, task_id: TaskId, after: StreamId) -> AsyncIterator[StreamEntry]:
        stream = self._keys.stream(task_id)
        while True:
            async with unavailable("reading a stream"):
                page = await read_page(self._redis, stream, after, STREAM_READ_COUNT)
            for stream_id, fields in page:
                entry = to_entry(stream_id, fields)
                yield entry
                after = entry.stream_id
            if len(page) < STREAM_READ_COUNT:
                return


def check_stream_id(text: str) -> None:
    """Raise ValueError unless ``text`` is a place in a stream: clients send it back to us."""
    milliseconds, _, sequence = text.partition("-")
    for part in (milliseconds, sequence):
        if not (part.isascii() and part.isdigit() and int(part) < 2**64):
            raise ValueError(f"not a place in a token stream: {text[:50]!r}")
