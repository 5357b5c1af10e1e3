"""Where waiting tasks stand: one look a second of the whole process, whoever watches."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Self

import structlog

from forebay.core.background import Background
from forebay.core.errors import QueueUnavailableError
from forebay.core.request import TaskId
from forebay.queue.ports import Glimpse, Submitter

log = structlog.get_logger(__name__)

EVERY_S: Final = 1.0
MOST_AT_ONCE: Final = 500
"""Tasks in one look. With more watched than this each has its turn, so the queue's server is asked
for no more however many clients there are."""

HUSH_S: Final = 3.0
"""A task whose stream spoke so lately is not waiting."""


class Watched:
    """One watcher of one task: what is new to it, the newest only."""

    def __init__(self, told: Glimpse) -> None:
        self._newest: Glimpse | None = None
        self._told: Glimpse | None = told
        self._changed = asyncio.Event()
        self._hushed_until_s = -float("inf")

    @property
    def wants(self) -> bool:
        """Whether it wants to be looked for now."""
        return time.monotonic() >= self._hushed_until_s

    def hush(self) -> None:
        """The task's stream has spoken, which says more than a look."""
        self._hushed_until_s = time.monotonic() + HUSH_S
        self._newest, self._told = None, None
        self._changed.clear()

    def show(self, glimpse: Glimpse) -> None:
        """Take what a look found; what the watcher knows already is no news."""
        if self.wants and glimpse != self._told:
            self._newest = glimpse
            self._changed.set()

    async def next(self) -> Glimpse:
        """Return the next news."""
        while self._newest is None:
            await self._changed.wait()
            self._changed.clear()
        glimpse, self._newest = self._newest, None
        self._told = glimpse
        return glimpse


class QueueWatch:
    """Looks for all watchers together while there are any. An async context manager."""

    def __init__(
        self, queue: Submitter, *, every_s: float = EVERY_S, most_at_once: int = MOST_AT_ONCE
    ) -> None:
        self._queue = queue
        self._every_s = every_s
        self._most_at_once = most_at_once
        self._watchers: dict[TaskId, set[Watched]] = {}  # in the order of their turns
        self._wanted = asyncio.Event()
        self._looking = Background("queue-watch", _failed)

    async def __aenter__(self) -> Self:
        self._looking.start(self._look_for_ever())
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._looking.stop()

    @property
    def watched(self) -> frozenset[TaskId]:
        """The tasks that somebody watches now."""
        return frozenset(self._watchers)

    @contextmanager
    def follow(self, task_id: TaskId, told: Glimpse) -> Iterator[Watched]:
        """Watch one task for the length of the block; ``told`` is what is known of it already."""
        watched = Watched(told)
        self._watchers.setdefault(task_id, set()).add(watched)
        self._wanted.set()
        try:
            yield watched
        finally:
            sharing = self._watchers[task_id]
            sharing.remove(watched)
            if not sharing:
                del self._watchers[task_id]

    async def _look_for_ever(self) -> None:
        while True:
            await self._wanted.wait()
            if not self._watchers:
                self._wanted.clear()
                continue
            try:
                await self._look()
            except QueueUnavailableError as error:
                # the readers of the streams meet the same trouble, and tell their clients
                log.debug("queue_watch_unanswered", reason=error.message)
            await asyncio.sleep(self._every_s)

    async def _look(self) -> None:
        turn = self._take_turns()
        if not turn:
            return
        for task_id, glimpse in (await self._queue.glance(turn)).items():
            for watched in self._watchers.get(task_id, ()):
                watched.show(glimpse)

    def _take_turns(self) -> list[TaskId]:
        """Return the tasks whose turn it is, and put them behind the others."""
        turn: list[TaskId] = []
        for task_id, sharing in self._watchers.items():
            if any(watched.wants for watched in sharing):
                turn.append(task_id)
                if len(turn) == self._most_at_once:
                    break
        for task_id in turn:
            self._watchers[task_id] = self._watchers.pop(task_id)
        return turn


def _failed(error: BaseException) -> None:
    log.error("queue_watch_failed", exc_info=error)
