"""What many counters grew by lately, added up: of processes that come, go and begin anew."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence

Counts = Sequence[float]
"""Counters that only grow while their process lives."""


class Window:
    """The growth of some counters over the last ``seconds``.

    Each source's first look tells nothing yet; a source that began anew has another name.
    """

    def __init__(self, seconds: float, width: int) -> None:
        self._seconds = seconds
        self._last: dict[str, Counts] = {}
        self._steps: deque[tuple[float, list[float]]] = deque()
        self._sum = [0.0] * width

    def see(self, now_s: float, sources: Mapping[str, Counts]) -> None:
        """Take what every source counts now; those that are not there are forgotten."""
        grown = [0.0] * len(self._sum)
        for name, counts in sources.items():
            before = self._last.get(name)
            if before is not None and len(counts) == len(grown):
                for at, (new, old) in enumerate(zip(counts, before, strict=True)):
                    grown[at] += max(0.0, new - old)
        self._last = {name: counts for name, counts in sources.items() if len(counts) == len(grown)}
        self._steps.append((now_s, grown))
        self._add(grown, 1)
        while self._steps[0][0] <= now_s - self._seconds:
            self._add(self._steps.popleft()[1], -1)

    @property
    def total(self) -> list[float]:
        """How much each counter grew within the window."""
        return self._sum

    def rates(self, now_s: float, began_s: float) -> list[float]:
        """Return the growth a second; ``began_s``: when looking began."""
        seconds = min(self._seconds, now_s - began_s)
        return [one / seconds if seconds > 0 else 0.0 for one in self._sum]

    def _add(self, grown: Sequence[float], sign: int) -> None:
        for at, value in enumerate(grown):
            if value:
                self._sum[at] += sign * value
