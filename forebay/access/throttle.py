"""Rates and budgets of callers, counted in the queue's server for all processes at once.

It fails closed: where the server cannot be asked, QueueUnavailableError. Nothing that is counted
could be served without that server, so to fail open would gain nothing, and give guessers a way.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final, Protocol

import structlog
from redis.asyncio import Redis

from forebay.access.caller import Caller
from forebay.access.library import AccessLibrary, CellCharge
from forebay.core.errors import (
    ForbiddenError,
    ForebayError,
    QueueUnavailableError,
    RateLimitedError,
)
from forebay.queue.connection import unavailable

log = structlog.get_logger(__name__)

MINUTE_S: Final = 60.0
DAY_S: Final = 86_400.0
_US: Final = 1e6


@dataclass(frozen=True, slots=True)
class Cell:
    """A rate: ``units`` in ``period_s`` in the long run, ``burst`` of them at once.

    ``about``: what is too fast, for the refusal.
    """

    name: str
    units: float
    period_s: float
    burst: float
    about: str

    def charge(self, cost: float) -> CellCharge:
        """Return the charge of a cost."""
        return CellCharge(self.name, self.period_s / self.units * _US, self.burst, cost)


def rate(name: str, per_s: float, burst: int, about: str) -> Cell:
    """Return the cell of so many a second."""
    return Cell(name, per_s, 1.0, burst, about)


def budget(name: str, units: int, period_s: float, about: str) -> Cell:
    """Return the cell of a budget: whole at first, and it fills up again evenly."""
    return Cell(name, units, period_s, units, about)


class Meter(Protocol):
    """Counts what callers use."""

    async def charge(self, charges: Sequence[tuple[Cell, float]]) -> None:
        """Charge every cell its cost, or none.

        Raises:
            RateLimitedError: there is no room in one of them yet.
            ForbiddenError: there never will be.
            QueueUnavailableError: it cannot be counted now.
        """
        ...


class Throttle:
    """A ``Meter`` in the queue's server."""

    def __init__(self, redis: Redis, queue_name: str) -> None:
        self._library = AccessLibrary(redis, queue_name)

    async def charge(self, charges: Sequence[tuple[Cell, float]]) -> None:
        """Charge every cell its cost, or none."""
        if not charges:
            return
        async with unavailable("counting a request"):
            which, wait_ms = await self._library.throttle(
                [cell.charge(cost) for cell, cost in charges]
            )
        if which:
            cell, cost = charges[which - 1]
            raise _refusal(cell, cost, wait_ms)


def _refusal(cell: Cell, cost: float, wait_ms: int) -> ForebayError:
    if wait_ms < 0:
        return ForbiddenError(f"{cell.about}: {cost:g} at once, the most is {cell.burst:g}")
    seconds = wait_ms / 1000
    return RateLimitedError(f"{cell.about}: try again in {seconds:g} s", retry_after=seconds)


@dataclass(slots=True)
class Bill:
    """What a block is charged for. ``void``: nothing was used, so it is given back."""

    void: bool = False


@asynccontextmanager
async def spending(meter: Meter | None, caller: Caller, tokens: int) -> AsyncIterator[Bill]:
    """Charge a caller's token budgets for the block; what fails in it is given back.

    Raises RateLimitedError saying which budget, and when there is room again, or ForbiddenError
    where the whole of it would be too small.
    """
    bill, cells = Bill(), _budgets(caller)
    if meter is None or not cells:
        yield bill
        return
    await meter.charge([(cell, tokens) for cell in cells])
    try:
        yield bill
    except BaseException:
        await _give_back(meter, caller, cells, tokens)
        raise
    if bill.void:
        await _give_back(meter, caller, cells, tokens)


async def _give_back(meter: Meter, caller: Caller, cells: Sequence[Cell], tokens: int) -> None:
    try:
        await meter.charge([(cell, -tokens) for cell in cells])
    except QueueUnavailableError as error:  # what came of the block is what the client is told
        log.warning("budget.not_given_back", caller=caller.name, reason=error.message)


def _budgets(caller: Caller) -> list[Cell]:
    wanted = (
        ("minute", caller.allowance.tokens_per_minute, MINUTE_S),
        ("day", caller.allowance.tokens_per_day, DAY_S),
    )
    return [
        budget(f"tokens:{word}:{caller.name}", units, period_s, f"{caller.name} tokens per {word}")
        for word, units, period_s in wanted
        if units is not None
    ]
