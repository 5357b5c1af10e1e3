"""Figures to all who watch: made and encoded once a second, whatever their number."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any, Final, Self

import structlog

from forebay.api import sse
from forebay.core.background import Background
from forebay.core.errors import QueueUnavailableError, RateLimitedError
from forebay.ops.live.pulse import LivePulse

log = structlog.get_logger(__name__)

MOST_READERS: Final = 64
"""Of one API process."""

MOST_UNREAD: Final = 10
"""Events that wait for a reader; one that lags further behind is dropped and comes again."""

MOST_TOLD: Final = 300
"""Events of one reading, some five minutes; who reads on comes in anew, if its key is still good.
"""

_RECONNECT_S: Final = 1.0
_FULL_S: Final = 10.0
_TOLD: Final = ("id", "pid", "state", "leases", "ordered", "stack", "group")
"""What of a worker is news; the rest of it changes all the time, and comes with the news."""

FleetLook = Callable[[], Awaitable[dict[str, Any]]]
"""Returns every worker and supervisor. May raise QueueUnavailableError."""

Reader = asyncio.Queue[bytes | None]


class Feed:
    """An async context manager; while it is entered, readers are told."""

    def __init__(self, pulse: LivePulse, look: FleetLook) -> None:
        self._pulse = pulse
        self._look = look
        self._readers: set[Reader] = set()
        self._point = b""
        self._fleet = b""
        self._mark: Any = None
        self._telling = Background("feed", _failed)

    async def __aenter__(self) -> Self:
        self._telling.start(self._tell_for_ever())
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._telling.stop()
        for reader in self._readers:
            _drop(reader)

    @property
    def readers(self) -> int:
        """How many read now."""
        return len(self._readers)

    def check_room(self) -> None:
        """Raise RateLimitedError where there are as many readers as there may be."""
        if len(self._readers) >= MOST_READERS:
            raise RateLimitedError(
                f"{MOST_READERS} consoles read here already", retry_after=_FULL_S
            )

    async def events(self) -> AsyncGenerator[bytes]:
        """Yield what there is, then each second's event, until this reader is dropped.

        It ends at once where many others have come since there was room.
        """
        if len(self._readers) >= MOST_READERS:
            yield sse.reconnect_after(_FULL_S)
            return
        reader: Reader = asyncio.Queue(MOST_UNREAD)
        self._readers.add(reader)
        try:
            yield sse.reconnect_after(_RECONNECT_S) + self._point
            self._mark = None  # the next look tells the fleet, whether or not it has changed
            for _ in range(MOST_TOLD):
                if (chunk := await reader.get()) is None:
                    return
                yield chunk
        finally:
            self._readers.discard(reader)

    async def _tell_for_ever(self) -> None:
        while True:
            async with self._pulse.beaten:
                await self._pulse.beaten.wait()
            if self._readers:
                await self._tell()

    async def _tell(self) -> None:
        now = self._pulse.now
        chunk = b""
        if now is not None:
            self._point = sse.event(now.to_json(), name="point", stream_id=f"{now.at_s:.3f}")
            chunk = self._point
        chunk += await self._fleet_news()
        for reader in list(self._readers):
            if reader.full():
                log.info("console_dropped")
                self._readers.discard(reader)
                _drop(reader)
            elif chunk:
                reader.put_nowait(chunk)

    async def _fleet_news(self) -> bytes:
        try:
            fleet = await self._look()
        except QueueUnavailableError as error:
            log.debug("fleet_unseen", reason=error.message)  # the point says that it is away
            return b""
        workers = [tuple(one[name] for name in _TOLD) for one in fleet["data"]]
        stacks = [(one["id"], one["workers"], one["wanted"]) for one in fleet["stacks"]]
        mark = (workers, stacks)
        if mark == self._mark:
            return b""
        self._mark = mark
        return sse.event(fleet, name="workers")


def _drop(reader: Reader) -> None:
    """End a reader's events, in place of those that it has not read."""
    while not reader.empty():
        reader.get_nowait()
    reader.put_nowait(None)


def _failed(error: BaseException) -> None:
    log.error("feed_failed", exc_info=error)
