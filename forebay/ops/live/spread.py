"""How times are spread: counts in buckets that grow by a fixed ratio, added up over processes."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate
from typing import Final

_FIRST_S: Final = 0.001
_RATIO: Final = 1.25
_COUNT: Final = 66

BOUNDS: Final = tuple(_FIRST_S * _RATIO**step for step in range(_COUNT))
"""Upper bounds of the buckets in seconds, from 1 ms to about half an hour; one more is above."""


class Spread:
    """Counts since the start of a process."""

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS) + 1)

    def see(self, seconds: float) -> None:
        """Count one time."""
        self.counts[bisect_left(BOUNDS, seconds)] += 1


def quantile(counts: Sequence[float], share: float) -> float | None:
    """Return the time that ``share`` of those counted did not exceed; None where there are none.

    Within a bucket it is interpolated by ratio, so it is off by less than that of a bucket (25%),
    and as a rule by far less.
    """
    totals = list(accumulate(counts))
    if not totals or totals[-1] <= 0:
        return None
    rank = share * totals[-1]
    here = next(at for at, total in enumerate(totals) if total >= rank and counts[at] > 0)
    if here >= len(BOUNDS):
        return BOUNDS[-1]
    within = (rank - (totals[here] - counts[here])) / counts[here]
    return BOUNDS[here] * math.pow(_RATIO, max(0.0, min(1.0, within)) - 1)
