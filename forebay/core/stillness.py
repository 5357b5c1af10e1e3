"""How long something has not moved, in the time in which its watcher was there to see it."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Final

MOST_TICKS: Final = 2.0
"""What one look counts for at most, in ticks. A watcher that was itself held up (a machine asleep,
stopped or short of processor time) has not seen that nothing moved meanwhile."""


class Stillness:
    """Looks at one thing every ``tick_s``; times are those of a monotonic clock, in seconds."""

    def __init__(self, tick_s: float) -> None:
        self._longest_s = tick_s * MOST_TICKS
        self._mark: Hashable | None = None
        self._seen_s: float | None = None
        self.for_s = 0.0

    def see(self, mark: Hashable | None, now_s: float) -> float:
        """Return for how long the thing has been at ``mark``; None says that it is at rest."""
        passed_s = 0.0 if self._seen_s is None else now_s - self._seen_s
        self._seen_s = now_s
        if mark is None or mark != self._mark:
            self._mark, self.for_s = mark, 0.0
        else:
            self.for_s += min(passed_s, self._longest_s)
        return self.for_s
