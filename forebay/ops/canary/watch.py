"""Looks at the canaries every few seconds, and takes their share back when they do worse."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, Self

import structlog

from forebay.core.background import Background
from forebay.core.errors import QueueUnavailableError
from forebay.ops.canary.judgement import Fault, Terms, figures, judge
from forebay.ops.metrics import Metrics
from forebay.queue.canary import Entry, RedisCanary, new_entry
from forebay.queue.groups import Trial

log = structlog.get_logger("forebay.canary")

EVERY_S: Final = 5.0
BY: Final = "rollback"
"""Who the log says took a share back, when nobody did."""


class CanaryWatch:
    """An async context manager; while it is entered, canaries are measured and judged.

    Every API process measures. The one that ``leads`` judges; two that both think so do no harm,
    for a share is taken back in its own trial only. ``judges`` False: none does. ``on_rollback`` is
    told of each entry that the log got.
    """

    def __init__(
        self,
        canary: RedisCanary,
        metrics: Metrics,
        terms: Terms,
        *,
        leads: Callable[[], Awaitable[bool]],
        on_rollback: Callable[[Entry], Awaitable[None]],
        judges: bool = True,
        every_s: float = EVERY_S,
    ) -> None:
        self._canary = canary
        self._metrics = metrics
        self._terms = terms
        self._leads = leads
        self._on_rollback = on_rollback
        self._judges = judges
        self._every_s = every_s
        self._looking = Background("canary", _failed)

    async def __aenter__(self) -> Self:
        self._looking.start(self._look_for_ever())
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._looking.stop()

    async def _look_for_ever(self) -> None:
        while True:
            try:
                await self.look()
            except QueueUnavailableError as error:
                log.debug("canary_unseen", reason=error.message)
            await asyncio.sleep(self._every_s)

    async def look(self) -> None:
        """Measure, and judge if it is for this process. Raises QueueUnavailableError."""
        trial = await self._canary.trial(self._terms.window_s)
        self._metrics.see_canary(trial, rolled_back=rolled_back(trial))
        if not self._judges or not await self._leads():
            return
        await self._canary.spread()
        fault = judge(trial, self._terms) if trial.share > 0 else None
        if fault is not None:
            await self._roll_back(trial, fault)

    async def _roll_back(self, trial: Trial, fault: Fault) -> None:
        entry = new_entry(0.0, trial.share, BY, fault.value, **figures(trial))
        if not await self._canary.set(entry, trial=trial.number):
            return  # somebody has changed it meanwhile
        log.error("canary_rolled_back", reason=fault.value)
        await self._on_rollback(entry)


def rolled_back(trial: Trial) -> bool:
    """Return whether canaries lost their share by doing worse, and nobody has set one since."""
    return trial.share == 0 and trial.entry.get("by") == BY


def _failed(error: BaseException) -> None:
    log.error("canary_watch_failed", exc_info=error)
