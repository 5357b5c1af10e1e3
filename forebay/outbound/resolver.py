"""Names to addresses, through the system's resolver, bounded in number and never in the way."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Sequence
from typing import Final, Protocol

from forebay.outbound.addresses import Address, parse_address
from forebay.outbound.errors import NameUnknownError

MOST_ADDRESSES: Final = 32
"""Of one name; what a resolver says beyond is not looked at, and not dialled."""


class Resolver(Protocol):
    """Resolves one name."""

    async def __call__(self, host: str, port: int) -> Sequence[Address]:
        """Return the host's addresses, the best first. Raises NameUnknownError."""
        ...


class SystemResolver:
    """``getaddrinfo`` in threads of its own, at most ``lookups`` at once.

    The system's resolver knows no deadline and cannot be interrupted. A lookup that hangs therefore
    keeps its thread and its place after the caller has given up, and nothing else: not the event
    loop's own threads, and, these being daemons, not the end of the process.
    """

    def __init__(self, lookups: int = 16) -> None:
        self._places = asyncio.Semaphore(lookups)

    async def __call__(self, host: str, port: int) -> Sequence[Address]:
        """Return the host's addresses, the best first. Raises NameUnknownError."""
        await self._places.acquire()
        loop = asyncio.get_running_loop()
        found: asyncio.Future[list[Address]] = loop.create_future()
        thread = threading.Thread(
            target=self._look_up, args=(loop, found, host, port), daemon=True, name="resolver"
        )
        try:
            thread.start()
        except RuntimeError as error:  # the system has no thread left
            self._places.release()
            raise NameUnknownError("The host's name cannot be looked up now.") from error
        return await found

    def _look_up(
        self,
        loop: asyncio.AbstractEventLoop,
        found: asyncio.Future[list[Address]],
        host: str,
        port: int,
    ) -> None:
        result = _addresses(host, port)
        try:
            loop.call_soon_threadsafe(self._deliver, found, result)
        except RuntimeError:  # the loop has ended meanwhile, and with it whoever asked
            return

    def _deliver(
        self, found: asyncio.Future[list[Address]], result: list[Address] | NameUnknownError
    ) -> None:
        self._places.release()
        if found.done():
            return
        if isinstance(result, NameUnknownError):
            found.set_exception(result)
        else:
            found.set_result(result)


def _addresses(host: str, port: int) -> list[Address] | NameUnknownError:
    try:
        rows = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return NameUnknownError("The host's name is not known.")
    addresses: dict[Address, None] = {}
    for row in rows[:MOST_ADDRESSES]:
        address = parse_address(str(row[4][0]))
        if address is None:  # a zone: an address of one link only
            return NameUnknownError("The host's name leads to no usable address.")
        addresses[address] = None
    return list(addresses) or NameUnknownError("The host's name is not known.")
