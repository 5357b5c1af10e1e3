"""A timeout that waits for another process, and does not take its own process's stalls for that."""

from __future__ import annotations

import asyncio
import time
from types import TracebackType
from typing import Final, Self

SLICE_S: Final = 0.1
"""Patience is spent in slices, each told by the event loop."""

MOST_LATE: Final = 10
"""Slices told late that are forgiven. A loop that stalls all the time gives up in the end too."""

LAST_TURNS: Final = 3
"""Turns of the loop before giving up: one hears the socket, one wakes who waits, one to spare."""


class Patience:
    """An async context manager that raises TimeoutError after ``within_s`` of listening.

    The loop counts a slice as spent when it tells of it in time. Told late, the loop was busy with
    something else, and an answer may lie in the socket unheard: such a slice is given again. So a
    stall of this process costs its own length and no more, and silence is told after ``within_s``
    as long as there is no stall. A slice is at most ``SLICE_S``, at most ``MOST_LATE`` are given
    again.
    """

    def __init__(self, within_s: float) -> None:
        self._within_s = within_s
        self._listened_s = 0.0
        self._late = 0
        self._slice_s = 0.0
        self._due = 0.0
        self._timer: asyncio.Handle | None = None
        self._end = asyncio.timeout(None)

    async def __aenter__(self) -> Self:
        await self._end.__aenter__()
        self._loop = asyncio.get_running_loop()
        self._listen()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        await self._end.__aexit__(kind, error, trace)

    def change(self, within_s: float) -> None:
        """Wait for so long from the beginning; what is spent is spent."""
        self._within_s = within_s

    def _listen(self) -> None:
        self._slice_s = min(SLICE_S, self._within_s - self._listened_s)
        self._due = time.monotonic() + self._slice_s
        self._timer = self._loop.call_later(self._slice_s, self._told)

    def _told(self) -> None:
        late_s = time.monotonic() - self._due
        if late_s > SLICE_S and self._late < MOST_LATE:
            self._late += 1
        else:
            self._listened_s += self._slice_s
        if self._listened_s < self._within_s:
            self._listen()
        else:
            self._give_up(LAST_TURNS)

    def _give_up(self, turns: int) -> None:
        if turns:
            self._timer = self._loop.call_soon(self._give_up, turns - 1)
        else:
            self._timer = None
            self._end.reschedule(self._loop.time())
