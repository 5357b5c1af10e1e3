"""How many lines of a batch are in the queue at once: as many as the queue bears."""

from __future__ import annotations

import asyncio
from typing import Final

_FIRST: Final = 4.0


class Window:
    """Widens by one with every windowful of answers, halves with every refusal.

    That is how TCP finds the rate of a link it knows nothing of (RFC 5681).
    """

    def __init__(self, widest: int) -> None:
        self._widest = widest
        self._size = min(_FIRST, float(widest))
        self._inside = 0
        self._room = asyncio.Condition()

    @property
    def size(self) -> int:
        """Lines that may be inside now."""
        return int(self._size)

    async def enter(self) -> None:
        """Wait until there is room for one more."""
        async with self._room:
            await self._room.wait_for(lambda: self._inside < self.size)
            self._inside += 1

    async def leave(self) -> None:
        """Make room."""
        async with self._room:
            self._inside -= 1
            self._room.notify_all()

    def answered(self) -> None:
        """A line was answered."""
        self._size = min(float(self._widest), self._size + 1 / self._size)

    def refused(self) -> None:
        """The queue had no room for a line."""
        self._size = max(1.0, self._size / 2)
