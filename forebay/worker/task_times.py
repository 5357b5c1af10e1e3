"""How long tasks took in this worker's hands, the wait before it included."""

from __future__ import annotations

import time
from typing import Final

from forebay.core.events import PhaseBegun
from forebay.core.lifecycle import State
from forebay.ops.live.spread import Spread
from forebay.queue.ports import Lease, Outcome
from forebay.worker.leases import LeaseKey, key_of

_LEAST_TOKENS: Final = 2
"""Of an answer that has times between its tokens."""


class TaskTimes:
    """Counts times of tasks that were answered.

    ``ttft``: from a task's arrival to its first token; ``tpot``: between two tokens of one answer;
    ``latency``: from the arrival to the answer's end. What is noted of a task goes with its lease.
    """

    def __init__(self) -> None:
        self.ttft, self.tpot, self.latency = Spread(), Spread(), Spread()
        self._created: dict[LeaseKey, float] = {}
        self._first: dict[LeaseKey, float] = {}

    def took(self, lease: Lease) -> None:
        """Note a lease that has just been claimed."""
        self._created[key_of(lease)] = time.monotonic() - lease.age_s

    def began(self, key: LeaseKey, begun: PhaseBegun) -> None:
        """Note a phase: with ``decode`` comes the first token."""
        if begun.phase is State.DECODE:
            self._first[key] = begun.at

    def answered(self, outcome: Outcome) -> None:
        """Count an answer that was stored."""
        key, now = (outcome.task_id, outcome.fence), time.monotonic()
        created, first = self._created.get(key), self._first.get(key)
        if created is None:
            return
        self.latency.see(now - created)
        if first is None:
            return
        self.ttft.see(first - created)
        tokens = outcome.usage.completion_tokens if outcome.usage else 0
        if tokens >= _LEAST_TOKENS and not outcome.others:
            self.tpot.see((now - first) / (tokens - 1))

    def dropped(self, key: LeaseKey) -> None:
        """Forget a lease that is no longer held."""
        self._created.pop(key, None)
        self._first.pop(key, None)

    def to_json(self) -> dict[str, list[int]]:
        """Return the counts since the start, by name."""
        return {
            "ttft": self.ttft.counts,
            "tpot": self.tpot.counts,
            "latency": self.latency.counts,
        }
