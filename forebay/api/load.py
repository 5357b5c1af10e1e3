"""The queue's load as the door sees it: asked for at most a few times a second."""

from __future__ import annotations

import asyncio
import time

from forebay.admission.policy import Load
from forebay.core.errors import QueueUnavailableError
from forebay.queue.ports import QueueDepth, Submitter

_MAX_AGE_S = 0.1


class LoadGauge:
    """Answers from memory while the last look is fresh; in a burst one request looks for all."""

    def __init__(self, queue: Submitter, max_age_s: float = _MAX_AGE_S) -> None:
        self._queue = queue
        self._max_age_s = max_age_s
        self._lock = asyncio.Lock()
        self._load = Load()
        self._seen_s = -float("inf")
        self._trouble: QueueUnavailableError | None = None
        self._trouble_s = -float("inf")

    async def now(self) -> Load:
        """Return the load.

        Raises:
            QueueUnavailableError: the queue does not answer, so nothing can be accepted.
        """
        if time.monotonic() - self._seen_s <= self._max_age_s:
            return self._load
        came_s = time.monotonic()
        async with self._lock:
            if time.monotonic() - self._seen_s > self._max_age_s:
                # Who waited while the look failed is told the same: none waits for two looks.
                if self._trouble is not None and self._trouble_s > came_s:
                    raise QueueUnavailableError(
                        self._trouble.message, retry_after=self._trouble.retry_after
                    )
                depth = await self._depth()
                self._load = Load(
                    depth.waiting, depth.waiting_tokens, depth.oldest_s, depth.tokens_per_s
                )
                self._seen_s = time.monotonic()
            return self._load

    async def _depth(self) -> QueueDepth:
        try:
            return await self._queue.depth()
        except QueueUnavailableError as error:
            self._trouble, self._trouble_s = error, time.monotonic()
            raise
