"""When a webhook that failed is tried again."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Final

_JITTER: Final = 0.2
"""Share by which a pause is longer or shorter, so that what failed together comes apart."""


@dataclass(frozen=True, slots=True)
class RetrySchedule:
    """``tries`` in all; the pauses between them begin at ``first_s``, times ``factor`` each.

    With what is set here: 5 s, 30 s, 3 min, 18 min, 1.8 h, 10 h, 10 h, so 8 tries in 22 hours.
    """

    tries: int = 8
    first_s: float = 5.0
    factor: float = 6.0
    longest_s: float = 36_000.0

    def pause_s(self, attempt: int, asked_s: float | None = None) -> float | None:
        """Return the pause after a failed attempt (from 1); None: that was the last.

        ``asked_s``: the receiver's ``Retry-After``. It may lengthen a pause, up to the longest one;
        it does not shorten any, for it would then hurry all that wait for the same receiver.
        """
        if attempt >= self.tries:
            return None
        pause = min(self.longest_s, self.first_s * self.factor ** (attempt - 1))
        pause *= random.uniform(1 - _JITTER, 1 + _JITTER)  # noqa: S311 - nobody gains by guessing
        return max(pause, min(asked_s or 0.0, self.longest_s))
