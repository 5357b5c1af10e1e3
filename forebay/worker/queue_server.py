"""The stack's queue server: a configured one, or the private Valkey kept alive by us."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from forebay.config import Settings
from forebay.queue.embedded import EmbeddedValkey

log = structlog.get_logger("forebay.supervisor")

POLL_S = 0.25


class QueueServer:
    """Starts, watches and stops the private server; does nothing where one is configured.

    ``EmbeddedValkey`` blocks, so its calls run on threads, one at a time.
    """

    def __init__(self, settings: Settings) -> None:
        self._configured = settings.queue_url
        self._server = (
            None
            if settings.queue_url
            else EmbeddedValkey(settings.queue_dir, fsync=settings.queue_fsync)
        )
        self._one_at_a_time = asyncio.Lock()

    @property
    def url(self) -> str:
        """Where the queue is."""
        return self._configured or self._private.url

    @property
    def pid(self) -> int | None:
        """Process id of the private server; None for a configured one."""
        return self._server.pid if self._server else None

    @property
    def _private(self) -> EmbeddedValkey:
        assert self._server is not None
        return self._server

    async def start(self) -> None:
        """Start the private server. Raises QueueSetupError."""
        if self._server is not None:
            await self._on_thread(self._server.start)

    async def keep_alive(self) -> None:
        """Start the private server again when it dies; return never.

        Raises:
            QueueSetupError: it cannot be started again.
        """
        while True:
            await asyncio.sleep(POLL_S)
            if self._server is not None and not self._server.alive():
                log.warning("queue_server_died", pid=self._server.pid)
                await self.start()
                log.info("queue_server_restarted", pid=self._server.pid)

    async def stop(self) -> None:
        """Save and end the private server."""
        if self._server is not None:
            await self._on_thread(self._server.stop)

    async def _on_thread(self, call: Callable[[], None]) -> None:
        """Run ``call`` on a thread. A cancelled caller still waits for its end.

        A thread cannot be cancelled: a stop beside a start under way would miss its server.
        """
        async with self._one_at_a_time:
            running = asyncio.ensure_future(asyncio.to_thread(call))
            try:
                await asyncio.shield(running)
            except asyncio.CancelledError:
                await asyncio.wait([running])
                raise
