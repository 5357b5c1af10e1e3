"""A worker among the fleet: its report, and what it does when it is wanted otherwise."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import structlog

from forebay.ops.live.members import WorkerCard, WorkerNow, worker_says
from forebay.ops.resources import Machine
from forebay.ops.worker_status import peak_memory_bytes
from forebay.queue.fleet import DRAIN, RESTART
from forebay.worker.engine_port import EnginePort
from forebay.worker.worker import Worker

log = structlog.get_logger("forebay.fleet")


class FleetWorker:
    """What a ``FleetReporter`` of a worker asks.

    ``end``: begins the end of this process, a drain first. ``restarting``: somebody has asked for
    that end, so the process is to be started anew.
    """

    def __init__(
        self,
        worker: Worker,
        engine: EnginePort,
        card: WorkerCard,
        machine: Machine,
        *,
        still_s: Callable[[], float],
        end: Callable[[], None],
    ) -> None:
        self.restarting = False
        self._worker = worker
        self._engine = engine
        self._card = card
        self._machine = machine
        self._still_s = still_s
        self._end = end

    async def says(self) -> dict[str, Any]:
        """Return the report."""
        reading = await asyncio.to_thread(self._machine.read)
        worker, tally = self._worker, self._worker.publisher.tally
        now = WorkerNow(
            worker.phase.value,
            len(worker.held),
            tally.answered,
            tally.failed,
            tally.news,
            peak_memory_bytes(),
            self._still_s(),
            self._engine.load,
            worker.publisher.times.to_json(),
        )
        return worker_says(self._card, now, reading)

    async def obey(self, wanted: str) -> None:
        """Do what is wanted; nothing wanted: work."""
        if self.restarting:
            return
        if wanted == f"{RESTART} {self._card.life}":
            log.info("restart_wanted", worker=self._worker.name)
            self.restarting = True
            self._end()
        elif wanted == DRAIN:
            self._worker.stand_aside()
        else:
            self._worker.step_up()
