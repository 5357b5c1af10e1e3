"""The console's figures in the queue's server: one process computes them, all have the same.

Two rings: a point for each second, and means over a longer step that reach further back.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from typing import Final

from redis.asyncio import Redis

from forebay.queue.connection import unavailable
from forebay.queue.functions import Functions
from forebay.queue.limits import QueueLimits
from forebay.queue.schema import Keys, access_name

FINE_POINTS: Final = 1_800
"""Half an hour, a point a second."""

COARSE_STEP_S: Final = 30
COARSE_POINTS: Final = 2_880
"""A day."""

KEEP_S: Final = 2 * 86_400
LEAD_S: Final = 3.0
"""Who does not beat for so long leads no longer, and counts no longer."""

REPORTS_TTL_S: Final = 60
AT_ONCE: Final = 600
"""Points in one reply."""

Place = str
"""Of a point in its ring; ``BEFORE_ALL`` is before the first. Its ms are when it was taken."""

BEFORE_ALL: Final[Place] = "0-0"
Points = list[tuple[Place, str]]


@dataclass(frozen=True, slots=True)
class Beat:
    """What one process finds: new points of both rings and, where it leads, all reports."""

    leads: bool
    light: str
    fine: Points
    coarse: Points
    reports: dict[str, str]


class LiveLibrary(Functions):
    """The functions of the console's figures, for one queue."""

    async def beat(self, process: str, says: str, fine: Place, coarse: Place) -> Beat:
        """Report, ask for the lead, and get what is new."""
        times = (round(LEAD_S * 1000), REPORTS_TTL_S * 1000)
        leads, light, fine_rows, coarse_rows, reports = await self._call(
            "live_beat", process, says, *times, fine, coarse, AT_ONCE
        )
        return Beat(
            bool(leads),
            str(light),
            _points(fine_rows),
            _points(coarse_rows),
            {str(one): str(text) for one, text in reports},
        )

    async def keep(self, process: str, light: str, point: str, coarse: str) -> list[Place]:
        """Keep a point, and the mean of many where there is one. Sent twice it is kept twice."""
        sizes = (FINE_POINTS, coarse, COARSE_POINTS, KEEP_S * 1000)
        return list(await self._call("live_keep", process, light, point, *sizes))

    async def history(self, ring: str, after: Place) -> Points:
        """Return points of a ring, ``AT_ONCE`` at most."""
        rows = await self._call("live_history", ring, after, AT_ONCE)
        return _points(rows)


class LiveStore:
    """The figures of one queue. Every method may raise QueueUnavailableError."""

    def __init__(self, redis: Redis, queue_name: str) -> None:
        self._library = LiveLibrary(redis, Keys(access_name(queue_name)), QueueLimits())

    async def beat(self, process: str, says: str, fine: Place, coarse: Place) -> Beat:
        """Say what a process has counted, and get the points after those places."""
        async with unavailable("exchanging figures"):
            return await self._library.beat(process, says, fine, coarse)

    async def keep(
        self, process: str, light: str, point: str, coarse: str = ""
    ) -> tuple[Place, Place] | None:
        """Keep a point; return the places, or None where another process leads by now."""
        async with unavailable("keeping figures"):
            places = await self._library.keep(process, light, point, coarse)
        return (places[0], places[1]) if places else None

    async def fine(self) -> AsyncIterator[Points]:
        """Yield all points of the last half hour, some at a time."""
        async for points in self._all("live"):
            yield points

    async def coarse(self) -> AsyncIterator[Points]:
        """Yield all points of the last day, some at a time."""
        async for points in self._all("live_coarse"):
            yield points

    async def _all(self, ring: str) -> AsyncIterator[Points]:
        place = BEFORE_ALL
        while True:
            async with unavailable("reading figures"):
                points = await self._library.history(ring, place)
            if points:
                yield points
            if len(points) < AT_ONCE:
                return
            place = points[-1][0]


def _points(rows: Iterable[tuple[str, str]]) -> Points:
    return [(str(place), str(point)) for place, point in rows]
