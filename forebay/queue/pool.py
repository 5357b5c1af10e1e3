"""A pool of connections that hands them out for next to nothing."""

from __future__ import annotations

from typing import Any

from redis.asyncio import BlockingConnectionPool
from redis.asyncio.connection import AbstractConnection


class SwiftPool(BlockingConnectionPool):
    """A bounded pool in which only who finds no connection left takes the lock and waits.

    The base class takes locks and measures itself at every turn, which costs a short command as
    much as its own work. Handing out and taking back change two collections within one step of the
    event loop, so nothing can come between.
    """

    _waiting = 0  # callers in the base class's hands, to be woken by its release

    async def get_connection(self, *args: Any, **options: Any) -> AbstractConnection:
        """Return a connection that is ready for use; wait for one where all are in use."""
        if self._waiting or not self.can_get_connection():
            return await self._wait_for_connection(*args, **options)
        connection: AbstractConnection = self.get_available_connection()  # type: ignore[no-untyped-call]
        try:
            await self.ensure_connection(connection)
        except BaseException:
            await self.release(connection)
            raise
        return connection

    async def _wait_for_connection(self, *args: Any, **options: Any) -> AbstractConnection:
        self._waiting += 1
        try:
            found: AbstractConnection = await super().get_connection(*args, **options)  # type: ignore[no-untyped-call]
            return found
        finally:
            self._waiting -= 1

    async def ensure_connection(self, connection: AbstractConnection) -> None:
        """Make a connection ready for use: one that is up, with nothing left to read, is."""
        if not connection.is_connected or await connection.can_read():
            await super().ensure_connection(connection)

    async def release(self, connection: AbstractConnection) -> None:
        """Take a connection back."""
        if self._waiting or connection.should_reconnect():  # type: ignore[no-untyped-call]
            await super().release(connection)
            return
        self._in_use_connections.remove(connection)
        self._available_connections.append(connection)
