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
    Open, once no worker has given a sign of life for ``gone_s``: new requests are refused from
    memory. Half open, once a second: one request looks for all whether a worker is back.
    ``gone_s`` 0: never open.
    """

    def __init__(
        self, queue: Submitter, gone_s: float = 0.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._queue = queue
        self._gone_s = gone_s
        self._clock = clock
        self._lock = asyncio.Lock()
        self._alive_s = clock()  # one that is being started with us has its time too
        self._looked_s = -float("inf")

    async def check(self) -> None:
        """Raise NotReadyError where nobody has been there for long, QueueUnavailableError."""
        if not self._gone_s:
            return
        if self._stale and not self._lock.locked():
            async with self._lock:
                await self._look()
        gone_s = self._clock() - self._alive_s
        if gone_s >= self._gone_s:
            raise NotReadyError(
                f"no worker with a loaded model has been heard of for {round(gone_s)} s",
                retry_after=_RETRY_AFTER_S,
            )

    @property
    def _stale(self) -> bool:
        return self._clock() - self._looked_s >= _LOOK_EVERY_S

    async def _look(self) -> None:
        self._looked_s = self._clock()
        if await self._queue.workers():
            self._alive_s = self._clock()
