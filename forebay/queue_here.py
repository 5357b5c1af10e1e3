"""The queue that a command works on: that of the settings, or of the stack that runs here."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

from forebay.access.audit import AuditTrail, Deed
from forebay.config import Settings
from forebay.queue.address import ServerAddress, parse_address
from forebay.queue.embedded import EmbeddedValkey
from forebay.queue.errors import QueueNotRunningError
from forebay.queue.opening import OpenQueue, open_queue

T = TypeVar("T")


def on_queue(
    settings: Settings, work: Callable[[OpenQueue], Awaitable[T]], deed: Deed | None = None
) -> T:
    """Do ``work`` on the queue; with a ``deed`` it is recorded, whatever comes of it."""

    async def main() -> T:
        async with opened_queue(settings) as opened:
            if deed is None:
                return await work(opened)
            async with AuditTrail(opened.access, settings.queue_name).recorded(deed):
                return await work(opened)

    return asyncio.run(main())


@asynccontextmanager
async def opened_queue(settings: Settings) -> AsyncIterator[OpenQueue]:
    """Open the queue of the settings, or that of the stack that runs here, for the block."""
    async with open_queue(
        queue_address_of(settings),
        settings.queue_name,
        settings.queue_limits(),
        partitions=settings.queue_partitions,
    ) as opened:
        yield opened


def queue_address_of(settings: Settings) -> ServerAddress:
    """Return where the queue is: as set, else the private server of the data folder."""
    if settings.queue_url is not None:
        return settings.queue_address()
    folder = settings.queue_dir
    if not folder.is_dir() or not (server := EmbeddedValkey(folder)).socket.exists():
        raise QueueNotRunningError(
            f"No queue runs in {folder}.",
            mend="Start `forebay serve` on it, or name another with --data-dir or --queue-url.",
        )
    return parse_address(server.url)
