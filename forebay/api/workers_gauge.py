"""Whether anybody answers: with no worker for long, new requests are refused instead of kept."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

from forebay.core.errors import NotReadyError
from forebay.queue.ports import Submitter

_LOOK_EVERY_S: Final = 1.0
_RETRY_AFTER_S: Final = 5.0


class WorkersGauge:
    """A circuit breaker between the door and its workers.

    Closed: requests are taken, also while a worker restarts: what the queue holds is not lost.
    Open, once every look for ``gone_s`` has found nobody: new requests are refused from memory.
    Half open, once a second: one request looks for all whether a worker is back. Time in which
    nobody asked, and so nobody looked, tells nothing. ``gone_s`` 0: never open.
    """

    def __init__(
        self, queue: Submitter, gone_s: float = 0.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._queue = queue
        self._gone_s = gone_s
        self._clock = clock
        self._lock = asyncio.Lock()
        self._missing_since: float | None = None
        self._looked_s = -float("inf")

    async def check(self) -> None:
        """Raise NotReadyError where nobody has been there for long, QueueUnavailableError."""
        if not self._gone_s:
            return
        if self._stale:
            async with self._lock:  # those who come meanwhile wait for what the first one sees
                if self._stale:
                    await self._look()
        since = self._missing_since
        if since is not None and (gone_s := self._clock() - since) >= self._gone_s:
            raise NotReadyError(
                f"no worker with a loaded model has been heard of for {round(gone_s)} s",
                retry_after=_RETRY_AFTER_S,
            )

    @property
    def _stale(self) -> bool:
        return self._clock() - self._looked_s >= _LOOK_EVERY_S

    async def _look(self) -> None:
        try:
            there = await self._queue.workers()
        finally:
            self._looked_s = self._clock()
        if there:
            self._missing_since = None
        elif self._missing_since is None:
            self._missing_since = self._clock()
