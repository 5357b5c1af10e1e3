"""Brings gauges that nobody sets in passing up to date: of the queue, the machine, the keys."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from typing import Final

import structlog

from forebay.core.errors import QueueUnavailableError
from forebay.ops.metrics import Metrics
from forebay.ops.resources import Machine, MachineReading
from forebay.ops.worker_watch import RestartCounter
from forebay.queue.ports import Submitter

log = structlog.get_logger(__name__)

KEYS_EVERY_S: Final = 600.0
"""Every key is read to find the first to expire; days are what is told of it."""

KeyExpiry = Callable[[], Awaitable[float | None]]
"""Returns when the first of the good API keys expires, s since the epoch."""


class Measures:
    """Measures what one process can see."""

    def __init__(
        self,
        metrics: Metrics,
        queue: Submitter,
        machine: Machine,
        restarts: RestartCounter,
        key_expiry: KeyExpiry | None = None,
    ) -> None:
        self._metrics = metrics
        self._queue = queue
        self._machine = machine
        self._restarts = restarts
        self._key_expiry = key_expiry
        self._keys_seen_s = -math.inf

    async def measure(self) -> None:
        """Set every gauge. A queue that does not answer is a measurement, too."""
        reading, restarts = await asyncio.to_thread(self._look_around)
        self._metrics.see_machine(reading)
        self._metrics.see_restarts(reading.host, restarts)
        try:
            depth, workers = await self._queue.depth(), await self._queue.workers()
            self._metrics.see_queue(depth, workers)
            await self._see_keys()
        except QueueUnavailableError as error:
            self._metrics.miss_queue()
            log.debug("queue_unmeasured", reason=error.message)

    def _look_around(self) -> tuple[MachineReading, dict[str, int]]:
        return self._machine.read(), self._restarts.look()

    async def _see_keys(self) -> None:
        if self._key_expiry is None or time.monotonic() - self._keys_seen_s < KEYS_EVERY_S:
            return
        first_s = await self._key_expiry()
        self._metrics.api_key_expiry.set(math.nan if first_s is None else first_s)
        self._keys_seen_s = time.monotonic()
