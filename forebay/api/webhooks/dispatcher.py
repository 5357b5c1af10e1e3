"""Takes webhooks that are due from the queue and has them delivered, a bounded number at once."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

import structlog

from forebay.api.webhooks.delivery import DELIVERED, Delivery
from forebay.core.errors import QueueUnavailableError
from forebay.ops.metrics import Metrics
from forebay.queue.webhook_ports import WebhookAttempt, WebhookLease, Webhooks

log = structlog.get_logger(__name__)

_AWAY_S: Final = 2.0
"""Pause after the queue's server did not answer."""


@dataclass(frozen=True, slots=True)
class DispatchLimits:
    """``at_once`` deliveries in this process, ``per_host`` of them to one receiver.

    ``idle_s``: between two looks at a queue in which nothing was due. ``stop_s``: how long a stop
    waits for deliveries that have begun.
    """

    at_once: int = 32
    per_host: int = 4
    idle_s: float = 0.5
    stop_s: float = 5.0


class WebhookDispatcher:
    """A context manager: while it is open, webhooks are delivered.

    Several processes may run one for the same queue; a lease keeps them apart. What is cut off, by
    a stop that could not wait or by the process's end, is delivered by whoever runs on, when its
    lease has run out: a receiver may be told twice, and is never not told.
    """

    def __init__(
        self,
        queues: Sequence[Webhooks],
        delivery: Delivery,
        metrics: Metrics,
        limits: DispatchLimits | None = None,
    ) -> None:
        self._queues = queues
        self._delivery = delivery
        self._metrics = metrics
        self._limits = limits or DispatchLimits()
        self._running: set[asyncio.Task[None]] = set()
        self._busy: Counter[str] = Counter()
        self._freed = asyncio.Event()
        self._loop: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Begin."""
        self._loop = asyncio.create_task(self._dispatch())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        """Take nothing more, let what has begun end within ``stop_s``, cut off the rest."""
        if self._loop is not None:
            self._loop.cancel()
            await asyncio.wait([self._loop])
        if self._running:
            _, late = await asyncio.wait(self._running, timeout=self._limits.stop_s)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late)

    async def _dispatch(self) -> None:
        while True:
            self._freed.clear()
            try:
                more = await self._take()
            except QueueUnavailableError as error:
                log.warning("webhooks.queue_away", reason=error.message)
                await asyncio.sleep(_AWAY_S)
                continue
            if not more:
                await self._pause()

    async def _take(self) -> bool:
        """Begin what is due and fits; return whether more was due than could be looked at."""
        taken = waiting = due = crowded_out = 0
        for queue in self._queues:
            room = self._limits.at_once - len(self._running)
            claim = await queue.claim(room, self._limits.per_host, self._busy)
            waiting += claim.waiting
            due += claim.due
            crowded_out += claim.crowded_out
            taken += len(claim.leases)
            for lease in claim.leases:
                self._begin(queue, lease)
        self._metrics.see_webhooks(waiting=waiting, due=due, crowded_out=crowded_out)
        return bool(taken and due)

    async def _pause(self) -> None:
        """Wait until there is room again where there was none, else for the next look."""
        full = len(self._running) >= self._limits.at_once
        try:
            async with asyncio.timeout(None if full else self._limits.idle_s):
                await self._freed.wait()
        except TimeoutError:
            return

    def _begin(self, queue: Webhooks, lease: WebhookLease) -> None:
        self._busy[lease.host] += 1
        task = asyncio.create_task(self._deliver(queue, lease))
        self._running.add(task)
        task.add_done_callback(lambda ended: self._end(ended, lease.host))

    def _end(self, task: asyncio.Task[None], host: str) -> None:
        self._running.discard(task)
        self._busy[host] -= 1
        if self._busy[host] <= 0:
            del self._busy[host]
        self._freed.set()
        if not task.cancelled() and task.exception() is not None:
            log.error("webhook.broke", exc_info=task.exception())

    async def _deliver(self, queue: Webhooks, lease: WebhookLease) -> None:
        attempt = await self._delivery.attempt(lease)
        try:
            settled = await queue.settle(lease, attempt, attempt.again_s)
        except QueueUnavailableError as error:
            # its lease runs out, and the receiver is told again
            log.warning("webhook.unsettled", task_id=lease.task.task_id, reason=error.message)
            return
        if settled:
            self._tell(lease, attempt)

    def _tell(self, lease: WebhookLease, attempt: WebhookAttempt) -> None:
        given_up = attempt.again_s is None and attempt.outcome != DELIVERED
        self._metrics.webhooks.labels(attempt.outcome).inc()
        self._metrics.webhook_seconds.observe(attempt.took_s)
        if given_up:
            self._metrics.webhooks_given_up.inc()
        tell = log.warning if given_up else log.info
        tell(
            "webhook.given_up" if given_up else "webhook.attempt",
            task_id=lease.task.task_id,
            attempt=lease.attempt,
            outcome=attempt.outcome,
            status=attempt.status,
        )
