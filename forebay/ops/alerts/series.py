"""What was measured lately: series of samples, by name and labels, bounded in time and number."""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from forebay.ops.alerts.expression import Selector

STALE_S: Final = 60.0
"""A value of now is at most so old; Prometheus, with longer intervals, has five minutes."""

MOST_SERIES: Final = 20_000

Labels = tuple[tuple[str, str], ...]
"""Sorted by name."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One value of one series, as a process told it."""

    name: str
    labels: Labels
    value: float


class History:
    """The series that some selectors mean; the others are not kept.

    Each is kept for as long as the longest selector looks back, and two intervals more.
    """

    def __init__(self, wanted: Sequence[Selector], every_s: float) -> None:
        self._wanted = tuple(wanted)
        self._keep_s: dict[str, float] = {}
        for one in self._wanted:
            back_s = one.range_s + one.offset_s + STALE_S + 2 * every_s
            self._keep_s[one.metric] = max(back_s, self._keep_s.get(one.metric, 0.0))
        self._series: dict[tuple[str, Labels], deque[tuple[float, float]]] = {}

    def wants(self, name: str, labels: Labels) -> bool:
        """Return whether a series is of use."""
        as_dict = dict(labels)
        return name in self._keep_s and any(one.fits(name, as_dict) for one in self._wanted)

    def add(self, at_s: float, samples: Iterable[Sample]) -> None:
        """Take samples of the time ``at_s``; one not newer than the last of its series is left."""
        for one in samples:
            key = (one.name, one.labels)
            points = self._series.get(key)
            if points is None:
                if len(self._series) >= MOST_SERIES or not self.wants(one.name, one.labels):
                    continue
                points = self._series[key] = deque()
            if points and at_s < points[-1][0] - STALE_S:
                points.clear()  # the clock was put back
            if not points or points[-1][0] < at_s:
                points.append((at_s, one.value))

    def forget(self, now_s: float) -> None:
        """Drop what no selector looks back to any more."""
        for key, points in list(self._series.items()):
            oldest_s = now_s - self._keep_s[key[0]]
            while points and points[0][0] < oldest_s:
                points.popleft()
            if not points:
                del self._series[key]

    def at(self, selector: Selector, now_s: float) -> dict[Labels, float]:
        """Return the value of each series meant, where one is fresh."""
        found = {}
        for labels, points in self._meant(selector):
            until_s = now_s - selector.offset_s
            here = bisect_right(points, until_s, key=_time) - 1
            if here >= 0 and points[here][0] > until_s - STALE_S:
                found[labels] = points[here][1]
        return found

    def within(self, selector: Selector, now_s: float) -> dict[Labels, list[tuple[float, float]]]:
        """Return the points of each series meant within the selector's range."""
        until_s = now_s - selector.offset_s
        from_s = until_s - selector.range_s
        return {
            labels: [point for point in points if from_s <= point[0] <= until_s]
            for labels, points in self._meant(selector)
        }

    def _meant(self, selector: Selector) -> Iterable[tuple[Labels, deque[tuple[float, float]]]]:
        for (name, labels), points in self._series.items():
            if name == selector.metric and selector.fits(name, dict(labels)):
                yield labels, points


def _time(point: tuple[float, float]) -> float:
    return point[0]
