"""One XREAD for every subscriber of the process: a connection is not spent on each client."""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import structlog
from redis.asyncio import Redis

from forebay.core.errors import QueueUnavailableError, TaskFailedError
from forebay.core.request import TaskId
from forebay.queue.connection import (
    ANSWER_S,
    LONGEST_BLOCK_S,
    RETRY_AFTER_S,
    read_streams,
    unavailable,
)
from forebay.queue.ports import StreamEntry, StreamId
from forebay.queue.records import to_entry
from forebay.queue.schema import NUDGE_TTL_S, STREAM_BUFFER, STREAM_READ_COUNT, Keys

log = structlog.get_logger(__name__)

PATIENCE_S: Final = 30.0
"""A server away for longer than this ends the subscriptions; clients resume by the last id."""

LONGEST_PAUSE_S: Final = 1.0


class Subscription:
    """One subscriber: its place in the stream, and the entries it has not yet taken."""

    def __init__(self, key: str, after: StreamId) -> None:
        self.key = key
        self.after = after
        self._entries: deque[StreamEntry] = deque()
        self._changed = asyncio.Event()
        self._error: Exception | None = None

    @property
    def has_room(self) -> bool:
        """Whether one more read fits the buffer, and is wanted."""
        return self._error is None and len(self._entries) + STREAM_READ_COUNT <= STREAM_BUFFER

    def offer(self, entry: StreamEntry) -> None:
        """Take an entry that the reader found, unless it was offered before."""
        if _place(entry.stream_id) > _place(self.after):
            self.after = entry.stream_id
            self._entries.append(entry)
            self._changed.set()

    def fail(self, error: Exception) -> None:
        """End the subscription once what is buffered is taken."""
        self._error = error
        self._changed.set()

    async def take(self) -> StreamEntry:
        """Return the next entry when there is one. Raises the error that ended the reading."""
        while not self._entries:
            if self._error is not None:
                raise self._error
            self._changed.clear()
            await self._changed.wait()
        return self._entries.popleft()


class MultiplexedReader:
    """Reads the streams of all subscribers with one blocking XREAD.

    A subscriber that comes, or has room again, writes to the reader's own nudge stream, which is
    part of the XREAD: that ends the blocking read at once, without a race, wherever it stands.
    """

    def __init__(self, redis: Redis, keys: Keys) -> None:
        self._redis = redis
        self._keys = keys
        self._subscriptions: dict[str, list[Subscription]] = {}
        self._reading: frozenset[Subscription] = frozenset()
        self._nudge_key = keys.nudge(secrets.token_hex(8))
        self._nudge_after = "0-0"
        self._dirty = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin. Must be called inside the event loop."""
        if not self._tasks:
            self._tasks = [
                asyncio.create_task(self._read_for_ever(), name="token-stream-reader"),
                asyncio.create_task(self._nudge_for_ever(), name="token-stream-nudge"),
            ]
            for task in self._tasks:
                task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("token_stream_task_failed", task=task.get_name(), exc_info=error)
            self._fail_all("Token streams cannot be read.")

    async def aclose(self) -> None:
        """End both tasks, and the subscriptions that are left."""
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)  # failures were told by _ended
        self._fail_all("The process is stopping.")

    @contextmanager
    def follow(self, task_id: TaskId, after: StreamId) -> Iterator[AsyncIterator[StreamEntry]]:
        """Subscribe to one task's stream for the length of the block."""
        if not self._tasks or any(task.done() for task in self._tasks):
            raise RuntimeError("the reader of token streams does not run")
        subscription = Subscription(self._keys.stream(task_id), after)
        self._subscriptions.setdefault(subscription.key, []).append(subscription)
        self._dirty.set()
        try:
            yield self._entries(subscription)
        finally:
            sharing = self._subscriptions[subscription.key]
            sharing.remove(subscription)
            if not sharing:
                del self._subscriptions[subscription.key]

    async def _entries(self, subscription: Subscription) -> AsyncIterator[StreamEntry]:
        while True:
            entry = await subscription.take()
            yield entry
            if entry.kind.terminal:
                return
            if subscription.has_room and subscription not in self._reading:
                self._dirty.set()

    async def _nudge_for_ever(self) -> None:
        while True:
            await self._dirty.wait()
            self._dirty.clear()
            try:
                async with (
                    unavailable("nudging the reader"),
                    self._redis.pipeline(transaction=False) as pipe,
                ):
                    pipe.xadd(self._nudge_key, {"n": ""}, maxlen=1, approximate=False)
                    pipe.pexpire(self._nudge_key, NUDGE_TTL_S * 1000)
                    await pipe.execute()
            except QueueUnavailableError as error:
                # The reader meets the same trouble, tells it, and looks at everyone afterwards.
                log.debug("token_stream_nudge_failed", error=str(error))
                await asyncio.sleep(LONGEST_PAUSE_S / 10)

    async def _read_for_ever(self) -> None:
        loop = asyncio.get_running_loop()
        away_since: float | None = None
        pause_s = 0.05
        while True:
            try:
                await self._read_once()
                away_since, pause_s = None, 0.05
            except QueueUnavailableError as error:
                if away_since is None:
                    away_since = loop.time()
                    log.warning("token_stream_reader_away", error=str(error))
                elif loop.time() - away_since > PATIENCE_S:
                    self._fail_all("The queue's server has been away for too long.")
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    async def _read_once(self) -> None:
        # Only who is counted here is served from this read: one that comes while it blocks may
        # stand further back, and would miss what lies between.
        served = {
            key: ready
            for key, sharing in self._subscriptions.items()
            if (ready := [each for each in sharing if each.has_room])
        }
        after: dict[str, str] = {
            key: min((each.after for each in ready), key=_place) for key, ready in served.items()
        }
        self._reading = frozenset(each for ready in served.values() for each in ready)
        after[self._nudge_key] = self._nudge_after
        # With a patience of its own: it blocks for longer than the door's other operations may.
        async with unavailable("reading token streams", ANSWER_S):
            found = await read_streams(
                self._redis, after, block_s=LONGEST_BLOCK_S, count=STREAM_READ_COUNT
            )
        for key, entries in found.items():
            if key == self._nudge_key:
                self._nudge_after = entries[-1][0]
                continue
            self._serve(served[key], entries)

    def _serve(
        self, ready: list[Subscription], entries: Sequence[tuple[str, dict[str, str]]]
    ) -> None:
        """Offer entries to a stream's subscribers; one that cannot be read fails these alone."""
        for stream_id, fields in entries:
            try:
                entry = to_entry(stream_id, fields)
            except (KeyError, ValueError) as error:
                log.error("token_stream_unreadable", entry=stream_id, reason=repr(error))
                for subscription in ready:
                    subscription.fail(TaskFailedError("the answer's stream cannot be read"))
                return
            for subscription in ready:
                subscription.offer(entry)

    def _fail_all(self, message: str) -> None:
        error = QueueUnavailableError(message, retry_after=RETRY_AFTER_S)
        for sharing in self._subscriptions.values():
            for subscription in sharing:
                subscription.fail(error)


def _place(stream_id: str) -> tuple[int, int]:
    milliseconds, _, sequence = stream_id.partition("-")
    return int(milliseconds), int(sequence or 0)
