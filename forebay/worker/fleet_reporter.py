"""Says once a second how this worker or supervisor is, and obeys what it finds in the answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final, Self

import structlog

from forebay.core.background import Background
from forebay.core.errors import QueueUnavailableError
from forebay.queue.fleet import Fleet

log = structlog.get_logger("forebay.fleet")

EVERY_S: Final = 1.0


class FleetReporter:
    """An async context manager; while it is entered, ``says`` is reported, ``obey`` told.

    ``obey`` is given what is wanted at every report, so it must bear the same word again.
    """

    def __init__(
        self,
        fleet: Fleet,
        name: str,
        says: Callable[[], Awaitable[dict[str, Any]]],
        obey: Callable[[str], Awaitable[None]],
        *,
        every_s: float = EVERY_S,
    ) -> None:
        self._fleet = fleet
        self._name = name
        self._says = says
        self._obey = obey
        self._every_s = every_s
        self._reporting = Background("fleet", _failed)

    async def __aenter__(self) -> Self:
        self._reporting.start(self._report_for_ever())
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._reporting.stop()
        try:
            await self._fleet.leave(self._name)
        except QueueUnavailableError as error:
            log.debug("fleet_not_left", reason=error.message)  # it is forgotten after a while

    async def reporting(self) -> None:
        """Return never, unless reporting fails."""
        await self._reporting.ended()

    async def _report_for_ever(self) -> None:
        while True:
            await self.report()
            await asyncio.sleep(self._every_s)

    async def report(self) -> None:
        """Report, and obey; while the server is away, what was wanted last goes on."""
        says = await self._says()
        try:
            wanted = await self._fleet.report(self._name, says)
        except QueueUnavailableError as error:
            log.debug("fleet_unheard", reason=error.message)
            return
        await self._obey(wanted)


def _failed(error: BaseException) -> None:
    log.error("fleet_reports_failed", exc_info=error)
