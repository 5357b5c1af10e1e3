"""Works through batches, in every API process: each batch is in one process's hands at a time."""

from __future__ import annotations

import asyncio
import secrets
from types import TracebackType
from typing import Final, Self

import structlog

from forebay.api.batches.desk import BatchDesk
from forebay.api.batches.run import BatchRun
from forebay.api.disconnect import end
from forebay.api.services import Services
from forebay.core.errors import ForebayError
from forebay.queue.batches import BatchRecord, BatchStatus, LeaseLostError

log = structlog.get_logger(__name__)

AT_ONCE: Final = 2
"""Batches that one process has in hand; the others wait for their turn, the oldest first."""

_LOOK_EVERY_S: Final = 1.0
_AGAIN_AFTER_S: Final = 5.0
_SWEEP_EVERY_S: Final = 600.0


class BatchRunner:
    """Runs while it is entered. What is in hand at the end is left for another to go on with."""

    def __init__(self, services: Services, desk: BatchDesk) -> None:
        self._services = services
        self._desk = desk
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        """Begin."""
        self._tasks = [asyncio.create_task(self._serve()) for _ in range(AT_ONCE)]
        self._tasks.append(asyncio.create_task(self._sweep()))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        trace: TracebackType | None = None,
    ) -> None:
        """Stop, and give back what is in hand."""
        await end(*self._tasks)

    async def _serve(self) -> None:
        while True:
            owner = secrets.token_hex(8)
            try:
                batch = await self._desk.batches.take(owner)
            except ForebayError:
                await asyncio.sleep(_AGAIN_AFTER_S)
                continue
            if batch is None:
                await self._wait_for_news()
            else:
                await self._run(batch, owner)

    async def _wait_for_news(self) -> None:
        try:
            async with asyncio.timeout(_LOOK_EVERY_S):
                await self._desk.news.wait()
        except TimeoutError:
            return
        self._desk.news.clear()

    async def _run(self, batch: BatchRecord, owner: str) -> None:
        batch_id = batch.batch_id
        log.info("batch.taken", batch=batch_id)
        try:
            await BatchRun(self._services, self._desk, batch, owner).run()
        except asyncio.CancelledError:
            await self._give_back(batch_id, owner)
            raise
        except LeaseLostError:
            log.warning("batch.lease_lost", batch=batch_id)
        except FileNotFoundError as error:
            log.error("batch.input_lost", batch=batch_id, reason=str(error))
            await self._fail(
                batch_id, owner, "input_lost", "what the batch needs is gone from disk"
            )
        except (ForebayError, OSError) as error:  # a full disk, a server away: later, by anyone
            log.warning("batch.interrupted", batch=batch_id, reason=str(error))
            await asyncio.sleep(_AGAIN_AFTER_S)
            await self._give_back(batch_id, owner)
        except Exception:  # one batch must not end the others, nor run for ever
            log.exception("batch.broken", batch=batch_id)
            await self._fail(batch_id, owner, "internal_error", "the batch met an internal error")

    async def _give_back(self, batch_id: str, owner: str) -> None:
        try:
            await self._desk.batches.give_back(batch_id, owner)
        except (ForebayError, LeaseLostError) as error:  # the lease runs out by itself
            log.info("batch.not_given_back", batch=batch_id, reason=str(error))

    async def _fail(self, batch_id: str, owner: str, code: str, message: str) -> None:
        fault = {"code": code, "message": message, "line": None, "param": None}
        try:
            await self._desk.batches.close(
                batch_id, owner, status=BatchStatus.FAILED, faults=[fault]
            )
        except (ForebayError, LeaseLostError) as error:
            log.info("batch.not_closed", batch=batch_id, reason=str(error))

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(_SWEEP_EVERY_S)
            try:
                await self._desk.sweep()
                await self._desk.files.sweep()
            except (ForebayError, OSError) as error:
                log.warning("files.not_swept", reason=str(error))
