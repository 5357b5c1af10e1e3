"""A worker's machine, told to whoever judges: its GPUs may be on no machine with an API."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Self

import structlog

from forebay.core.background import Background
from forebay.core.errors import QueueUnavailableError
from forebay.ops.alerts.rules import Rule, wanted_series
from forebay.ops.alerts.series import History
from forebay.ops.alerts.snapshot import snapshot
from forebay.ops.alerts.store import AlertStore
from forebay.ops.metric_book import MetricBook
from forebay.ops.resources import Machine

log = structlog.get_logger("forebay.alerts")

_HOST = "host"


class MachineReporter:
    """An async context manager; while it is entered, the machine is read and reported."""

    def __init__(
        self,
        store: AlertStore,
        rules: Sequence[Rule],
        machine: Machine,
        process: str,
        *,
        every_s: float,
        book: MetricBook | None = None,
    ) -> None:
        self._store = store
        self._wanted = History(wanted_series(tuple(rules)), every_s)
        self._machine = machine
        self._process = process
        self._every_s = every_s
        self._metrics = book or MetricBook()
        self._reporting = Background("machine", _failed)

    async def __aenter__(self) -> Self:
        self._reporting.start(self._report_for_ever())
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._reporting.stop()

    async def _report_for_ever(self) -> None:
        while True:
            await self.report()
            await asyncio.sleep(self._every_s)

    async def report(self) -> None:
        """Read the machine and report it; a server that is away hears of it the next time."""
        self._metrics.see_machine(await asyncio.to_thread(self._machine.read))
        every = snapshot(self._metrics.registry, self._wanted)
        of_machine = [one for one in every if _HOST in dict(one.labels)]
        try:
            await self._store.report(self._process, time.time(), of_machine)
        except QueueUnavailableError as error:
            log.debug("machine_not_reported", reason=error.message)


def _failed(error: BaseException) -> None:
    log.error("machine_reports_failed", exc_info=error)
