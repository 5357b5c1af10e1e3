"""The queue's load as the door sees it: what waits there, and what is on its way in."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from forebay.admission.policy import Load
from forebay.core.errors import QueueUnavailableError
from forebay.core.request import Cost
from forebay.queue.ports import QueueDepth, Submitter

_MAX_AGE_S = 0.1


class Place:
    """A place in the queue that a request has been promised, until it is there or refused."""

    __slots__ = ("taken",)

    def __init__(self) -> None:
        self.taken = False
        """Set by who enqueues: the task waits now, though the last look did not see it."""


@dataclass(slots=True)
class _Unseen:
    """Tasks, and their tokens, that the last look at the queue cannot have seen."""

    tasks: int = 0
    tokens: int = 0

    def add(self, tasks: int, tokens: int) -> None:
        self.tasks += tasks
        self.tokens += tokens


class LoadGauge:
    """Answers from memory while the last look is fresh; in a burst one request looks for all.

    What was admitted since that look is counted too, so that a burst is not let in, and decoded,
    on the strength of one look. It is this process's own; the queue's caps hold for all of them.
    """

    def __init__(self, queue: Submitter, max_age_s: float = _MAX_AGE_S) -> None:
        self._queue = queue
        self._max_age_s = max_age_s
        self._lock = asyncio.Lock()
        self._load = Load()
        self._seen_s = -float("inf")
        self._trouble: QueueUnavailableError | None = None
        self._trouble_s = -float("inf")
        self._coming = _Unseen()
        self._since_look = _Unseen()

    async def now(self) -> Load:
        """Return the load.

        Raises:
            QueueUnavailableError: the queue does not answer, so nothing can be accepted.
        """
        if time.monotonic() - self._seen_s > self._max_age_s:
            await self._look()
        coming, since = self._coming, self._since_look
        return replace(
            self._load,
            waiting=self._load.waiting + coming.tasks + since.tasks,
            waiting_tokens=self._load.waiting_tokens + coming.tokens + since.tokens,
        )

    @contextmanager
    def reserved(self, cost: Cost) -> Iterator[Place]:
        """Count a request that was admitted as waiting, while it is decoded and enqueued."""
        place = Place()
        self._coming.add(1, cost.total)
        try:
            yield place
        finally:
            self._coming.add(-1, -cost.total)
            if place.taken:
                self._since_look.add(1, cost.total)

    async def _look(self) -> None:
        came_s = time.monotonic()
        async with self._lock:
            if time.monotonic() - self._seen_s <= self._max_age_s:
                return
            # Who waited while the look failed is told the same: none waits for two looks.
            if self._trouble is not None and self._trouble_s > came_s:
                raise QueueUnavailableError(
                    self._trouble.message, retry_after=self._trouble.retry_after
                )
            before = replace(self._since_look)
            depth = await self._depth()
            # of those that came while it looked, the look may have missed any
            self._since_look.add(-before.tasks, -before.tokens)
            self._load = Load(
                depth.waiting, depth.waiting_tokens, depth.oldest_s, depth.tokens_per_s
            )
            self._seen_s = time.monotonic()

    async def _depth(self) -> QueueDepth:
        try:
            return await self._queue.depth()
        except QueueUnavailableError as error:
            self._trouble, self._trouble_s = error, time.monotonic()
            raise
