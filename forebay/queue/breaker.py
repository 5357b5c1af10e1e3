"""Knows that a server is away, so that not every caller has to wait to learn it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

TRIP_AFTER: Final = 2
"""Failures in a row. One alone may be a connection that a proxy cut, or a moment's stall."""

FIRST_PAUSE_S: Final = 0.25
LONGEST_PAUSE_S: Final = 1.0


class Breaker:
    """Closed while the server answers; open after failures in a row, but for a probe now and then.

    A failure counts where nobody was answered while it was waited for: a caller that got no
    connection in a burst, or whose own connection a proxy cut, says nothing of the server.

    The probe is an ordinary operation that is let through (half-open). Any success closes the
    breaker, also one that was under way when it opened.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._answers = 0
        self._failures = 0
        self._pause_s = FIRST_PAUSE_S
        self._probe_at = 0.0

    @property
    def answers(self) -> int:
        """How often the server has answered."""
        return self._answers

    @property
    def open(self) -> bool:
        """Whether the server is known to be away."""
        return self._failures >= TRIP_AFTER

    def admits(self) -> bool:
        """Return whether to try; while open, True for one caller in each pause."""
        if not self.open:
            return True
        now = self._clock()
        if now < self._probe_at:
            return False
        self._probe_at = now + self._pause_s
        self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)
        return True

    def succeed(self) -> None:
        """The server answered."""
        self._answers += 1
        self._failures = 0
        self._pause_s = FIRST_PAUSE_S

    def fail(self, answers_before: int) -> bool:
        """The server did not answer since it had ``answers_before``; whether that opened it."""
        if self._answers != answers_before:
            return False
        was_open = self.open
        self._failures += 1
        if was_open or not self.open:
            return False
        self._probe_at = self._clock() + self._pause_s
        return True
