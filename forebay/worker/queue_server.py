"""The stack's queue server: a configured one, or the private Valkey kept alive by us."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import structlog

from forebay.config import Settings
from forebay.core.stillness import Stillness
from forebay.queue.embedded import EmbeddedValkey

log = structlog.get_logger("forebay.supervisor")

POLL_S: Final = 0.25
ASK_EVERY_S: Final = 2.0
SILENT_S: Final = 30.0
"""After which a server that lives and says nothing is ended. Long, for a disk that stumbles holds
it up as well, and a new one has to read all of its file."""


class QueueServer:
    """Starts, watches and stops the private server; does nothing where one is configured.

    ``EmbeddedValkey`` blocks, so its calls run on threads, one at a time.
    """

    def __init__(self, settings: Settings, *, silent_s: float = SILENT_S) -> None:
        self._configured = settings.queue_url
        self._server = (
            None
            if settings.queue_url
            else EmbeddedValkey(settings.queue_dir, fsync=settings.queue_fsync)
        )
        self._one_at_a_time = asyncio.Lock()
        self._silent_s = silent_s
        self._silence = Stillness(ASK_EVERY_S)
        self._answers = 0

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
        """Start the private server again when it dies, and end it when it hangs; return never.

        Raises:
            QueueSetupError: it cannot be started again.
        """
        if self._server is None:
            await asyncio.Event().wait()
        clock = asyncio.get_running_loop().time
        asked_s = clock()
        while True:
            await asyncio.sleep(POLL_S)
            if not self._private.alive():
                log.warning("queue_server_died", pid=self._private.pid)
                await self.start()
                log.info("queue_server_restarted", pid=self._private.pid)
            elif clock() - asked_s >= ASK_EVERY_S:
                asked_s = clock()
                await self._end_if_silent()

    async def _end_if_silent(self) -> None:
        """Ask the private server for a word; end it where it has given none for long."""
        server, clock = self._private, asyncio.get_running_loop().time
        await self._on_thread(self._ask)
        silent_s = self._silence.see((server.pid, self._answers), clock())
        if silent_s > self._silent_s:
            log.error("queue_server_silent", pid=server.pid, after_s=round(silent_s, 1))
            await self._on_thread(server.kill)

    def _ask(self) -> None:
        self._answers += self._private.answers()

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
