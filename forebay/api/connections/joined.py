"""A response's head and body as one write: one call of the system, one packet, one wake-up."""

from __future__ import annotations

import asyncio


class JoinedWrites:
    """What a response is written to, before its connection's transport.

    The first bytes, its head, wait for those that follow within the same step of the event loop; a
    stream's head, which nothing follows for a while, goes out at the step's end.
    """

    __slots__ = ("_begun", "_held", "_loop", "_transport")

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._held = b""
        self._begun = False

    def write(self, data: bytes) -> None:
        """Write, what is held before it."""
        if self._begun:
            held, self._held = self._held, b""
            self._transport.write(held + data if held else data)
            return
        self._begun = True
        self._held = data
        self._loop.call_soon(self.flush)

    def close(self) -> None:
        """Write what is held, and close."""
        self.flush()
        self._transport.close()

    def is_closing(self) -> bool:
        """Whether the transport is being closed."""
        return self._transport.is_closing()

    def flush(self) -> None:
        """Write what is held."""
        held, self._held = self._held, b""
        if held and not self._transport.is_closing():
            self._transport.write(held)
