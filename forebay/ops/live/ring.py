"""The figures of the last half hour, second by second, and of the last day: one process's copy."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from forebay.ops.live.packing import mean_of, unpack
from forebay.queue.live import (
    BEFORE_ALL,
    COARSE_POINTS,
    COARSE_STEP_S,
    FINE_POINTS,
    Place,
    Points,
)

Row = tuple[float, list[float | None]]
"""When, in seconds since the epoch, and the figures in the order of ``KEYS``."""

_LEAST_OF_A_MEAN: Final = 1


@dataclass(frozen=True, slots=True)
class Series:
    """Rows with about ``step_s`` between two."""

    step_s: int
    rows: list[Row]


class Ring:
    """The newest points of one ring, and the place after which the next one comes."""

    def __init__(self, most: int) -> None:
        self._points: deque[tuple[float, str]] = deque(maxlen=most)
        self.place: Place = BEFORE_ALL

    def add(self, points: Points) -> None:
        """Take points that follow those that are here."""
        for place, text in points:
            self._points.append((time_of(place), text))
            self.place = place

    @property
    def newest_s(self) -> float | None:
        """When the newest point was taken."""
        return self._points[-1][0] if self._points else None

    def since(self, from_s: float) -> list[Row]:
        """Return the rows from a time on."""
        return _rows((at_s, text) for at_s, text in self._points if at_s >= from_s)


class Rings:
    """Both rings."""

    def __init__(self) -> None:
        self.fine = Ring(FINE_POINTS)
        self.coarse = Ring(COARSE_POINTS)

    def series(self, seconds: float, now_s: float) -> Series:
        """Return the rows of the last ``seconds``, as fine as they are kept."""
        from_s = now_s - seconds
        if seconds <= FINE_POINTS:
            return Series(1, self.fine.since(from_s))
        return Series(COARSE_STEP_S, self.coarse.since(from_s))

    def due_mean(self, now_s: float) -> list[float | None] | None:
        """Return the next coarse point's figures where it is time for one."""
        last_s = self.coarse.newest_s
        if last_s is not None and 0 <= now_s - last_s < COARSE_STEP_S:
            return None
        rows = [figures for _, figures in self.fine.since(now_s - COARSE_STEP_S)]
        return mean_of(rows) if len(rows) >= _LEAST_OF_A_MEAN else None


def time_of(place: Place) -> float:
    """Return when a point was taken, by the queue's server."""
    return int(place.split("-")[0]) / 1000


def _rows(points: Iterable[tuple[float, str]]) -> list[Row]:
    return [(at_s, figures) for at_s, text in points if (figures := unpack(text)) is not None]
