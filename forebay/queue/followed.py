"""The stream of a task that waits for an equal one's answer: its leader's, until they part."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final

from redis.asyncio import Redis

from forebay.core.events import Piece
from forebay.core.lifecycle import State
from forebay.core.request import TaskId
from forebay.queue.connection import read_page, unavailable
from forebay.queue.ports import STREAM_START, Reuse, StreamEntry, StreamId, StreamKind, TaskRecord
from forebay.queue.records import to_entry
from forebay.queue.schema import STREAM_READ_COUNT, Keys
from forebay.queue.stream_reader import MultiplexedReader

_LAST_PART: Final = 2**64 - 1


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a task stands. ``leader``: whose answer it waits for, or has got."""

    state: State
    leader: TaskId | None
    reuse: Reuse | None


class FollowedStreams:
    """Reads streams of tasks that have, or had, a leader. Uses the reader of its owner."""

    def __init__(self, redis: Redis, keys: Keys, reader: MultiplexedReader) -> None:
        self._redis = redis
        self._keys = keys
        self._reader = reader

    async def standing(self, task_id: TaskId) -> Standing | None:
        """Return where a task stands, None for an unknown one."""
        async with unavailable("reading a task"):
            found = await self._redis.hmget(self._keys.task(task_id), ["state", "leader", "reuse"])
        state, leader, reuse = (str(value) if value else None for value in found)
        if state is None:
            return None
        return Standing(
            State(state), TaskId(leader) if leader else None, Reuse(reuse) if reuse else None
        )

    async def follow(
        self, task_id: TaskId, leader: TaskId | None, after: StreamId
    ) -> AsyncGenerator[StreamEntry]:
        """Yield the leader's entries; after a change of leaders, the next one's.

        The first follower takes the place of a leader that is not wanted any more. Its stream
        begins with RESTART at a place behind all that the old one has said.
        """
        with self._reader.follow(task_id, STREAM_START) as entries:
            async with aclosing(_Ahead(entries)) as own:
                while leader is not None:
                    with self._reader.follow(leader, after) as led_entries:
                        async with aclosing(_Ahead(led_entries)) as led:
                            while (entry := await _first(own, led)) is not None:
                                after = entry.stream_id
                                if entry.kind.terminal:
                                    break
                                yield entry
                    if entry is None:
                        break
                    now = await self.standing(task_id)
                    if now is None or _shares(now, entry):
                        yield entry
                        return
                    leader = _next_leader(now, leader)
                while True:
                    await asyncio.wait({own.asked()})
                    entry = own.take()
                    yield entry
                    if entry.kind.terminal:
                        return

    async def replay(self, task_id: TaskId, after: StreamId) -> AsyncGenerator[StreamEntry]:
        """Yield what follows ``after`` in the stream of a task that has ended."""
        while True:
            async with unavailable("reading a stream"):
                key = self._keys.stream(task_id)
                page = await read_page(self._redis, key, after, STREAM_READ_COUNT)
            for stream_id, fields in page:
                entry = to_entry(stream_id, fields)
                yield entry
                after = entry.stream_id
            if len(page) < STREAM_READ_COUNT:
                return

    async def replay_shared(
        self, task_id: TaskId, leader: TaskId | None, record: TaskRecord | None, after: StreamId
    ) -> AsyncGenerator[StreamEntry]:
        """Yield what follows ``after`` of a task that ended with another one's answer.

        That is the leader's stream, whose places its readers know; where it is not kept any more,
        or there was none, the answer at once. One that ended by itself has its own last word only.
        """
        last = await self._last(task_id)
        shared = leader and await self._last(leader)
        if last is None:
            return
        if leader and shared and shared.kind is last.kind and last.kind is not StreamKind.CANCELLED:
            async for entry in self.replay(leader, after):
                yield entry
        elif after != last.stream_id:
            told = _place_before(last.stream_id)
            if record is not None and record.text is not None and after != told:
                yield _whole(record, told)
            yield last

    async def _last(self, task_id: TaskId) -> StreamEntry | None:
        async with unavailable("reading a stream"):
            found: Any = await self._redis.xrevrange(self._keys.stream(task_id), count=1)
        return to_entry(*found[0]) if found else None


def _shares(now: Standing, end: StreamEntry) -> bool:
    """Return whether the end of its leader is a task's own: an answer, and no other has come."""
    return now.state is State.FINISHED and end.kind is StreamKind.DONE


def _next_leader(now: Standing, last: TaskId) -> TaskId | None:
    """Return whose stream goes on where the last leader's has ended; None: the task's own does.

    A reader may come so late that the next leader, too, has ended.
    """
    goes_on = not now.state.final or now.state is State.FINISHED
    return now.leader if goes_on and now.leader != last else None


async def _first(own: _Ahead, led: _Ahead) -> StreamEntry | None:
    """Return the leader's next entry, or None when the own stream has something else to say.

    DONE there says nothing else: the leader's stream has all that led to it.
    """
    while True:
        if own.ready and own.peek().kind is not StreamKind.DONE:
            return None
        if led.ready:
            return led.take()
        waiting = {led.asked()} if own.ready else {own.asked(), led.asked()}
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)


class _Ahead:
    """The next entry of a stream, asked for before it is wanted."""

    def __init__(self, entries: AsyncIterator[StreamEntry]) -> None:
        self._entries = entries
        self._next: asyncio.Task[StreamEntry] | None = None

    @property
    def ready(self) -> bool:
        """Whether ``take`` has something to return, or to raise."""
        return self._next is not None and self._next.done()

    def asked(self) -> asyncio.Task[StreamEntry]:
        """Return the task that ends when the next entry is there."""
        if self._next is None:
            self._next = asyncio.create_task(_next(self._entries))
        return self._next

    def peek(self) -> StreamEntry:
        """Return the next entry and leave it there. Raises what ended the reading."""
        return self.asked().result()

    def take(self) -> StreamEntry:
        """Return the next entry. Raises what ended the reading."""
        entry, self._next = self.peek(), None
        return entry

    async def aclose(self) -> None:
        """Ask no more."""
        if self._next is not None:
            self._next.cancel()
            await asyncio.gather(self._next, return_exceptions=True)  # nobody wants it any more


async def _next(entries: AsyncIterator[StreamEntry]) -> StreamEntry:
    return await anext(entries)


def _whole(record: TaskRecord, place: StreamId) -> StreamEntry:
    """Return a finished task's whole answer as one entry."""
    others = (Piece(at, one.text, one.logprobs) for at, one in enumerate(record.others, start=1))
    tokens = record.usage.completion_tokens if record.usage else 0
    text, logprobs = record.text or "", record.logprobs
    return StreamEntry(place, StreamKind.DELTA, text, tokens, {}, logprobs, tuple(others))


def _place_before(place: StreamId) -> StreamId:
    milliseconds, _, part = place.partition("-")
    if int(part) > 0:
        return StreamId(f"{milliseconds}-{int(part) - 1}")
    return StreamId(f"{int(milliseconds) - 1}-{_LAST_PART}")
