"""A supervisor among the fleet: its report, and the number of workers that is wanted of it."""

from __future__ import annotations

import asyncio
import os
import platform
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, Final

import structlog

from forebay.config import SettingsError
from forebay.core.errors import QueueUnavailableError
from forebay.ops.live.fleet_view import wanted_count
from forebay.ops.live.members import STACK
from forebay.queue.errors import QueueSetupError
from forebay.queue.fleet import Fleet
from forebay.worker.child import Child
from forebay.worker.crew import Crew
from forebay.worker.fleet_reporter import FleetReporter

log = structlog.get_logger("forebay.supervisor")

AGAIN_S: Final = 5.0
"""Between two attempts to reach a queue's server that is away."""

OpenFleet = Callable[[], AbstractAsyncContextManager[Fleet]]


class FleetStack:
    """What a ``FleetReporter`` of a supervisor asks. ``leave``: ends a worker that is too many."""

    def __init__(
        self, name: str, crew: Crew, leave: Callable[[Child], Awaitable[None]], group: str
    ) -> None:
        self.name = name
        self._crew = crew
        self._leave = leave
        self._group = group
        self._obeyed = ""

    async def says(self) -> dict[str, Any]:
        """Return the report."""
        return {
            "kind": STACK,
            "host": platform.node(),
            "pid": os.getpid(),
            "wanted": self._crew.wanted,
            "workers": {one.spec.name: one.pid for one in self._crew.members},
            "group": self._group,
        }

    async def obey(self, wanted: str) -> None:
        """Run as many workers as are wanted, once for each word; a full machine is tried again."""
        count = wanted_count(wanted)
        if count is None or wanted == self._obeyed:
            return
        log.info("scale", workers=count)
        try:
            await self._crew.scale(count, self._leave)
        except OSError as error:
            log.warning("not_scaled", workers=count, reason=str(error))
            return
        self._obeyed = wanted

    async def report_for_ever(self, open_fleet: OpenFleet) -> None:
        """Report, and obey, until cancelled. What was wanted of an earlier stack is void."""
        while True:
            try:
                async with open_fleet() as fleet:
                    names = [one.spec.name for one in self._crew.members]
                    await fleet.order("", self.name, *names)
                    async with FleetReporter(fleet, self.name, self.says, self.obey) as reporter:
                        await reporter.reporting()
            except (QueueUnavailableError, QueueSetupError, SettingsError) as error:
                log.warning("fleet_unreached", reason=str(error))
            await asyncio.sleep(AGAIN_S)
