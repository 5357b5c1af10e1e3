"""A result that is made on demand, by one at a time, and serves everyone for a moment."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Momentary(Generic[T]):
    """Whoever asks while it is made, or within ``fresh_s`` of its end, gets the same result."""

    def __init__(self, fresh_s: float) -> None:
        self._fresh_s = fresh_s
        self._making: asyncio.Task[T] | None = None
        self._stale_at = float("inf")

    async def get(self, make: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Return the present result, made by ``make`` if there is none; it must end by itself.

        Who made it may go away meanwhile: it is made all the same. What ``make`` raises is the
        result, too.
        """
        if self._making is None or time.monotonic() >= self._stale_at:
            self._stale_at = float("inf")
            self._making = asyncio.ensure_future(make())
            self._making.add_done_callback(self._made)
        return await asyncio.shield(self._making)

    def _made(self, making: asyncio.Task[T]) -> None:
        del making
        self._stale_at = time.monotonic() + self._fresh_s
