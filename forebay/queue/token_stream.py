"""Tokens on their way to the client: the worker's writer, and what a process reads with."""

from __future__ import annotations

import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Final, Self

from redis.asyncio import Redis

from forebay.core.errors import TaskNotFoundError
from forebay.core.request import TaskId
from forebay.queue.connection import unavailable
from forebay.queue.followed import FollowedStreams, Standing
from forebay.queue.library import Library
from forebay.queue.limits import QueueLimits
from forebay.queue.ports import STREAM_START, StreamEntry, StreamId, StreamWrite
from forebay.queue.records import to_record, write_row
from forebay.queue.schema import Keys
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
        self._followed = FollowedStreams(redis, self._keys, self._reader)

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
        now = await self._followed.standing(task_id)
        if now is None:
            raise TaskNotFoundError(f"There is no task {task_id}.")
        if not now.state.final and now.leader is None:
            with self._reader.follow(task_id, after) as entries:
                yield entries
        else:
            async with aclosing(await self._apart(task_id, now, after)) as entries:
                yield entries

    async def _apart(
        self, task_id: TaskId, now: Standing, after: StreamId
    ) -> AsyncGenerator[StreamEntry]:
        """Return the entries of a task that has ended, or that waits for another one's answer."""
        if not now.state.final:
            return self._followed.follow(task_id, now.leader, after)
        if now.reuse is None:
            return self._followed.replay(task_id, after)
        async with unavailable("reading a task"):
            found = await self._library.describe(task_id)
        record = to_record(task_id, found) if found else None
        return self._followed.replay_shared(task_id, now.leader, record, after)


STREAM_ID_PATTERN: Final = "^[0-9]{1,19}-[0-9]{1,19}$"
"""What ``check_stream_id`` takes, for descriptions."""


def check_stream_id(text: str) -> None:
    """Raise ValueError unless ``text`` is a place in a stream: clients send it back to us."""
    milliseconds, _, sequence = text.partition("-")
    for part in (milliseconds, sequence):
        if not (part.isascii() and part.isdigit() and int(part) < 2**64):
            raise ValueError(f"not a place in a token stream: {text[:50]!r}")
