"""A task's life as server-sent events: its place in the queue, its text as it comes, its end.

A client that comes back names the last id it has read, and hears what followed.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing
from typing import Any, Final

import structlog

from forebay.api import sse
from forebay.api.chat_objects import logprobs_object
from forebay.api.disconnect import end
from forebay.api.error_forms import told_to_clients
from forebay.api.services import Services
from forebay.api.task_object import place_of, task_object
from forebay.core.errors import ForebayError, TaskNotFoundError
from forebay.core.lifecycle import State
from forebay.core.request import TaskId
from forebay.queue.ports import Glimpse, StreamEntry, StreamId, StreamKind, TaskRecord

log = structlog.get_logger(__name__)

_RECONNECT_S: Final = 1.0


async def task_events(
    services: Services, record: TaskRecord, after: StreamId, *, root: str = ""
) -> AsyncGenerator[bytes]:
    """Yield the events of a task that follow ``after``.

    ``done``, ``error`` and ``cancelled`` are the task's own ends. A stream that ends without one
    of them was interrupted, with an event of that name where there was time for it: the client
    comes back with its last id.
    """
    yield sse.reconnect_after(_RECONNECT_S)
    story, now = _Story(record.task_id), Glimpse(record.state, record.position, record.eta_s)
    if first := story.stands(now):
        yield first
    try:
        async with aclosing(_heard(services, record.task_id, after, now)) as heard:
            async for fact in heard:
                if isinstance(fact, Glimpse):
                    if event := story.stands(fact):
                        yield event
                elif fact.kind.terminal:
                    final = await _final_object(services, record.task_id, root)
                    yield sse.event(final, name=fact.kind.value, stream_id=fact.stream_id)
                else:
                    for event in story.says(fact):
                        yield event
    except ForebayError as error:
        log.info("task_events.interrupted", code=error.code)
        content = {"code": error.code, "message": told_to_clients(error)}
        yield sse.event(content, name="interrupted")


async def nothing_follows(services: Services, task_id: TaskId, after: StreamId) -> bool:
    """Whether a final task's stream has no entry after ``after``. Raises as ``subscribe``."""
    async with services.streams.subscribe(task_id, after) as entries:
        return await anext(entries, None) is None


async def _final_object(services: Services, task_id: TaskId, root: str) -> dict[str, Any]:
    record = await services.queue.get(task_id)
    if record is None:
        raise TaskNotFoundError(f"the result of the task {task_id} has expired")
    return task_object(record, root=root)


async def _heard(
    services: Services, task_id: TaskId, after: StreamId, now: Glimpse
) -> AsyncGenerator[StreamEntry | Glimpse]:
    """Yield what the task's stream says and, while that is silent, where the task stands."""
    with services.watch.follow(task_id, now) as watched:
        async with services.streams.subscribe(task_id, after) as entries:
            entry = asyncio.ensure_future(_next(entries))
            glimpse = asyncio.ensure_future(watched.next())
            try:
                while True:
                    await asyncio.wait({entry, glimpse}, return_when=asyncio.FIRST_COMPLETED)
                    if entry.done():
                        found = entry.result()
                        if found is None:
                            return
                        watched.hush()
                        entry = asyncio.ensure_future(_next(entries))
                        yield found
                    elif glimpse.done():
                        seen = glimpse.result()
                        glimpse = asyncio.ensure_future(watched.next())
                        if watched.wants:  # else it is older than what the stream has said
                            yield seen
            finally:
                await end(entry, glimpse)


async def _next(entries: AsyncIterator[StreamEntry]) -> StreamEntry | None:
    return await anext(entries, None)


class _Story:
    """What one client has been told, so that nothing is told twice in a row."""

    def __init__(self, task_id: TaskId) -> None:
        self._task_id = task_id
        self._status: State | None = None

    def stands(self, glimpse: Glimpse) -> bytes | None:
        """Return the event of where the task stands; a final state is the stream's to tell."""
        state = glimpse.state
        if state.final or (state is self._status and state is not State.QUEUED):
            return None
        self._status = state
        if state is State.QUEUED:
            place = place_of(state, glimpse.position, glimpse.eta_s)
            return self._event("queued", {"status": state.value, **place})
        return self._event("started", {"status": state.value})

    def says(self, entry: StreamEntry) -> Iterator[bytes]:
        """Return the events of an entry that does not end the stream."""
        if entry.kind is StreamKind.RESTART:
            self._status = None
            yield self._event("restart", {}, entry.stream_id)
            return
        if self._status is not State.DECODE:
            self._status = State.DECODE
            yield self._event("started", {"status": State.DECODE.value})
        pieces = [piece for piece in entry.pieces if piece.text or piece.logprobs]
        for at, piece in enumerate(pieces, start=1):
            content: dict[str, Any] = {"index": piece.index, "text": piece.text}
            if piece.logprobs:
                content["logprobs"] = logprobs_object(piece.logprobs)
            # only the last event of an entry names its place: who resumes there has seen it all
            yield self._event("delta", content, entry.stream_id if at == len(pieces) else None)

    def _event(self, name: str, content: dict[str, Any], place: StreamId | None = None) -> bytes:
        return sse.event({"id": self._task_id, **content}, name=name, stream_id=place)
